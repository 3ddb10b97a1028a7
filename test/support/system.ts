import { z } from 'zod';
import type { Servers } from '../../deploy/infra/servers.ts';
import { start } from './processes.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';
import { type Api, type Eyes, lookInto, type Trio, trioOn } from './trio.ts';
import { createVhost, type Vhost } from './vhost.ts';

export type { Api, Select } from './trio.ts';

const json = z.record(z.string(), z.unknown());

/** Schemas and a vhost of one test file's own, and the three processes on them. */
export interface System extends Trio, Pick<Eyes, 'shop' | 'fulfilment'> {
  readonly schemas: TestSchemas;
  readonly vhost: Vhost;
  drop(): Promise<void>;
}

export async function createSystem(servers: Servers): Promise<System> {
  const [schemas, vhost] = await Promise.all([createSchemas(servers), createVhost(servers)]);
  const eyes = lookInto(schemas);
  return {
    schemas,
    vhost,
    ...trioOn(schemas, vhost.amqpUrl, start),
    shop: eyes.shop,
    fulfilment: eyes.fulfilment,
    async drop() {
      await eyes.close();
      await Promise.all([schemas.drop(), vhost.drop()]);
    },
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A request with a JSON body; a string is sent as it is, to send what is no JSON. */
export async function send(
  api: Pick<Api, 'url'>,
  method: 'POST' | 'PATCH',
  path: string,
  body: object | string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const response = await fetch(`${api.url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, headers: response.headers, body: json.parse(await response.json()) };
}

/** Posts a customer nobody else has. @returns its id @throws when it is not 201. */
export async function postCustomer(api: Pick<Api, 'url'>, mark: string): Promise<string> {
  const { status, body } = await send(api, 'POST', '/customers', { email: `${mark}@example.com`, name: `The ${mark}` });
  if (status !== 201) throw new Error(`POST /customers: ${status} ${JSON.stringify(body)}`);
  return String(body['id']);
}
