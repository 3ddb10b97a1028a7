import { listDeadLetters, PROCESSED_MESSAGES, requestReplay } from '@oncebox/inbox';
import type { Message } from '@oncebox/message';
import { createPool, deleteExpired, fromConnection, type Pool, transaction } from '@oncebox/mysql';
import { createRelay, outbox } from '@oncebox/outbox';
import { type Consumer, connectBroker, createPublisher, startConsumer } from '@oncebox/rabbitmq';
import { createConnection, createPool as createRawPool, type RowDataPacket } from 'mysql2/promise';
import { expect, inject } from 'vitest';
import { CONSUMERS, Crossed, inboxOf } from './crossing-consumers.ts';
import { createSchemas } from './schemas.ts';
import { createVhost } from './vhost.ts';

/**
 * A crossing takes messages from every kind of writer through a real relay and broker to the
 * effects of two consumers.
 */

/**
 * These do harm where a value is taken for SQL, for text of another charset, or for padded text.
 */
const KEYS = [
  "o'brien",
  'o\\brien',
  "o\\'brien",
  'o"brien',
  '`o`brien``',
  "x' OR SLEEP(3)) -- ",
  "\\' OR SLEEP(3)) -- ",
  '%_? :n ; /* */ #',
  'trailing',
  'trailing ',
  ' leading',
  'nul\u0000byte',
  'line\r\nfeed\u001a',
  'straße',
  'STRASSE',
  '客户 🚚',
  '🚚'.repeat(255),
];
type Sent = Message<string, { key: string; n: number; text: string }>;

const EFFECTS = `CREATE TABLE effects (
  seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  consumer VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  message_id VARBINARY(255) NOT NULL,
  ordering_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  body MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB`;

const PATIENCE = { timeout: 20_000, interval: 50 };

/** The statements of the administrator, on a session that the settings under test do not reach. */
export type Administrator = (sql: string, values?: readonly unknown[]) => Promise<RowDataPacket[]>;

export interface Writer {
  readonly name: string;
  /** Writes one message for each key. */
  write(): Promise<void>;
}

export interface Crossing {
  /** Writes by `transaction()` on our pool. */
  readonly ours: Writer;
  /** Writes by `transaction()` on a pool of mysql2's. */
  readonly rawPool: Writer;
  /** Writes by `fromConnection()` on a connection of mysql2's. */
  readonly rawConnection: Writer;
  /** @returns what stops it. */
  startRelay(): () => Promise<void>;
  startConsumers(): void;
  /**
   * A message is lost to a consumer whose queue is bound after another's: start no relay before.
   */
  untilConsuming(): Promise<void>;
  /** Waits until the broker has refused what was written, as no queue is bound. */
  untilRefused(): Promise<void>;
  /** Compares the outbox with what was written, byte for byte. */
  expectStored(): Promise<void>;
  /**
   * Replays the dead letters, waits for all effects, and compares them: byte for byte and in order.
   */
  expectEffects(): Promise<void>;
  /** Deletes by age what is done. */
  expectForgotten(): Promise<void>;
  /** What relay and consumers have logged. */
  readonly said: readonly string[];
  close(): Promise<void>;
}

