import { createPool, type Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import type { launch, Program } from './program.ts';
import type { TestSchemas } from './schemas.ts';

type Environment = Readonly<Record<string, string>>;

export interface Api extends Program {
  readonly url: string;
}

/** The three processes on one pair of schemas and one vhost; each may be started several times. What `environment` gives wins. */
export interface Trio {
  /** It listens when this resolves; the others may be waited for with `ready()`. */
  api(environment?: Environment): Promise<Api>;
  relay(environment?: Environment): Program;
  /** Fetches orders from the api that was started last. */
  worker(environment?: Environment): Program;
}

/** @param start `launch`, or what takes note of the program as well. */
export function trioOn(schemas: TestSchemas, amqpUrl: string, start: typeof launch): Trio {
  let ordersApi: Environment = {};
  return {
    async api(environment) {
      const given = {
        API_DATABASE_URL: schemas.shop.url,
        AMQP_URL: amqpUrl,
        API_PORT: '0',
        API_OPS_PORT: '0',
        ...environment,
      };
      const program = start('apps/api/src/main.ts', given);
      const [, port] = await program.said(/^Listening on port (\d+)/);
      const url = `http://127.0.0.1:${port}`;
      ordersApi = { ORDERS_API_URL: url };
      return { ...program, url };
    },
    relay: (environment) =>
      start('apps/relay/src/main.ts', {
        RELAY_DATABASE_URLS: schemas.relayUrls,
        AMQP_URL: amqpUrl,
        RELAY_OPS_PORT: '0',
        ...environment,
      }),
    worker: (environment) =>
      start('apps/worker/src/main.ts', {
        WORKER_DATABASE_URL: schemas.fulfilment.url,
        AMQP_URL: amqpUrl,
        WORKER_OPS_PORT: '0',
        ...ordersApi,
        ...environment,
      }),
  };
}

/** Bigints, as of COUNT(*), come as numbers. */
export type Select = (sql: string, values?: readonly (string | readonly string[])[]) => Promise<RowDataPacket[]>;

/** The administrator's look into both schemas. */
export interface Eyes {
  readonly shop: Select;
  readonly fulfilment: Select;
  close(): Promise<void>;
}

export function lookInto(schemas: TestSchemas): Eyes {
  const shop = createPool(schemas.shop.adminUrl, { connections: 2 });
  const fulfilment = createPool(schemas.fulfilment.adminUrl, { connections: 2 });
  return {
    shop: selectOn(shop),
    fulfilment: selectOn(fulfilment),
    close: async () => void (await Promise.all([shop.end(), fulfilment.end()])),
  };
}

const selectOn =
  (pool: Pool): Select =>
  async (sql, values = []) => {
    const [rows] = await pool.query<RowDataPacket[]>(sql, [...values]);
    return rows;
  };
