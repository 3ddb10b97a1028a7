import { randomUUID } from 'node:crypto';
import type { System } from './system.ts';

/** Rows as plain SQL writes them, of no contract of ours. */

export interface Step {
  readonly key: string;
  readonly step: number;
  readonly routingKey: string;
}

/** Writes steps, in their order and in one transaction. Their payload says which they are. */
export async function insertSteps({ shop }: System, steps: readonly Step[]): Promise<void> {
  await shop(
    `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, routing_key)
     VALUES ${steps.map(() => "(?, 'walk', ?, 'Step', 1, ?, ?)").join()}`,
    steps.flatMap(({ key, step, routingKey }) => [randomUUID(), key, JSON.stringify({ key, step }), routingKey]),
  );
}

export interface Many {
  readonly type: string;
  readonly routingKey: string;
  readonly rows: number;
  /** Of each payload; default 10. */
  readonly bytes?: number;
}

/** Writes many rows at once, each of a key of its own. */
export async function insertMany({ shop }: System, { type, routingKey, rows, bytes = 10 }: Many): Promise<void> {
  const digits = Array.from({ length: 10 }, (_, digit) => `SELECT ${digit} AS n`).join(' UNION ALL ');
  const places = Array.from(String(rows), (_, place) => `d${place}`);
  const number = places.map((place) => `${place}.n`).join();
  await shop(
    `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload, routing_key)
     SELECT UUID(), 'many', CONCAT(?, ${number}), ?, 1, CONCAT('"', REPEAT('x', ${bytes - 2}), '"'), ?
       FROM ${places.map((place) => `(${digits}) AS ${place}`).join(', ')}
      WHERE CONCAT(${number}) + 0 < ${rows}`,
    [type, type, routingKey],
  );
}
