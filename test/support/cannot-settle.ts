import { pino } from 'pino';
import { afterEach } from 'vitest';
import { admin, type newRelay, Step, schemas, states, steps } from './walks.ts';

export const PATIENCE = { timeout: 60_000, interval: 50 };
export const relayUser = () => new URL(schemas.relayUrls.split(',')[0] ?? '').username;
export const change = (verb: 'GRANT' | 'REVOKE', right: string, table: string) =>
  admin.query(`${verb} ${right} ON ??.?? ${verb === 'GRANT' ? 'TO' : 'FROM'} ?@'%'`, [
    schemas.shop.name,
    table,
    relayUser(),
  ]);

export const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0)) await step();
});

/** Until the test ends. */
export async function revoke(right: string, table: string): Promise<void> {
  undo.push(() => change('GRANT', right, table));
  await change('REVOKE', right, table);
}

/** A trigger on each update of a row, until the test ends. */
export async function trigger(statement: string): Promise<void> {
  undo.push(() => admin.query('DROP TRIGGER IF EXISTS refuses'));
  await admin.query(`CREATE TRIGGER refuses BEFORE UPDATE ON outbox FOR EACH ROW ${statement}`);
}

/** What a relay has logged, and what its logger is. */
export function listen() {
  const lines: string[] = [];
  const logger = pino({}, { write: (line: string) => void lines.push(line) });
  const said = (text: string): number => lines.filter((line) => line.includes(text)).length;
  return { logger, said };
}

export const twenty = () => Array.from({ length: 20 }, (_, n) => Step.message({ walk: `w${n}`, step: 1 }));
export const copies = () =>
  Math.max(0, ...Object.values(Object.groupBy(steps(), (step) => step)).map((all) => all?.length ?? 0));
export const published = async () => (await states()).filter((state) => state.endsWith('published')).length;
export const readiness = (relay: ReturnType<typeof newRelay>): string => {
  try {
    relay.assertDatabases();
    return 'ready';
  } catch (error) {
    return String(Reflect.get(Object(error), 'code'));
  }
};
