import { setTimeout as sleep } from 'node:timers/promises';
import type { Sample } from './figure.ts';
import { KEYS, numberOf, QUEUE, seed } from './messages.ts';
import { numbers, type Testbed } from './testbed.ts';

/** Drained first and not measured: code that runs for the first time is slow, and that is no part of a long drain. */
const WARM_UP = 2_000;
const PATIENCE_MS = 15 * 60_000;

export interface DrainOptions {
  readonly rows: number;
  readonly bytes: number;
  /** 0 deletes rows as they are published, 24 keeps them. */
  readonly retentionHours: 0 | 24;
  readonly relays?: number;
  /** Whether they keep what they publish in the log as well. */
  readonly log?: boolean;
  /** Ordering keys that the messages go round. */
  readonly keys?: number;
  /** Called when all rows are there and none is published, and again when all are published and the relays still run. */
  readonly look?: (when: 'before' | 'after') => Promise<Readonly<Record<string, number>>>;
}

/**
 * How long relay processes take for rows that are all pending when they begin.
 *
 * The relays run and are warm before. The benchmark holds the locks of all partitions while it writes the rows, so that the
 * drain has a beginning: when it lets go. The end is the line with which the last relay says that the last batch is
 * committed. What was published is then read from the queue and compared with what was written.
 */
export async function drain(bed: Testbed, options: DrainOptions): Promise<Sample> {
  const { rows, bytes, retentionHours, relays = 1, log = false, keys = KEYS, look = async () => ({}) } = options;
  await bed.clear();
  let settled = 0;
  let settledAt = 0;
  const onLine = (line: string): void => {
    const ids = settledBy(line);
    if (ids === 0) return;
    settled += ids;
    settledAt = performance.now();
  };
  const [RELAY_DATABASE_URLS = ''] = bed.schemas.relayUrls.split(',');
  const environment = {
    RELAY_DATABASE_URLS,
    RELAY_RETENTION_HOURS: String(retentionHours),
    RELAY_LOG: log ? 'on' : 'off',
  };
  const running = Array.from({ length: relays }, () => bed.relay(environment, onLine));
  await Promise.all(running.map((relay) => relay.ready()));
  const until = async (count: number): Promise<void> => {
    const deadline = Date.now() + PATIENCE_MS;
    while (settled < count) {
      if (Date.now() > deadline) throw new Error(`${settled} of ${count} messages were published in 15 minutes`);
      await sleep(10);
    }
  };
  await seed(bed.shop, 0, WARM_UP, bytes, keys);
  await until(WARM_UP);

  const holder = await bed.shop.getConnection();
  await holder.beginTransaction();
  await holder.query('SELECT partition_id FROM outbox_partition FOR UPDATE');
  await seed(bed.shop, WARM_UP, WARM_UP + rows, bytes, keys);
  const before = await look('before');
  const cpu = () => running.reduce((sum, relay) => sum + relay.cpuSeconds(), 0);
  const cpuBefore = cpu();
  const start = performance.now();
  await holder.rollback();
  holder.release();
  await until(WARM_UP + rows);
  const seconds = (settledAt - start) / 1_000;
  const cpuSeconds = cpu() - cpuBefore;
  const after = await look('after');
  const peak = Math.max(...running.map((relay) => relay.peakMegabytes()));
  await Promise.all(running.map((relay) => relay.stop()));

  const { pending = Number.NaN } = await numbers(
    bed.shop,
    "SELECT COUNT(*) AS pending FROM outbox WHERE state <> 'published'",
  );
  const wire = await readAll(bed, WARM_UP + rows, keys);
  if (wire.misplaced > 0) throw new Error(`${wire.misplaced} messages overtook an earlier one of their key`);
  return {
    metrics: {
      'messages/s': rows / seconds,
      'CPU µs/message': (cpuSeconds / rows) * 1e6,
      'peak MB': peak,
      ...before,
      ...after,
    },
    lost: wire.missing + pending,
    duplicates: wire.duplicates,
  };
}

const PUBLISHED = 'Published messages: [';

/** How many ids a line of the relay names. Ids have 36 characters and a space between them. */
function settledBy(line: string): number {
  const start = line.indexOf(PUBLISHED);
  return start < 0 ? 0 : (line.indexOf(']', start) - start - PUBLISHED.length + 1) / 37;
}

/** Empties the queue and compares it with the messages 0 to `count`. Order is that of first occurrences. */
export async function readAll(
  { channel }: Testbed,
  count: number,
  keys: number,
): Promise<{ missing: number; duplicates: number; misplaced: number }> {
  const seen = new Uint8Array(count);
  const last = new Map<number, number>();
  let [read, unique, misplaced] = [0, 0, 0];
  const { messageCount } = await channel.checkQueue(QUEUE);
  if (messageCount > 0) {
    const all = Promise.withResolvers<void>();
    const { consumerTag } = await channel.consume(
      QUEUE,
      (message) => {
        const n = numberOf(message?.properties.messageId);
        if (seen[n] === 0) {
          seen[n] = 1;
          unique += 1;
          if ((last.get(n % keys) ?? -1) > n) misplaced += 1;
          last.set(n % keys, n);
        }
        read += 1;
        if (read === messageCount) all.resolve();
      },
      { noAck: true },
    );
    await all.promise;
    await channel.cancel(consumerTag);
  }
  return { missing: count - unique, duplicates: messageCount - unique, misplaced };
}
