import { listDeadLetters, scanHandled } from '@oncebox/inbox';
import { knownToOutbox, outboxForgottenBefore } from '@oncebox/outbox';
import { isoOf } from './moment.ts';
import type { Source, Sources } from './sources.ts';

/** A message that a consumer has, and that no outbox has written. */
export interface Unwritten {
  /** `<schema>/<consumer>`. */
  readonly consumer: string;
  readonly id: string;
  readonly type: string | null;
  /** When it was written at the latest, ISO 8601 with microseconds. */
  readonly writtenAt: string;
}

interface Candidate extends Unwritten {
  /**
   * No row of it can be gone by retention if all of these lie after what the outboxes have
   * forgotten.
   */
  readonly times: readonly string[];
}

const LETTERS = 1_000;
/**
 * By how much the clock of a writer's process may be ahead of the database's, by which retention
 * knows what is old.
 */
const SKEW_MS = 60_000;

/**
 * Finds what consumers have handled, or given up and may handle yet, and no outbox has: an outbox
 * came back from a backup that is older, or the sender has none of these outboxes.
 *
 * The time of a handled message is that of its UUIDv7, by the clock of its writer's process; where
 * that clock is ahead, the time of its handling is earlier and counts. Other ids tell no time and
 * are passed over, since retention may have deleted their rows.
 */
export async function* findUnwritten(
  { outboxes, services }: Sources,
  since: string | undefined,
): AsyncGenerator<readonly Unwritten[]> {
  const from = later(await forgottenBefore(outboxes), since);
  for (const source of services) {
    for await (const candidates of candidatesIn(source, from)) {
      const unknown = await unknownOf(outboxes, candidates);
      if (unknown.length === 0) continue;
      // After the look at the outboxes: what retention took meanwhile is older than this.
      const limit = later(await forgottenBefore(outboxes), since);
      yield unknown.filter(({ times }) => times.every((time) => limit === undefined || time >= limit));
    }
  }
}

/** Asks the next outbox only for what the ones before do not have. */
async function unknownOf(outboxes: readonly Source[], candidates: readonly Candidate[]): Promise<readonly Candidate[]> {
  let unknown = candidates;
  for (const { pool } of outboxes) {
    const known = await knownToOutbox(pool, [...new Set(unknown.map(({ id }) => id))]);
    unknown = unknown.filter(({ id }) => !known.has(id));
  }
  return unknown;
}

async function* candidatesIn(source: Source, from: string | undefined): AsyncGenerator<readonly Candidate[]> {
  const { schema, pool } = source;
  for await (const page of scanHandled(pool, firstIdAt(from))) {
    yield page.flatMap(({ consumer, id, handledAt }) => {
      const madeAt = timeOf(id);
      if (madeAt === undefined) return [];
      return [{ consumer: `${schema}/${consumer}`, id, type: null, writtenAt: madeAt, times: [madeAt, handledAt] }];
    });
  }
  for (let after = '0'; ; ) {
    const letters = await listDeadLetters(pool, { states: ['dead', 'replay'] }, { after, limit: LETTERS });
    const last = letters.at(-1);
    if (last === undefined) return;
    yield letters.flatMap(({ consumer, messageId, type, occurredAt }) => {
      // By the database's clock, where the message says so.
      if (messageId === null || occurredAt === null) return [];
      return [{ consumer: `${schema}/${consumer}`, id: messageId, type, writtenAt: occurredAt, times: [occurredAt] }];
    });
    after = last.id;
  }
}

/** Nothing that was written from then on is gone by retention. */
async function forgottenBefore(outboxes: readonly Source[]): Promise<string | undefined> {
  let latest: string | undefined;
  for (const { pool } of outboxes) latest = later(latest, await outboxForgottenBefore(pool));
  return latest && isoOf(new Date(Date.parse(latest) + SKEW_MS));
}

const later = (a: string | undefined, b: string | undefined): string | undefined => ((a ?? '') < (b ?? '') ? b : a);

const V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** When a UUIDv7 was made; undefined for another id. */
function timeOf(id: string): string | undefined {
  if (!V7.test(id)) return undefined;
  return isoOf(new Date(Number.parseInt(id.replace('-', '').slice(0, 12), 16)));
}

/** Where the UUIDv7 ids of that time begin. */
function firstIdAt(time: string | undefined): string {
  const milliseconds = time === undefined ? 0 : Date.parse(time);
  if (!(milliseconds > 0)) return '';
  const digits = milliseconds.toString(16).padStart(12, '0');
  return `${digits.slice(0, 8)}-${digits.slice(8)}`;
}
