import { setTimeout as sleep } from 'node:timers/promises';
import type { RowDataPacket } from 'mysql2/promise';
import type { Place } from '../support/invariants.ts';
import { depthOf } from '../support/wire.ts';
import type { Journal } from './client.ts';
import { CONSUMERS } from './foreign.ts';
import type { Outage } from './outages.ts';

/**
 * What has become of the messages that nobody has done anything to: whether each has had its
 * effects, and when.
 */

/**
 * Their e-mail fails, whatever is done: see `failOddEmails`. Their other effects are as innocent as
 * all others.
 */
export const ODD = 'odd-';

export interface Fate {
  readonly lost: readonly string[];
  /**
   * From the answer to the client to the effect, without outages that hit everybody; in
   * milliseconds, ascending.
   */
  readonly delaysMs: readonly number[];
  /** Those over the bound, with their delays. */
  readonly late: readonly string[];
}

type Where = Pick<Place, 'fulfilment' | 'vhost'> & { readonly schema: string };

/**
 * Each message with each of its effects, in the database's words; both schemas are on one server.
 */
const EFFECTS = `SELECT o.id, o.aggregateid, o.payload, c.consumer, UNIX_TIMESTAMP(p.processed_at) AS at,
    EXISTS (SELECT 1 FROM dead_letters d WHERE d.consumer = c.consumer AND d.message_id = o.id AND d.state = 'dead') AS dead
  FROM ??.outbox o
  JOIN (SELECT 'welcome-email' AS consumer UNION ALL SELECT 'customer-directory') c
    ON c.consumer = 'customer-directory' OR o.type = 'CustomerCreated'
  LEFT JOIN processed_messages p ON p.consumer = c.consumer AND p.message_id = o.id
  WHERE o.aggregatetype = 'customer'`;

const isOdd = (row: RowDataPacket): boolean =>
  row['consumer'] === 'welcome-email' && String(JSON.parse(row['payload']).email).startsWith(ODD);

/** Waits until each message has had its effect or was given up, and nothing waits in a queue. */
export async function untilDone(where: Where, patienceMs: number): Promise<void> {
  const { fulfilment, schema } = where;
  const deadline = Date.now() + patienceMs;
  const isDone = async (): Promise<boolean> => {
    const [open] = await fulfilment(`SELECT COUNT(*) AS n FROM (${EFFECTS}) e WHERE at IS NULL AND dead = 0`, [schema]);
    return Number(open?.['n']) === 0 && (await leftIn(where)).length === 0;
  };
  while (!(await isDone()) && Date.now() < deadline) await sleep(1_000);
}

/**
 * The consumers' queues that are not empty. What a process holds is not in its queue, so look when
 * all have stopped.
 */
export async function leftIn({ vhost }: Pick<Where, 'vhost'>): Promise<readonly string[]> {
  const left = [];
  for (const queue of CONSUMERS.flatMap((name) => [name, `${name}.dead`])) {
    const depth = await depthOf(vhost.amqpUrl, queue);
    if (depth > 0) left.push(`${depth} in ${queue}`);
  }
  return left;
}

export async function fateOf(
  { fulfilment, schema }: Where,
  { answered }: Pick<Journal, 'answered'>,
  outages: readonly Outage[],
  boundMs: number,
): Promise<Fate> {
  const rows = (await fulfilment(EFFECTS, [schema])).filter((row) => !isOdd(row));
  const nameOf = (row: RowDataPacket): string => `${row['consumer']} ${row['id']}`;
  const delays = rows.flatMap((row) => {
    const from = answered.get(`${row['aggregateid']} v${JSON.parse(row['payload']).version}`);
    if (row['at'] === null || from === undefined) return [];
    return [{ name: nameOf(row), ms: Math.max(0, delayOutside(outages, from, Number(row['at']) * 1_000)) }];
  });
  return {
    lost: rows.filter((row) => row['at'] === null).map(nameOf),
    delaysMs: delays.map(({ ms }) => ms).sort((a, b) => a - b),
    late: delays.filter(({ ms }) => ms > boundMs).map(({ name, ms }) => `${name} after ${(ms / 1_000).toFixed(1)} s`),
  };
}

/** `<consumer> <message id>` of the e-mails that must be dead letters. */
export async function oddLetters({ fulfilment, schema }: Where): Promise<readonly string[]> {
  return (await fulfilment(EFFECTS, [schema])).filter(isOdd).map((row) => `${row['consumer']} ${row['id']}`);
}

/** Outages come one after another. */
const delayOutside = (outages: readonly Outage[], from: number, to: number): number =>
  outages.reduce((ms, each) => ms - Math.max(0, Math.min(to, each.to) - Math.max(from, each.from)), to - from);

/** Handlers' errors with numbers that mean something else where they come from the server. */
const ERRNOS = [1644, 1062, 1205, 1146, 1411, 3819];

/** Each e-mail to an odd address fails, each address always with the same number. */
export async function failOddEmails({ fulfilment }: Pick<Place, 'fulfilment'>): Promise<void> {
  await fulfilment(`CREATE TRIGGER odd_emails BEFORE INSERT ON emails FOR EACH ROW
    BEGIN
      DECLARE errno INT DEFAULT ELT(1 + CRC32(NEW.recipient) % ${ERRNOS.length}, ${ERRNOS.join()});
      IF NEW.recipient LIKE '${ODD}%' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = errno, MESSAGE_TEXT = 'an odd address';
      END IF;
    END`);
}
