import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, onTestFinished } from 'vitest';
import { buy, checkBought, fillStock, untilEnded } from '../chaos/buyer.ts';
import { checkInvariants } from '../support/invariants.ts';
import { startLoad } from '../support/load.ts';
import { startOncebox } from '../support/oncebox.ts';
import { type Line, type Program, start } from '../support/processes.ts';
import { nameSchemas, type TestSchemas } from '../support/schemas.ts';
import { seeded } from '../support/seeded.ts';
import { type Api, type Eyes, lookInto, type Trio, trioOn } from '../support/trio.ts';
import { createVhost, type Vhost } from '../support/vhost.ts';
import { record } from '../support/wire.ts';

/** Programs of two releases on one pair of schemas and one vhost. */

export const PATIENCE = { timeout: 60_000, interval: 50 };
export const HERE = join(import.meta.dirname, '../..');

/** Api, relay and worker of one release, and its command. */
export interface Side {
  readonly name: string;
  readonly trio: Trio;
  /** Starts one of each, and waits until all are ready. */
  join(environment?: Readonly<Record<string, string>>): Promise<Joined>;
  /** Waits for the command's end. @throws when it is not with `code` 0. @returns what it wrote. */
  oncebox(...args: readonly string[]): Promise<string>;
  migrate(): Promise<string>;
}

export interface Joined {
  readonly api: Api;
  readonly worker: Program;
  /** SIGTERM to one after another. @throws when one does not end with 0. */
  leave(): Promise<void>;
}

export interface Ground extends Pick<Eyes, 'shop' | 'fulfilment'> {
  readonly schemas: TestSchemas;
  readonly vhost: Vhost;
  /** @param root folder of the release. */
  side(name: string, root: string): Side;
  /** What programs have said that none says in an upgrade, with who said it and how often. */
  complaints(): readonly string[];
}

/** Nothing is in the schemas yet: a release's `migrate` makes them. */
export async function newGround(): Promise<Ground> {
  const servers = inject('servers');
  const schemas = nameSchemas(servers);
  const vhost = await createVhost(servers);
  const eyes = lookInto(schemas);
  onTestFinished(async () => {
    await eyes.close();
    await Promise.all([schemas.drop(), vhost.drop()]);
  });
  const programs: { readonly name: string; readonly program: Program }[] = [];

  function side(name: string, root: string): Side {
    const trio = trioOn(schemas, vhost.amqpUrl, (main, environment) => {
      const program = start(main, environment, root);
      programs.push({ name, program });
      return program;
    });
    const environment = {
      MIGRATE_DATABASE_URL: servers.databaseUrl,
      API_DATABASE_URL: schemas.shop.url,
      WORKER_DATABASE_URL: schemas.fulfilment.url,
      RELAY_DATABASE_URLS: schemas.relayUrls,
      AMQP_URL: vhost.amqpUrl,
    };
    const oncebox = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await startOncebox(args, environment, tmpdir(), root).ended;
      if (code !== 0) throw new Error(`oncebox ${args.join(' ')} of ${name} ended with ${code}:\n${stdout}${stderr}`);
      return stdout;
    };
    return {
      name,
      trio,
      oncebox,
      migrate: () => {
        const services = [
          ['API_DATABASE_URL', 'shop'],
          ['WORKER_DATABASE_URL', 'fulfilment'],
        ].flatMap(([variable, folder]) => ['--service', `${variable}:${join(root, 'migrations', String(folder))}`]);
        return oncebox('migrate', ...services);
      },
      async join(more = {}) {
        // The worker fetches orders from this api, and its queues must be bound before the relay
        // begins.
        const api = await trio.api();
        const worker = trio.worker(more);
        await isReady(name, worker);
        const relay = trio.relay();
        await Promise.all([relay, api].map((program) => isReady(name, program)));
        return {
          api,
          worker,
          async leave() {
            for (const program of [relay, worker, api]) {
              program.kill('SIGTERM');
              expect(await program.exited, `the end of ${program.main} of ${name}`).toBe(0);
            }
          },
        };
      },
    };
  }

  return {
    ...eyes,
    schemas,
    vhost,
    side,
    complaints() {
      const said = programs.flatMap(({ name, program: { main, lines } }) =>
        lines
          .filter(isComplaint)
          .map(({ msg, err, error = err }) => `${main} of ${name}: ${msg} ${JSON.stringify(error)}`),
      );
      return [...Map.groupBy(said, (each) => each)].map(([each, { length }]) => `${length} times ${each}`);
    },
  };
}

/** What it lacks is in the error: a queue that it may not declare, a column that is gone. */
async function isReady(name: string, program: Program): Promise<void> {
  await program.ready().catch((error: unknown) => {
    throw new Error(`Beside the other release, ${program.main} of ${name} is not ready`, { cause: error });
  });
}

/**
 * Every server is up all the while, so nothing is reported as an error or waited for. A handler may
 * fail and be tried again: one of the shop's waits so for a customer that it has not heard of, or
 * for a slow api.
 */
const isComplaint = ({ level, msg }: Line): boolean =>
  ['error', 'fatal', 'stderr'].includes(level) || /ONCEBOX_|^(not consuming|Waiting for)/.test(msg);

/** Work for whichever apis there are, in turn, and what must be true of it in the end. */
export interface Work {
  /** Waits until so many more changes were accepted. */
  more(changes: number): Promise<void>;
  /** Stops, and compares what clients were told with tables, wire and effects. */
  prove(): Promise<void>;
}

export type StartWork = (ground: Ground, apis: readonly Pick<Api, 'url'>[]) => Promise<Work>;

const inTurn = (apis: readonly Pick<Api, 'url'>[]): (() => string) => {
  let turn = 0;
  return () => {
    turn += 1;
    const api = apis[turn % apis.length];
    if (api === undefined) throw new Error('No api runs');
    return api.url;
  };
};

export const customers: StartWork = async (ground, apis) => {
  const recording = await record(ground.vhost.amqpUrl);
  const url = inTurn(apis);
  const api = {
    get url() {
      return url();
    },
  };
  const load = startLoad(api);
  return {
    more: load.more,
    async prove() {
      await checkInvariants({ ...ground, recording }, await load.stop());
      // Nothing was refused on the way either, nor sent twice.
      expect(await ground.shop('SELECT DISTINCT attempts FROM outbox')).toEqual([{ attempts: 0 }]);
    },
  };
};

export const orders: StartWork = async (ground, apis) => {
  await fillStock(ground);
  const accepted = new Set<string>();
  const stopping = new AbortController();
  const settings = { url: inTurn(apis), journal: { retries: 0 }, signal: stopping.signal, thinkMs: 60, accepted };
  const buying = Promise.all([0, 1, 2].map((n) => buy({ ...settings, random: seeded(n) })));
  buying.catch(() => undefined); // whoever waits next hears of it
  return {
    async more(changes) {
      const enough = accepted.size + changes;
      while (accepted.size < enough) await Promise.race([buying, new Promise((resolve) => setTimeout(resolve, 20))]);
    },
    async prove() {
      stopping.abort();
      await buying;
      await untilEnded(ground, PATIENCE.timeout);
      await checkBought(ground, accepted);
    },
  };
};
