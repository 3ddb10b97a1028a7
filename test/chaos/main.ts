import { parseArgs } from 'node:util';
import { checkInvariants } from '../support/invariants.ts';
import { seeded } from '../support/seeded.ts';
import { buy, checkBought, fillStock, untilEnded } from './buyer.ts';
import { newJournal, runClient } from './client.ts';
import { killedSometime } from './failpoints.ts';
import { startFleet } from './fleet.ts';
import { publishForeign } from './foreign.ts';
import { moveExchanges, writeHostileRows } from './hostile-rows.ts';
import { failOddEmails, fateOf, leftIn, ODD, oddLetters, untilDone } from './innocents.ts';
import { inflictOutages } from './outages.ts';
import { type Report, reportOf, table } from './report.ts';
import { openStage } from './stage.ts';
import { torment } from './torment.ts';

/**
 * `make chaos`: load on two apis, three relays and three workers, while chance kills and stops processes, restarts
 * servers, locks accounts, and others send what nobody should send. In the end: nothing lost, nothing doubled, and
 * every message that nobody has done anything to was on time. `--orders` places orders for scarce stock instead, and
 * every one of them must end. Exit code 1 when one of these does not hold, or a process ended by itself.
 */

const FAULTS = ['signals', 'outages', 'foreign', 'rows', 'handlers'] as const;
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    /** The same seed makes the same sequence of faults; which message they meet is up to the machine. */
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    clients: { type: 'string', default: '6' },
    /**
     * Seconds from the client's answer to each effect, at most, without outages that hit everybody. The broker takes a
     * message back from a worker that is stopped after 20 s or so, and another one may then be stopped with it.
     */
    bound: { type: 'string', default: '45' },
    /** Fewer kinds of faults, to find out which of them does it. */
    faults: { type: 'string', default: FAULTS.join() },
    orders: { type: 'boolean', default: false },
    /** One JSON object on stdout; progress goes to stderr. */
    json: { type: 'boolean', default: false },
  },
});
const chosen = new Set(values.faults.split(','));
const unknown = [...chosen].filter((each) => !FAULTS.some((fault) => fault === each));
if (unknown.length > 0) throw new Error(`--faults has ${unknown.join()}; there are ${FAULTS.join()}`);

/** Each source of chance has its own, so that none depends on how often another was asked. */
const chance = (source: number): (() => number) => seeded(Number(values.seed) + source * 1_000_003);
const started = Date.now();
const print = values.json ? console.error : console.log;
const say = (line: string): void =>
  print(`${String(Math.round((Date.now() - started) / 1_000)).padStart(4)} s  ${line}`);

say(`chaos for ${values.seconds} s with --seed ${values.seed}`);
const stage = await openStage(say);
let isOver = false;
const starting = chance(1);
const fleet = startFleet({
  trio: stage.trio,
  sizes: { api: 2, relay: 3, worker: 3 },
  environment: (role) => ({
    // A message that is given up is found in the time of a run, not after thirteen minutes.
    ...(role === 'worker' && !values.orders ? { WORKER_RETRY_DELAYS_MS: '200,1000,3000,5000' } : {}),
    // A relay that is stopped holds its messages for less time than the bound.
    ...(role === 'relay' ? { RELAY_LEASE_SECONDS: '10' } : {}),
    // Less than a restart takes, so that steps are given up that may have been done.
    ...(role === 'worker' && values.orders ? { WORKER_STEP_TIMEOUT_MS: '3000' } : {}),
    ...(isOver || !chosen.has('signals') ? {} : killedSometime(role, starting)),
  }),
});
try {
  await fleet.ready();
  const failures = values.orders ? await runOrders() : await runCustomers();
  if (fleet.excused.length > 0) say(`no failure of this run, but worth a look:\n${fleet.excused.join('\n')}`);
  if (fleet.surprises.length > 0) failures.push(`Ended by themselves:\n${fleet.surprises.join('\n')}`);
  if (failures.length > 0) throw new Error(failures.join('\n'));
  say('nothing lost, nothing doubled, everybody on time');
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.error(`The run had --seed ${values.seed}`);
  process.exitCode = 1;
}
await fleet.stop();
await stage.close();
process.exit(); // clients that a failure has left behind still have patience

