import { type OutgoingMessage, PARTITIONS } from '@oncebox/message';
import type { Pool } from '@oncebox/mysql';

/** Every message of a run carries its number in its id, so that what arrived can be compared with what was sent. */

export const QUEUE = 'bench';
export const TYPE = 'BenchMessage';
export const ROUTING_KEY = 'bench.message';
/** Ordering keys that the messages go round. The relay has one unconfirmed message a key, so this is more than its batch. */
export const KEYS = 10_000;

const ID_PREFIX = '00000000-0000-7000-8000-';
export const messageId = (n: number): string => ID_PREFIX + n.toString(16).padStart(12, '0');
export const numberOf = (id: unknown): number =>
  typeof id === 'string' && id.startsWith(ID_PREFIX) ? Number.parseInt(id.slice(ID_PREFIX.length), 16) : Number.NaN;

/** JSON of exactly so many bytes, `{"n":<n>,"pad":"xxx…"}`; as `seed` makes it in SQL. */
const payload = (n: number, bytes: number): string => {
  const start = `{"n":${n},"pad":"`;
  return `${start}${'x'.repeat(bytes - start.length - 2)}"}`;
};

const envelope = (n: number, source: string) => ({
  id: messageId(n),
  version: 1,
  lineage: { correlationId: messageId(n) },
  exchange: 'oncebox.events',
  mandatory: true,
  source,
  occurredAt: new Date(),
});

/** What the relay makes of the row `n` of `seed`, for those who publish without a relay. */
export const outgoing = (n: number, bytes: number, source: string): OutgoingMessage => ({
  ...envelope(n, source),
  type: TYPE,
  aggregateId: `key-${n % KEYS}`,
  partition: n % PARTITIONS,
  payload: payload(n, bytes),
  routingKey: ROUTING_KEY,
});

/** For the worker. */
export const customerCreated = (n: number): OutgoingMessage => ({
  ...envelope(n, 'shop'),
  type: 'CustomerCreated',
  aggregateId: messageId(n),
  payload: JSON.stringify({
    customerId: messageId(n),
    email: `customer-${n}@example.com`,
    name: `Customer ${n}`,
    version: 1,
  }),
  routingKey: 'customer.created',
});

const DIGITS =
  '(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4' +
  ' UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)';
const CHUNK = 10_000;

/**
 * Writes the rows `from` to `to`, the latter not included. In the server, because sending a million of them takes longer than
 * draining them; ORDER BY, so that `seq` rises with the number.
 */
export async function seed(pool: Pool, from: number, to: number, bytes: number, keys = KEYS): Promise<void> {
  for (let first = from; first < to; first += CHUNK) {
    await pool.query(
      `INSERT INTO outbox (id, headers, aggregatetype, aggregateid, type, version, routing_key, payload)
       SELECT id, CONCAT('{"correlationId":"', id, '"}'), 'bench', CONCAT('key-', n % ?), ?, 1, ?,
              CONCAT(RPAD(CONCAT('{"n":', n, ',"pad":"'), ?, 'x'), '"}')
         FROM (SELECT n, CONCAT(?, LPAD(LOWER(HEX(n)), 12, '0')) AS id
                 FROM (SELECT ? + a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n
                         FROM ${DIGITS} AS a, ${DIGITS} AS b, ${DIGITS} AS c, ${DIGITS} AS e) AS numbers
                WHERE n < ?) AS messages
        ORDER BY n`,
      [keys, TYPE, ROUTING_KEY, bytes - 2, ID_PREFIX, first, to],
    );
  }
}