export async function createCrossing(databaseUrl: string, administrator: Administrator): Promise<Crossing> {
  const said: string[] = [];
  const note = (fields: object, message: string): void => {
    said.push(`${message} ${String(Reflect.get(fields, 'err') ?? Reflect.get(fields, 'reason') ?? '')}`);
  };
  const logger = { info: () => undefined, warn: note, error: note };
  const closing: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const each of closing.splice(0).reverse()) await each();
  };

  const schemas = await createSchemas({ databaseUrl });
  const { shop, fulfilment } = schemas;
  await administrator(EFFECTS.replace('effects', `${fulfilment.name}.effects`));
  await administrator(`GRANT INSERT ON ${fulfilment.name}.effects TO ?@'%'`, [new URL(fulfilment.url).username]);
  const vhost = await createVhost(inject('servers'));
  closing.push(() => vhost.drop());
  const worker = createPool(fulfilment.url, { connections: 4 });
  closing.push(() => worker.end());

  const written: Sent[] = [];
  const consumers: Consumer[] = [];
  let dies = true;
  const messagesOf = (writer: string): Sent[] => {
    const text = `'"\\\`\u0000\u001a 🚚 é ${writer} `;
    return KEYS.map((key) => {
      const n = written.filter(({ payload }) => payload.key === key).length + 1;
      return Crossed.message({ key, n, text }, { correlationId: `c'\\ ${writer}` });
    });
  };
  const writerOn = (name: string, pool: Pool): Writer => {
    closing.push(() => pool.end());
    return {
      name,
      async write() {
        for (const message of messagesOf(name)) {
          await transaction(pool, (tx) => outbox.add(tx, message));
          written.push(message);
        }
      },
    };
  };

  const startRelay = () => {
    const publisher = createPublisher({ urls: [vhost.amqpUrl], name: 'relay', logger });
    const databaseUrls = schemas.relayUrls.split(',').slice(0, 1);
    const backoff = { firstMs: 50, mostMs: 200 };
    const relay = createRelay({ databaseUrls, publisher, logger, backoff });
    relay.start();
    let stopped: Promise<void> | undefined;
    const stop = (): Promise<void> => {
      stopped ??= relay.stop().finally(() => publisher.close());
      return stopped;
    };
    closing.push(stop);
    return stop;
  };

  return {
    said,
    close,
    ours: writerOn('our pool', createPool(shop.url, { connections: 2 })),
    rawPool: writerOn('a pool of mysql2', createRawPool({ uri: shop.url, connectionLimit: 2 })),
    rawConnection: {
      name: 'a connection of mysql2',
      async write() {
        const connection = await createConnection({ uri: shop.url });
        try {
          await connection.beginTransaction();
          const tx = await fromConnection(connection);
          const messages = messagesOf('a connection of mysql2');
          for (const message of messages) await outbox.add(tx, message);
          await connection.commit();
          written.push(...messages);
        } finally {
          connection.destroy();
        }
      },
    },
    startRelay,
    startConsumers() {
      const broker = connectBroker({ urls: [vhost.amqpUrl], name: 'worker', logger });
      closing.push(() => broker.close());
      for (const name of CONSUMERS) {
        const consumer = startConsumer({ broker, inbox: inboxOf(worker, name, () => dies), logger, replayPollMs: 50 });
        consumers.push(consumer);
        closing.push(() => consumer.stop());
      }
    },
    async untilConsuming() {
      const consuming = () => consumers.map((consumer) => consumer.consuming);
      await expect.poll(consuming, { ...PATIENCE, message: 'consuming' }).toEqual(CONSUMERS.map(() => true));
    },
    async untilRefused() {
      const waiting = `SELECT COUNT(*) AS waiting, SUM(attempts) > 0 AS tried FROM ${shop.name}.outbox WHERE held = 1`;
      await expect
        .poll(async () => (await administrator(waiting)).map((row) => [Number(row['waiting']), Number(row['tried'])]), {
          ...PATIENCE,
          message: 'messages that wait after a refusal',
        })
        .toEqual([[written.length, 1]]);
    },
    async expectStored() {
      const rows = await administrator(
        `SELECT id, HEX(aggregateid) AS ordering_key, HEX(payload) AS body, HEX(headers) AS headers,
                ABS(TIMESTAMPDIFF(MINUTE, created_at, UTC_TIMESTAMP(6))) < 10 AS is_new FROM ${shop.name}.outbox ORDER BY seq`,
      );
      expect(
        rows.map(({ id, ordering_key, body, headers, is_new }) => [id, ordering_key, body, headers, is_new]),
      ).toEqual(
        written.map(({ id, payload, lineage }) => [
          id,
          hex(payload.key),
          hex(JSON.stringify(payload)),
          hex(JSON.stringify(lineage)),
          1,
        ]),
      );
    },
    async expectEffects() {
      const letters = async () =>
        (await listDeadLetters(worker, { states: ['dead'] }, { after: '0', limit: 10 })).map(({ id }) => id);
      await expect.poll(letters, { ...PATIENCE, message: 'dead letters' }).toHaveLength(CONSUMERS.length);
      dies = false;
      await requestReplay(worker, await letters());
      const count = async (): Promise<number> => {
        const [row] = await administrator(`SELECT COUNT(*) AS n FROM ${fulfilment.name}.effects`);
        return Number(row?.['n']);
      };
      await expect.poll(count, { ...PATIENCE, message: 'effects' }).toBe(written.length * CONSUMERS.length);

      const effects = await administrator(
        `SELECT consumer, message_id, HEX(ordering_key) AS ordering_key, HEX(body) AS body FROM ${fulfilment.name}.effects ORDER BY seq`,
      );
      for (const name of CONSUMERS) {
        const ofConsumer = effects
          .filter(({ consumer }) => consumer === name)
          .map(({ message_id, ordering_key, body }) => [String(message_id), ordering_key, body]);
        const expected = written.map(({ id, payload }) => [id, hex(payload.key), hex(JSON.stringify(payload))]);
        expect(ofConsumer.toSorted(), name).toEqual(expected.toSorted());
        if (name === 'plain') continue;
        const byKey = (rows: readonly string[][]) => Object.fromEntries(Map.groupBy(rows, ([, key = '']) => key));
        expect(byKey(ofConsumer), 'the order of each key').toEqual(byKey(expected));
      }
      const left = async () => [
        await administrator(
          `SELECT id, state, last_error FROM ${shop.name}.outbox WHERE state <> 'published' OR held <> 0`,
        ),
        await administrator(`SELECT seq FROM ${shop.name}.outbox_waiting`),
        await administrator(`SELECT seq FROM ${fulfilment.name}.held_messages`),
        await administrator(`SELECT attempts FROM ${fulfilment.name}.held_keys`),
        await administrator(`SELECT id FROM ${fulfilment.name}.dead_letters WHERE state NOT IN ('replay', 'replayed')`),
      ];
      await expect.poll(left, { ...PATIENCE, message: 'what is left' }).toEqual([[], [], [], [], []]);
      const [processed] = await administrator(
        `SELECT COUNT(*) AS n, MIN(ABS(TIMESTAMPDIFF(MINUTE, processed_at, UTC_TIMESTAMP(6))) < 10) AS are_new
           FROM ${fulfilment.name}.processed_messages`,
      );
      expect([Number(processed?.['n']), Number(processed?.['are_new'])]).toEqual([effects.length, 1]);
    },
    async expectForgotten() {
      await administrator(`UPDATE ${shop.name}.outbox SET created_at = '2020-01-01', published_at = '2020-01-01'`);
      await administrator(`UPDATE ${fulfilment.name}.processed_messages SET processed_at = '2020-01-01'`);
      expect(await deleteExpired(worker, PROCESSED_MESSAGES, 1, new AbortController().signal)).toBe(
        written.length * CONSUMERS.length,
      );
      startRelay(); // it deletes what is old when it starts
      const rest = () => administrator(`SELECT id FROM ${shop.name}.outbox`);
      await expect.poll(rest, { ...PATIENCE, message: 'outbox rows after their retention' }).toEqual([]);
    },
  };
}

const hex = (text: string): string => Buffer.from(text, 'utf8').toString('hex').toUpperCase();
