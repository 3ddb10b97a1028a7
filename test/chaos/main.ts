import { parseArgs } from 'node:util';
import { checkInvariants, untilQuiet } from '../support/invariants.ts';
import { seeded } from '../support/seeded.ts';
import { buy, checkBought, fillStock, untilEnded } from './buyer.ts';
import { newJournal, runClient } from './client.ts';
import { killedSometime } from './failpoints.ts';
import { startFleet } from './fleet.ts';
import { openStage } from './stage.ts';
import { torment } from './torment.ts';

/**
 * `make chaos`: load on two apis, three relays and three workers while their processes and servers are killed, stopped and restarted
 * at random; in the end, the invariants. With `--orders` it is orders for scarce stock, and every one of them must end. Exit code 1 when one does not hold, or when a process ended by itself.
 */

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    /** The same seed makes the same choices; when they meet the system is up to the machine. */
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    clients: { type: 'string', default: '6' },
    /** Orders instead of customers. */
    orders: { type: 'boolean', default: false },
  },
});
const random = seeded(Number(values.seed));
const started = Date.now();
const say = (line: string): void =>
  console.log(`${String(Math.round((Date.now() - started) / 1_000)).padStart(4)} s  ${line}`);

say(`chaos for ${values.seconds} s with --seed ${values.seed}`);
const stage = await openStage(say);
let isOver = false;
const fleet = startFleet({
  trio: stage.trio,
  sizes: { api: 2, relay: 3, worker: 3 },
  environment: (role) => ({
    // Less than a restart takes, so that steps are given up that may have been done.
    ...(role === 'worker' && values.orders ? { WORKER_STEP_TIMEOUT_MS: '3000' } : {}),
    ...(isOver ? {} : killedSometime(role, random)),
  }),
});
try {
  await run();
  say('nothing lost, nothing doubled');
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.error(`The run had --seed ${values.seed}`);
  process.exitCode = 1;
}
await fleet.stop();
await stage.close();
process.exit(); // clients that a failure has left behind still have patience

async function run(): Promise<void> {
  await fleet.ready();
  const journal = newJournal();
  const orders = new Set<string>();
  const faults = new Map<string, number>();
  const report = () => {
    const done = Array.from(faults, ([fault, times]) => `${times} ${fault}`).join(', ');
    const told = values.orders
      ? `${orders.size} orders`
      : `${journal.accepted.size} customers, ${journal.versions.size} changed`;
    say(`${told}, ${journal.retries} retries; ${done}`);
  };
  setInterval(report, 15_000);
  const signal = AbortSignal.timeout(Number(values.seconds) * 1_000);
  const url = () => fleet.urls()[Math.floor(random() * fleet.urls().length)];
  const load = { url, journal, random, signal, thinkMs: 100 };
  if (values.orders) await fillStock(stage.place);
  const clients = Array.from({ length: Number(values.clients) }, (_, n) =>
    values.orders ? buy({ ...load, accepted: orders }) : runClient({ ...load, name: `client-${n}` }),
  );
  const onFault = (fault: string) => void faults.set(fault, (faults.get(fault) ?? 0) + 1);
  const tormented = torment({ fleet, servers: stage, random, signal, onFault }).then(() => {
    isOver = true;
    say('no more faults; waiting for the clients, then until nothing is left to do');
    // A process can still stop itself at a failpoint that it was started with.
    setInterval(() => fleet.members().map((each) => each.kill('SIGCONT')), 1_000);
  });
  await Promise.all([tormented, ...clients]);
  if (values.orders) await untilEnded(stage.place, 300_000);
  else await untilQuiet(stage.place, 180_000);
  await fleet.stop(); // with what they have in hand
  report();
  say(`${fleet.starts} processes started; the fate of ${journal.unknown.size} customers unknown to the client`);
  if (values.orders) await checkBought(stage.place, orders);
  else await checkInvariants(stage.place, journal, 1_000);
  if (fleet.excused.length > 0) say(`no failure of this run, but worth a look:\n${fleet.excused.join('\n')}`);
  if (fleet.surprises.length > 0) throw new Error(`Ended by themselves:\n${fleet.surprises.join('\n')}`);
}
