import { checkInvariants } from '../support/invariants.ts';
import { seeded } from '../support/seeded.ts';
import { newJournal, runClient } from './client.ts';
import { type Role, startFleet } from './fleet.ts';
import { openStage } from './stage.ts';

/** `make demo`: 1,000 customers, while the relay and the worker are killed and the broker goes down; then who got what. */

const CLIENTS = 10;
const CUSTOMERS = 1_000;

const started = Date.now();
const say = (line: string): void => {
  const seconds = String(Math.round((Date.now() - started) / 1_000)).padStart(3);
  console.log(`${seconds} s  ${line}`);
};

const stage = await openStage(say);
const fleet = startFleet({ trio: stage.trio, sizes: { api: 1, relay: 1, worker: 1 }, environment: () => ({}) });
await run().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
await fleet.stop();
await stage.close();
process.exit(); // clients that a failure has left behind still have patience

async function run(): Promise<void> {
  await fleet.ready();
  say(`api, relay and worker are ready; ${CLIENTS} clients post ${CUSTOMERS.toLocaleString('en')} customers`);
  const journal = newJournal();
  const random = seeded(1);
  const signal = new AbortController().signal;
  const clients = Array.from({ length: CLIENTS }, (_, n) =>
    runClient({
      url: () => fleet.urls()[0],
      journal,
      random,
      name: `client-${n}`,
      customers: CUSTOMERS / CLIENTS,
      changes: 0,
      signal,
      thinkMs: 150,
    }),
  );
  const kill = (role: Role) => async () => {
    say(`  SIGKILL to the ${role}`);
    for (const program of fleet.members(role)) program.kill('SIGKILL');
  };
  const faults = [
    { after: 0.1, inflict: kill('relay') },
    { after: 0.25, inflict: kill('worker') },
    { after: 0.4, inflict: () => restartBroker() },
    { after: 0.6, inflict: kill('relay') },
    { after: 0.7, inflict: kill('worker') },
    { after: 0.8, inflict: kill('api') },
  ];
  const progress = setInterval(() => void report(journal.accepted.size), 5_000);
  const restarts: Promise<void>[] = [];
  const tormentor = setInterval(() => {
    const [next] = faults;
    if (next === undefined || journal.accepted.size < next.after * CUSTOMERS) return;
    faults.shift();
    restarts.push(next.inflict());
  }, 20);
  await Promise.all(clients);
  clearInterval(tormentor);
  await Promise.all(restarts);
  say('all are answered; waiting until every one has had its effect');
  const found = await checkInvariants(stage.place, journal, 60_000);
  clearInterval(progress);
  console.table({
    accepted: journal.accepted.size,
    announced: found.messages,
    effects: found.effects,
    'duplicates on the wire': found.duplicatesOnTheWire,
    lost: journal.accepted.size - found.effects,
  });
}

async function report(accepted: number): Promise<void> {
  const [published] = await stage.place.shop("SELECT COUNT(*) AS n FROM outbox WHERE state = 'published'");
  const [effects] = await stage.place.fulfilment('SELECT COUNT(*) AS n FROM emails');
  say(`${accepted} accepted, ${published?.['n']} published, ${effects?.['n']} e-mails`);
}

async function restartBroker(): Promise<void> {
  say('  SIGKILL to the broker, which is started again');
  await stage.restart('broker', 'killed');
  say('  the broker is back');
}
