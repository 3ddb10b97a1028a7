import { setTimeout as sleep } from 'node:timers/promises';
import type { RowDataPacket } from 'mysql2/promise';
import type { Select } from './trio.ts';
import { depthOf, type Recording } from './wire.ts';

/**
 * What must hold after every fault: committed, announced and one effect are the same set, in the words of the client, the
 * tables and the broker. Free of vitest, so that the long runs use it as well.
 */

/** Where to look; a `System` and its recording. */
export interface Place {
  readonly shop: Select;
  readonly fulfilment: Select;
  readonly vhost: { readonly amqpUrl: string };
  /** Begun before the first message; without it, nothing is said about the wire. */
  readonly recording?: Recording;
}

/** What the client was told. */
export interface Told {
  /** Ids of customers that were created. */
  readonly accepted: Iterable<string>;
  /** E-mail addresses of those that were refused for good: none of them may exist. */
  readonly refused?: Iterable<string>;
  /** E-mail addresses of those whose fate the client does not know: each may exist. */
  readonly unknown?: Iterable<string>;
  /** For a customer that was changed, the newest version that the client was told of. */
  readonly versions?: ReadonlyMap<string, number>;
  /** `<consumer> <message id>` of those that must be dead letters; no other may be. */
  readonly dead?: Iterable<string>;
  /**
   * Others write to the outbox, the queues and the exchange as well, with ids that are no UUIDv7. Nothing is said of
   * what they wrote, and whoever calls has waited until all is quiet. A dead letter may be there twice.
   */
  readonly besideOthers?: boolean;
}

export interface Findings {
  readonly customers: number;
  readonly messages: number;
  readonly effects: number;
  readonly duplicatesOnTheWire: number;
}

const CONSUMERS = ['welcome-email', 'customer-directory'] as const;
/** Those that are not on their way back. */
const DEAD = "state IN ('dead', 'replay')";
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7/;
const QUEUES = CONSUMERS.flatMap((name) => [name, `${name}.dead`]);

/**
 * Waits until there is nothing left to do, then compares. A copy in the hands of a worker cannot be seen: who wants to be sure
 * of it waits (`untilQuiet`), stops the workers and looks then.
 *
 * @throws Error that lists what does not hold, with ids.
 */
export async function checkInvariants(place: Place, told: Told, patienceMs = 60_000): Promise<Findings> {
  const isOurs = told.besideOthers ? (id: unknown) => UUID_V7.test(String(id)) : () => true;
  if (!told.besideOthers) await untilQuiet(place, patienceMs);
  const [customers, written] = await Promise.all([
    place.shop('SELECT id, email, name, version FROM customers'),
    place.shop('SELECT id, aggregatetype, aggregateid, type, payload, state, held FROM outbox ORDER BY seq'),
  ]);
  const outbox = written.filter(({ id }) => isOurs(id));
  const effects = await Promise.all([
    place.fulfilment('SELECT message_id AS id FROM emails'),
    place.fulfilment('SELECT customer_id AS id, email, name, version FROM customer_directory'),
    place.fulfilment('SELECT consumer, CAST(message_id AS CHAR) AS id FROM processed_messages'),
    place.fulfilment(`SELECT consumer, CAST(message_id AS CHAR) AS id FROM dead_letters WHERE ${DEAD}`),
  ]);
  const ours = (rows: readonly RowDataPacket[] = []) => rows.filter(({ id }) => isOurs(id));
  const [emails, directory, processed, dead] = [ours(effects[0]), ours(effects[1]), ours(effects[2]), ours(effects[3])];
  const wire = (await place.recording?.read())?.filter(({ id }) => isOurs(id));
  const announcements = outbox.filter(({ aggregatetype }) => aggregatetype === 'customer');
  // A worker that is killed between the copy and its acknowledgement leaves two letters; a replay of both has one effect.
  const letters = dead.map((row) => `${row['consumer']} ${idOf(row)}`);
  const isDead = new Set(told.dead);
  /** The ids of the messages that a consumer must have taken. */
  const due = (consumer: string) =>
    announcements
      .filter(({ type }) => consumer !== 'welcome-email' || type === 'CustomerCreated')
      .map(idOf)
      .filter((id) => !isDead.has(`${consumer} ${id}`));
  const isDirectoryWhole = ![...isDead].some((each) => each.startsWith('customer-directory '));

  const problems = [
    ...toldTruly(told, customers),
    ...difference('committed changes', committed(customers), 'outbox rows', announcements.map(change)),
    ...outOfOrder('in the outbox', announcements),
    ...listed(
      'not published',
      outbox.filter(({ state, held }) => state !== 'published' || Number(held) !== 0).map(idOf),
    ),
    ...difference('dead letters', told.besideOthers ? [...new Set(letters)] : letters, 'those expected', [...isDead]),
    ...difference('e-mails', emails.map(idOf), 'creations', due('welcome-email')),
    ...CONSUMERS.flatMap((consumer) =>
      difference(
        `messages that ${consumer} has processed`,
        processed.filter((row) => row['consumer'] === consumer).map(idOf),
        'those for it',
        due(consumer),
      ),
    ),
    ...(isDirectoryWhole
      ? difference('directory entries', directory.map(entry), 'customers', customers.map(entry))
      : []),
    ...(wire === undefined ? [] : onTheWire(wire, outbox)),
  ];
  const distinct = new Set(wire?.map(({ id }) => id)).size;
  const findings = {
    customers: customers.length,
    messages: outbox.length,
    effects: emails.length,
    duplicatesOnTheWire: (wire?.length ?? 0) - distinct,
  };
  const counts = JSON.stringify(findings);
  if (problems.length > 0) throw new Error(`Broken invariants (${counts}):\n  ${problems.join('\n  ')}`);
  console.log(`invariants hold: ${counts}`);
  return findings;
}

