import { setTimeout as delay } from 'node:timers/promises';
import { createPool, parseDatabaseUrl } from '@oncebox/mysql';
import { Drain, type DrainSettings, type RelayLogger } from './drain.ts';
import type { PassResult } from './pass.ts';
import type { Publisher } from './publisher.ts';

export interface RelayOptions {
  /** One URL for each schema to drain; its path names the schema, which is the `source` of its messages. */
  readonly databaseUrls: readonly string[];
  readonly publisher: Publisher;
  readonly logger: RelayLogger;
  /** Passes that may run side by side, for each schema. Default 2. */
  readonly lanes?: number;
  /** Most rows of one pass. Default 1,000. */
  readonly batch?: number;
  /** Milliseconds between two looks while there is nothing to do; after some seconds of it up to ten times that. Default 20. */
  readonly pollMs?: number;
  /** Hours for which published rows are kept; 0 deletes them as they are published. Default 24. */
  readonly retentionHours?: number;
  /**
   * Seconds without a statement after which the server, by its own clock, ends a session of this relay and so frees what it holds: how
   * long a frozen host keeps its partitions. A pass has two seconds less, the publisher's wait for a confirm included. Default 30.
   */
  readonly leaseSeconds?: number;
  /** The pauses after a message was refused. Default 1 s, doubling up to 5 minutes. */
  readonly backoff?: { readonly firstMs: number; readonly mostMs: number };
}

export interface Relay {
  start(): void;
  /**
   * Stops claiming, waits for the passes under way, closes the database connections, within eight seconds. A pass that takes longer is
   * given up: its rows stay pending. The publisher is the caller's to close.
   */
  stop(): Promise<void>;
  /** One look and at most one pass in each schema, without timers: for tests. Passes that found nothing are left out. */
  runOnce(): Promise<PassResult[]>;
  /** For a readiness probe. @throws what the database of a schema last failed with, if it has not answered since. */
  assertDatabases(): void;
}

/** Bytes of payload of one pass: what bounds the process's memory when messages are large. */
const PASS_BYTES = 8 * 1024 * 1024;

/** For a look, which takes some milliseconds; one that is not answered in that time is an outage. */
const LOOK_MS = 10_000;
/** For the passes under way when the relay stops. */
const STOP_MS = 5_000;

/**
 * Passes wait for no lock. The cleaner waits for a pass, which is over in a second or so, but not for that of a relay that is frozen: this one
 * must be able to stop meanwhile.
 */
const LOCK_WAIT_SECONDS = 3;

/** A relay over the outboxes of one or more schemas. Any number of them may run against the same schemas. */
export function createRelay({
  databaseUrls,
  publisher,
  logger,
  lanes = 2,
  batch = 1_000,
  pollMs = 20,
  retentionHours = 24,
  leaseSeconds = 30,
  backoff = { firstMs: 1_000, mostMs: 300_000 },
}: RelayOptions): Relay {
  const settings: DrainSettings = {
    lanes,
    pollMs,
    retentionHours,
    backoff,
    deleteRows: retentionHours === 0,
    limits: { rows: batch, bytes: PASS_BYTES },
    timeoutMs: (leaseSeconds - 2) * 1_000,
    // Also how soon a relay with nothing to publish learns that its database takes no writes: looking for work only reads.
    cleanEveryMs: 20_000,
  };
  const schemas = databaseUrls.map((url) => {
    const { schema, host, port } = parseDatabaseUrl(url);
    // The lanes, the prober and the cleaner.
    const session = { wait_timeout: leaseSeconds, innodb_lock_wait_timeout: LOCK_WAIT_SECONDS };
    const pool = createPool(url, { connections: lanes + 2, session, statementTimeoutMs: LOOK_MS });
    return { name: schema, server: `${host}:${port}`, pool };
  });
  const drains = schemas.map((schema) => new Drain(schema, publisher, settings, logger));
  const stopping = new AbortController();
  let running: Promise<unknown> = Promise.resolve();
  return {
    start() {
      running = Promise.all(drains.map((drain) => drain.run(stopping.signal)));
    },
    async stop() {
      stopping.abort();
      await Promise.race([running, delay(STOP_MS, undefined, { ref: false })]);
      await Promise.all(schemas.map(({ pool }) => pool.end()));
    },
    async runOnce() {
      const results = await Promise.all(drains.map((drain) => drain.runOnce()));
      return results.filter((result) => result !== undefined);
    },
    assertDatabases() {
      for (const drain of drains) drain.assertAvailable();
    },
  };
}
