import { createPool, type Pool } from '@oncebox/mysql';
import type { Channel } from 'amqplib';
import type { RowDataPacket } from 'mysql2/promise';
import type { Servers } from '../deploy/infra/servers.ts';
import { createSchemas, type TestSchemas } from '../test/support/schemas.ts';
import { createVhost, type Vhost } from '../test/support/vhost.ts';
import type { Sizes } from './figure.ts';
import { QUEUE, ROUTING_KEY } from './messages.ts';
import { type Launched, type LaunchOptions, launch } from './process.ts';

/** Schemas and a vhost of the benchmark's own, and how to start the three processes on them. */
export interface Testbed {
  readonly servers: Servers;
  readonly sizes: Sizes;
  readonly schemas: TestSchemas;
  readonly vhost: Vhost;
  /** The administrator's, into either schema. */
  readonly shop: Pool;
  readonly fulfilment: Pool;
  readonly channel: Channel;
  /** What `environment` gives wins. */
  api(environment?: Environment, main?: string): Promise<Launched & { readonly url: string }>;
  relay(environment?: Environment, onLine?: LaunchOptions['onLine']): Launched;
  worker(environment?: Environment, onLine?: LaunchOptions['onLine']): Launched;
  /** Shows a line that belongs to the case under way. */
  note(line: string): void;
  /** Forgets all that was written so far. */
  clear(): Promise<void>;
  drop(): Promise<void>;
}

/** As `npm start -w apps/relay` and the image set them. */
const RELAY_LIMITS = '--max-semi-space-size=8 --max-old-space-size=512';

type Environment = Readonly<Record<string, string>>;

export interface TestbedOptions {
  readonly sizes: Sizes;
  /** Where the processes under measurement leave their CPU profiles. */
  readonly profileInto: string | undefined;
  readonly note: (line: string) => void;
}

const TABLES = {
  shop: ['outbox', 'outbox_waiting', 'customers', 'idempotency_keys'],
  fulfilment: ['outbox', 'outbox_waiting', 'processed_messages', 'emails', 'customer_directory'],
};

export async function createTestbed(servers: Servers, { sizes, profileInto, note }: TestbedOptions): Promise<Testbed> {
  const [schemas, vhost] = await Promise.all([createSchemas(servers), createVhost(servers)]);
  const shop = createPool(schemas.shop.adminUrl, { connections: 4 });
  const fulfilment = createPool(schemas.fulfilment.adminUrl, { connections: 4 });
  const channel = await vhost.channel();
  await channel.assertExchange('oncebox.events', 'topic', { durable: true });
  await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(QUEUE, 'oncebox.events', ROUTING_KEY);
  return {
    servers,
    sizes,
    schemas,
    vhost,
    shop,
    fulfilment,
    channel,
    note,
    async api(environment, main = 'apps/api/src/main.ts') {
      const given = {
        API_DATABASE_URL: schemas.shop.url,
        AMQP_URL: vhost.amqpUrl,
        API_PORT: '0',
        API_OPS_PORT: '0',
        ...environment,
      };
      const api = launch(main, given, { profileInto });
      const [, port] = await api.said(/Listening on port (\d+)/);
      await api.ready();
      return { ...api, url: `http://127.0.0.1:${port}` };
    },
    relay: (environment, onLine = () => undefined) =>
      launch(
        'apps/relay/src/main.ts',
        {
          RELAY_DATABASE_URLS: schemas.relayUrls,
          AMQP_URL: vhost.amqpUrl,
          RELAY_OPS_PORT: '0',
          NODE_OPTIONS: RELAY_LIMITS,
          ...environment,
        },
        { profileInto, onLine },
      ),
    worker: (environment, onLine = () => undefined) =>
      launch(
        'apps/worker/src/main.ts',
        { WORKER_DATABASE_URL: schemas.fulfilment.url, AMQP_URL: vhost.amqpUrl, WORKER_OPS_PORT: '0', ...environment },
        { profileInto, onLine },
      ),
    async clear() {
      for (const table of TABLES.shop) await shop.query('TRUNCATE TABLE ??', [table]);
      for (const table of TABLES.fulfilment) await fulfilment.query('TRUNCATE TABLE ??', [table]);
      await channel.purgeQueue(QUEUE);
    },
    async drop() {
      await Promise.all([shop.end(), fulfilment.end()]);
      await Promise.all([schemas.drop(), vhost.drop()]);
    },
  };
}

/** The first row's columns, as numbers. */
export async function numbers(pool: Pool, sql: string): Promise<Record<string, number>> {
  const [[row]] = await pool.query<RowDataPacket[]>(sql);
  return Object.fromEntries(Object.entries(row ?? {}).map(([name, value]) => [name, Number(value)]));
}

/** A counter of the server; undefined where it has none of that name. */
export async function status(pool: Pool, name: string): Promise<number | undefined> {
  const [[row]] = await pool.query<RowDataPacket[]>('SHOW GLOBAL STATUS LIKE ?', [name]);
  return row === undefined ? undefined : Number(row['Value']);
}
