import type { Pool } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { z } from 'zod';
import { type Case, type Figure, percentile, type Sample } from '../figure.ts';
import { runBare } from '../process.ts';
import { numbers, status, type Testbed } from '../testbed.ts';

/** What the outbox row costs a write: `POST /customers` with it, and on the same api without that one call. */

const CLIENTS = [1, 16, 64];
const FORMS = [
  { form: 'without outbox row', main: 'bench/bare/api-without-outbox.ts', rows: 0 },
  { form: 'with outbox row', main: 'apps/api/src/main.ts', rows: 1 },
] as const;

const caseOf = (clients: number, form: string): string => `${clients} client${clients === 1 ? '' : 's'}, ${form}`;
const result = z.object({ posted: z.int(), accepted: z.int(), times: z.array(z.number()) });

async function posting(bed: Testbed, clients: number, { main, rows }: (typeof FORMS)[number]): Promise<Sample> {
  await bed.clear();
  const api = await bed.api({}, main);
  const { apiSeconds: seconds } = bed.sizes;
  const before = await written(bed.shop);
  const settings = { url: api.url, clients, warmUpSeconds: seconds / 4, seconds, mark: 'closed' };
  const { posted, accepted, times } = await runBare('closed-loop.ts', settings, result);
  const after = await written(bed.shop);
  const peak = api.peakMegabytes();
  await api.stop();
  const { customers = 0 } = await numbers(bed.shop, 'SELECT COUNT(*) AS customers FROM customers');
  const { messages = 0 } = await numbers(bed.shop, 'SELECT COUNT(*) AS messages FROM outbox');
  return {
    metrics: {
      'requests/s': times.length / seconds,
      'p50 ms': percentile(times, 0.5),
      'p99 ms': percentile(times, 0.99),
      'redo B/request': (after.redo - before.redo) / posted,
      ...(after.binlog === undefined ? {} : { 'binlog B/request': (after.binlog - (before.binlog ?? 0)) / posted }),
      'peak MB': peak,
    },
    // Refused ones count as lost: all of them should have been accepted, or the rate is of something else.
    lost: posted - accepted + Math.abs(customers - accepted) + Math.abs(messages - rows * customers),
    duplicates: 0,
  };
}

/** Bytes that the server has written to its logs so far. What it writes in the background is among them. */
async function written(pool: Pool): Promise<{ readonly redo: number; readonly binlog: number | undefined }> {
  // MariaDB's name, and MySQL's.
  const redo =
    (await status(pool, 'Innodb_lsn_current')) ?? (await status(pool, 'Innodb_redo_log_current_lsn')) ?? Number.NaN;
  const { on = 0 } = await numbers(pool, 'SELECT @@log_bin AS `on`');
  if (on === 0) return { redo, binlog: undefined };
  const [files] = await pool.query<RowDataPacket[]>('SHOW BINARY LOGS');
  return { redo, binlog: files.reduce((sum, file) => sum + Number(file['File_size']), 0) };
}

const cases: Case[] = CLIENTS.flatMap((clients) =>
  FORMS.map((form) => ({ name: caseOf(clients, form.form), run: (bed: Testbed) => posting(bed, clients, form) })),
);

export const api: Figure = {
  name: 'api',
  cases,
  comparisons: CLIENTS.map((clients) => ({
    of: caseOf(clients, 'with outbox row'),
    to: caseOf(clients, 'without outbox row'),
    metric: 'requests/s',
    atLeast: 0.85,
  })),
  bounds: [],
};
