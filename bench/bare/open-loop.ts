import { setTimeout as sleep } from 'node:timers/promises';
import { createPool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { z } from 'zod';
import { report, settings } from './parent.ts';
import { type Accepted, post } from './post.ts';

/**
 * Posts customers at a fixed rate, whether or not earlier ones were answered, and watches the table of effects. Both ends of a
 * latency are read off this process's clock: when the answer was here, and when a look at the table, one every few
 * milliseconds, first saw the effect. So it is never less than what it measures, and more by up to the time between two looks.
 */

const { url, databaseUrl, rate, warmUpSeconds, seconds } = settings(
  z.object({
    url: z.string(),
    databaseUrl: z.string(),
    /** Posts a second. */
    rate: z.number(),
    warmUpSeconds: z.number(),
    seconds: z.number(),
  }),
);

const LOOK_MS = 4;
/** An id may stay unused: its transaction was rolled back. */
const FORGET_GAP_MS = 5_000;
const PATIENCE_MS = 60_000;

const pool = createPool(databaseUrl, { connections: 1 });
/** When the effect of a customer was first seen. */
const seen = new Map<string, number>();
let effects = 0;
let watching = true;
const watched = watch();

const total = Math.round(rate * (warmUpSeconds + seconds));
const begin = performance.now();
const answers: Promise<{ readonly due: number; readonly answer: Accepted | undefined }>[] = [];
while (answers.length < total) {
  const due = begin + (answers.length / rate) * 1_000;
  const early = due - performance.now();
  if (early > 0) await sleep(early);
  else answers.push(post(url, `open-${answers.length}`).then((answer) => ({ due, answer })));
}
const measuredFrom = begin + warmUpSeconds * 1_000;
const posts = await Promise.all(answers);
const accepted = posts.flatMap(({ due, answer }) => (answer === undefined ? [] : [{ due, ...answer }]));
const deadline = performance.now() + PATIENCE_MS;
while (seen.size < accepted.length && performance.now() < deadline) await sleep(LOOK_MS);
watching = false;
await watched;
await pool.end();

const measured = accepted.filter(({ due }) => due >= measuredFrom);
report({
  posted: total,
  accepted: accepted.length,
  missing: accepted.filter(({ id }) => !seen.has(id)).length,
  doubled: effects - seen.size,
  /** From when it was to be sent, even if this process was late. */
  answered: measured.map(({ due, at }) => at - due),
  /** From the answer. An effect may be there before it. */
  tookEffect: measured.flatMap(({ id, at }) => {
    const effect = seen.get(id);
    return effect === undefined ? [] : [Math.max(0, effect - at)];
  }),
});

/** Ids are given before the commit, so a lower one may appear after a higher one: gaps are asked for again. */
async function watch(): Promise<void> {
  let highest = 0;
  const gaps = new Map<number, number>();
  while (watching) {
    const [rows] = await pool.query<RowDataPacket[]>(
      'SELECT id, customer_id AS customer FROM emails WHERE id > ? OR id IN (?) ORDER BY id',
      [highest, [0, ...gaps.keys()]],
    );
    const now = performance.now();
    effects += rows.length;
    for (const { id, customer } of rows) {
      if (!seen.has(customer)) seen.set(customer, now);
      gaps.delete(id);
      for (let between = highest + 1; between < id; between += 1) gaps.set(between, now);
      highest = Math.max(highest, id);
    }
    for (const [id, since] of gaps) if (now - since > FORGET_GAP_MS) gaps.delete(id);
    await sleep(LOOK_MS);
  }
}
