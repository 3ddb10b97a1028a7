import type { z } from 'zod';

/** What the benchmark has told this process to do. Also ties its life to the benchmark's. */
export function settings<T>(schema: z.ZodType<T>): T {
  process.once('disconnect', () => process.exit());
  return schema.parse(JSON.parse(process.argv[2] ?? ''));
}

export function report(result: object): void {
  process.send?.(result);
}