/** All faults that were chosen, until the time is up; meanwhile the clients work. */
async function disturb(clients: readonly Promise<void>[], signal: AbortSignal, progress: () => string) {
  const faults = new Map<string, number>();
  const onFault = (fault: string) => void faults.set(fault, (faults.get(fault) ?? 0) + 1);
  const told = () => Array.from(faults, ([fault, times]) => `${times} ${fault}`).join(', ');
  const reporting = setInterval(() => say(`${progress()}; ${told()}`), 15_000);
  const { shop, vhost } = stage.place;
  const tormented = Promise.all([
    chosen.has('outages') ? inflictOutages({ stage, random: chance(2), signal, onFault }) : [],
    chosen.has('foreign') ? publishForeign(vhost.amqpUrl, chance(3), signal) : 0,
    chosen.has('rows') ? writeHostileRows(shop, chance(4), signal) : 0,
    chosen.has('rows') ? moveExchanges(vhost.amqpUrl, chance(5), signal) : undefined,
    chosen.has('signals') ? torment({ fleet, random: chance(6), signal, onFault }) : undefined,
  ]).then((all) => {
    isOver = true;
    say('no more faults; waiting for the clients, then until nothing is left to do');
    // A process can still stop itself at a failpoint that it was started with.
    setInterval(() => fleet.members().map((each) => each.kill('SIGCONT')), 1_000);
    return all;
  });
  const [[outages, foreign, rows]] = await Promise.all([tormented, ...clients]);
  clearInterval(reporting);
  return { outages, foreign, rows, faults: Object.fromEntries(faults) };
}

function load(signal: AbortSignal) {
  const [choosing, working] = [chance(7), chance(8)];
  const url = () => fleet.urls()[Math.floor(choosing() * fleet.urls().length)];
  return { url, random: working, signal, thinkMs: 100 };
}

async function runCustomers(): Promise<string[]> {
  const { place } = stage;
  const signal = AbortSignal.timeout(Number(values.seconds) * 1_000);
  const journal = newJournal();
  const given = { ...load(signal), journal };
  const clients = Array.from({ length: Number(values.clients) }, (_, n) =>
    runClient({ ...given, name: `client-${n}` }),
  );
  if (chosen.has('handlers')) {
    await failOddEmails(place);
    clients.push(runClient({ ...given, name: `${ODD}client`, thinkMs: 4_000 }));
  }
  const disturbed = await disturb(
    clients,
    signal,
    () => `${journal.accepted.size} customers, ${journal.versions.size} changed, ${journal.retries} retries`,
  );
  await untilDone(place, 120_000);
  await fleet.stop(); // with what they have in hand
  const leftOver = await leftIn(place);
  const boundMs = Number(values.bound) * 1_000;
  const fate = await fateOf(place, journal, disturbed.outages, boundMs);
  const report: Report = await reportOf(place, {
    ...disturbed,
    seed: Number(values.seed),
    seconds: Number(values.seconds),
    processes: fleet.starts,
    customers: journal.accepted.size,
    fate,
    boundMs,
    leftOver,
  });
  if (values.json) console.log(JSON.stringify(report));
  else print(table(report));
  const told = { ...journal, dead: await oddLetters(place), besideOthers: true };
  const broken = await checkInvariants(place, told, 1_000).then(
    () => [],
    (error: unknown) => [String(error)],
  );
  return [
    ...broken,
    ...(fate.late.length > 0 ? [`Late: ${fate.late.length} (${fate.late.slice(0, 5).join('; ')})`] : []),
    ...(leftOver.length > 0 ? [`Neither handled nor dead, with a reason: ${leftOver.join(', ')}`] : []),
  ];
}

async function runOrders(): Promise<string[]> {
  const signal = AbortSignal.timeout(Number(values.seconds) * 1_000);
  const [accepted, journal] = [new Set<string>(), { retries: 0 }];
  await fillStock(stage.place);
  const given = { ...load(signal), journal, accepted };
  const buyers = Array.from({ length: Number(values.clients) }, () => buy(given));
  await disturb(buyers, signal, () => `${accepted.size} orders, ${journal.retries} retries`);
  await untilEnded(stage.place, 300_000);
  await fleet.stop(); // with what they have in hand
  say(`${fleet.starts} processes started`);
  return checkBought(stage.place, accepted).then(
    () => [],
    (error: unknown) => [String(error)],
  );
}
