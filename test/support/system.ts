import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { z } from 'zod';
import type { Servers } from '../../deploy/infra/servers.ts';
import { type Program, start } from './processes.ts';
import { createSchemas, type TestSchemas } from './schemas.ts';
import { createVhost, type Vhost } from './vhost.ts';

type Environment = Readonly<Record<string, string>>;

const json = z.record(z.string(), z.unknown());

export interface Api extends Program {
  readonly url: string;
}

/** Schemas and a vhost of one test file's own, and the three processes on them; each may be started several times. */
export interface System {
  readonly schemas: TestSchemas;
  readonly vhost: Vhost;
  /** The administrator's look into both schemas. */
  readonly shop: Select;
  readonly fulfilment: Select;
  /** It listens when this resolves; the others may be waited for with `ready()`. What `environment` gives wins. */
  api(environment?: Environment): Promise<Api>;
  relay(environment?: Environment): Program;
  worker(environment?: Environment): Program;
  drop(): Promise<void>;
}

/** Bigints, as of COUNT(*), come as numbers. */
export type Select = (sql: string, values?: readonly (string | readonly string[])[]) => Promise<RowDataPacket[]>;

export async function createSystem(servers: Servers): Promise<System> {
  const [schemas, vhost] = await Promise.all([createSchemas(servers), createVhost(servers)]);
  const pools = [schemas.shop, schemas.fulfilment].map(({ adminUrl }) => createPool(adminUrl, { connections: 2 }));
  const [shop, fulfilment] = pools.map(selectOn);
  if (shop === undefined || fulfilment === undefined) throw new Error('A system has two schemas');
  return {
    schemas,
    vhost,
    shop,
    fulfilment,
    async api(environment) {
      const given = { API_DATABASE_URL: schemas.shop.url, API_PORT: '0', API_OPS_PORT: '0', ...environment };
      const program = start('apps/api/src/main.ts', given);
      const [, port] = await program.said(/^Listening on port (\d+)/);
      return { ...program, url: `http://127.0.0.1:${port}` };
    },
    relay: (environment) =>
      start('apps/relay/src/main.ts', {
        RELAY_DATABASE_URLS: schemas.relayUrls,
        AMQP_URL: vhost.amqpUrl,
        RELAY_OPS_PORT: '0',
        ...environment,
      }),
    worker: (environment) =>
      start('apps/worker/src/main.ts', {
        WORKER_DATABASE_URL: schemas.fulfilment.url,
        AMQP_URL: vhost.amqpUrl,
        WORKER_OPS_PORT: '0',
        ...environment,
      }),
    async drop() {
      for (const pool of pools) await pool.end();
      await Promise.all([schemas.drop(), vhost.drop()]);
    },
  };
}

const selectOn =
  (pool: Pool): Select =>
  async (sql, values = []) => {
    const [rows] = await pool.query<RowDataPacket[]>(sql, [...values]);
    return rows;
  };

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
