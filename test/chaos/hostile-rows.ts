import { randomUUID } from 'node:crypto';
import { connect } from 'amqplib';
import type { Select } from '../support/trio.ts';
import { pause } from './pause.ts';

/**
 * Rows that somebody writes into the outbox by plain SQL, most for exchanges that are not there.
 * None of their ids is a UUIDv7.
 */

/** Declared and deleted all the while; what waits for them goes out when they are there. */
const LATE = ['late.1', 'late.2'];
const EXCHANGES = [...LATE, 'missing.1', 'missing.2', 'missing.3', 'missing.4', 'missing.5', 'm'.repeat(127)];
const KEYS = ["'; DROP TABLE outbox; --", 'SKU7 ', '\u{1f600}'.repeat(60), '%', '\\', 'k'.repeat(255)];
const HEADERS = [
  null,
  '{}',
  'no JSON',
  '[]',
  '{"traceparent":1}',
  '{"a":{"b":[1,null]}}',
  `{"x":"${'h'.repeat(60_000)}"}`,
];
const PAYLOADS = ['{"hostile":true}', 'no JSON', '', 'p'.repeat(200_000)];
const ROUTING_KEYS = [null, '', 'customer.created', 'r'.repeat(255)];

/** Until `signal`. @returns how many it has written. */
export async function writeHostileRows(shop: Select, random: () => number, signal: AbortSignal): Promise<number> {
  let written = 0;
  while (await pause(300 + random() * 2_000, signal)) {
    const rows = Array.from({ length: 1 + Math.floor(random() * 5) }, () => rowOf(random));
    const places = rows.map(() => "(?, 'hostile', ?, 'Hostile', 1, ?, ?, ?, ?, ?)").join();
    const columns = 'id, aggregatetype, aggregateid, type, version, payload, headers, exchange, routing_key, delivery';
    await shop(`INSERT INTO outbox (${columns}) VALUES ${places}`, rows.flat() as string[]).then(
      () => {
        written += rows.length;
      },
      () => undefined, // the database is away
    );
  }
  return written;
}

/** One row in five is for the exchange of events, where consumers find it. */
function rowOf(random: () => number): readonly (string | null)[] {
  const pick = <T>(given: readonly T[]): T | null => given[Math.floor(random() * given.length)] ?? null;
  return [
    randomUUID(),
    pick(KEYS),
    pick(PAYLOADS),
    pick(HEADERS),
    random() < 0.2 ? 'oncebox.events' : pick(EXCHANGES),
    pick(ROUTING_KEYS),
    random() < 0.3 ? 'optional' : 'required',
  ];
}

/** Declares one of the late exchanges, or deletes it, until `signal`. */
export async function moveExchanges(amqpUrl: string, random: () => number, signal: AbortSignal): Promise<void> {
  while (await pause(3_000 + random() * 6_000, signal)) {
    const [exchange, isThere] = [LATE[Math.floor(random() * LATE.length)] ?? '', random() < 0.5];
    await declareOrDelete(amqpUrl, exchange, isThere).catch(() => undefined); // the broker is away
  }
}

async function declareOrDelete(amqpUrl: string, exchange: string, isThere: boolean): Promise<void> {
  const connection = await connect(amqpUrl);
  connection.on('error', () => undefined); // the call under way rejects
  const channel = await connection.createChannel();
  channel.on('error', () => undefined); // likewise
  if (isThere) {
    await channel.assertExchange(exchange, 'fanout');
    await channel.assertQueue('late', { durable: true });
    await channel.bindQueue('late', exchange, '');
  } else {
    await channel.deleteExchange(exchange);
  }
  await connection.close();
}

/**
 * What has become of the rows: published, parked or pending with the reason, or pending without
 * one.
 */
export async function endsOfHostileRows(shop: Select): Promise<Readonly<Record<string, number>>> {
  const rows = await shop(
    `SELECT IF(state = 'pending', IF(last_error IS NULL, 'pending', 'pending with a reason'), state) AS end, COUNT(*) AS n
       FROM outbox WHERE aggregatetype = 'hostile' GROUP BY end ORDER BY end`,
  );
  return Object.fromEntries(rows.map(({ end, n }) => [String(end), Number(n)]));
}
