import { afterEach } from 'vitest';
import { launch, type Program, tail } from './program.ts';

export type { Line, Program } from './program.ts';

/** Of one test, ended ones too. */
const programs: Program[] = [];

afterEach(async ({ task }) => {
  const ended = programs.splice(0);
  // Ends a stopped process, too; of one that has ended already, it does nothing.
  for (const program of ended) program.kill('SIGKILL');
  await Promise.all(ended.map(({ exited }) => exited));
  if (task.result?.state !== 'fail') return;
  for (const { main, lines } of ended) console.error(`${main}, its last lines:\n${tail(lines)}`);
});

/** As `launch`; what still runs when the test ends is killed then, and a test that fails shows its last lines. */
export function start(...given: Parameters<typeof launch>): Program {
  const program = launch(...given);
  programs.push(program);
  return program;
}