/** Waits until the outbox is empty, every consumer has handled what is for it, and the queues are empty. Says no more than a timeout. */
export async function untilQuiet(place: Place, patienceMs: number): Promise<void> {
  const isQuiet = async (): Promise<boolean> => {
    const [waiting] = await place.shop("SELECT COUNT(*) AS n FROM outbox WHERE state = 'pending'");
    if (Number(waiting?.['n']) > 0) return false;
    const [wanted] = await place.shop(
      "SELECT COUNT(*) AS messages, SUM(type = 'CustomerCreated') AS created FROM outbox WHERE aggregatetype = 'customer'",
    );
    const [done] = await place.fulfilment(
      `SELECT (SELECT COUNT(*) FROM processed_messages) + (SELECT COUNT(*) FROM dead_letters WHERE ${DEAD}) AS n`,
    );
    if (Number(done?.['n']) < Number(wanted?.['messages']) + Number(wanted?.['created'])) return false;
    for (const queue of QUEUES) if ((await depthOf(place.vhost.amqpUrl, queue)) > 0) return false;
    return true;
  };
  const deadline = Date.now() + patienceMs;
  // What it could not wait for is named by the comparison that follows.
  while (!(await isQuiet()) && Date.now() < deadline) await sleep(50);
}

function toldTruly({ accepted, refused, unknown, versions }: Told, customers: readonly RowDataPacket[]): string[] {
  const found = new Map(customers.map((row) => [idOf(row), Number(row['version'])]));
  const [isAccepted, isRefused, isUnknown] = [new Set(accepted), new Set(refused), new Set(unknown)];
  const unexplained = customers.filter((row) => !isAccepted.has(idOf(row)) && !isUnknown.has(row['email']));
  const stale = Array.from(versions ?? []).filter(([id, version]) => (found.get(id) ?? 0) < version);
  return [
    ...listed(
      'accepted and not there',
      [...isAccepted].filter((id) => !found.has(id)),
    ),
    ...listed('refused and there', customers.filter((row) => isRefused.has(row['email'])).map(idOf)),
    ...listed('there though nobody was told so', unexplained.map(idOf)),
    ...listed(
      'a change that was accepted is not there',
      stale.map(([id, version]) => `${id} v${version}`),
    ),
  ];
}

function onTheWire(wire: NonNullable<Awaited<ReturnType<Recording['read']>>>, outbox: readonly RowDataPacket[]) {
  const firsts = new Map(wire.map(({ id, key }) => [id, key])); // a Map keeps the place of the first occurrence
  const sent = Map.groupBy(firsts, ([, key]) => key);
  const written = Map.groupBy(outbox, (row) => String(row['aggregateid']));
  const swapped = [...written].filter(
    ([key, rows]) => rows.map(idOf).join() !== (sent.get(key) ?? []).map(([id]) => id).join(),
  );
  const missing = difference('messages on the wire', [...firsts.keys()], 'outbox rows', outbox.map(idOf));
  return missing.length > 0
    ? missing
    : listed(
        'out of order on the wire',
        swapped.map(([key]) => key),
      );
}

const idOf = (row: RowDataPacket): string => String(row['id']);
const versionOf = (row: RowDataPacket): number => Number(JSON.parse(row['payload']).version);
const change = (row: RowDataPacket): string => `${row['aggregateid']} v${versionOf(row)}`;
const entry = (row: RowDataPacket): string => JSON.stringify([row['id'], row['email'], row['name'], row['version']]);
const committed = (customers: readonly RowDataPacket[]): string[] =>
  customers.flatMap((row) => Array.from({ length: Number(row['version']) }, (_, n) => `${row['id']} v${n + 1}`));

function outOfOrder(where: string, rows: readonly RowDataPacket[]): string[] {
  const keys = Map.groupBy(rows, (row) => String(row['aggregateid']));
  const isSwapped = (each: readonly RowDataPacket[]) => each.some((row, index) => versionOf(row) !== index + 1);
  return listed(
    `out of order ${where}`,
    [...keys].filter(([, each]) => isSwapped(each)).map(([key]) => key),
  );
}

/** As sets; and a member that is there twice is a difference, too. */
function difference(what: string, left: readonly string[], other: string, right: readonly string[]): string[] {
  const [lefts, rights] = [new Set(left), new Set(right)];
  const seen = new Set<string>();
  const twice = left.filter((each) => seen.size === seen.add(each).size);
  return [
    ...listed(`${what} without ${other}`, [...lefts.difference(rights)]),
    ...listed(`${other} without ${what}`, [...rights.difference(lefts)]),
    ...listed(`${what}: twice`, twice),
  ];
}

const listed = (what: string, members: readonly string[]): string[] =>
  members.length === 0 ? [] : [`${what}: ${members.length} (${members.slice(0, 5).join('; ')})`];
