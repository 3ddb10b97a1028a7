import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { compileCache } from './program.ts';

const ROOT = join(import.meta.dirname, '../..');

export interface Ended {
  /** null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly ended: Promise<Ended>;
  /** Called with each line of its output, as it comes. */
  readonly onLine: (listener: (line: string) => void) => void;
  readonly kill: () => void;
}

/**
 * Runs the command as its users do: a process, with this environment and no other, and no .env.
 *
 * @param root folder of another release, to run its command instead
 */
export function startOncebox(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd: string,
  root = ROOT,
): Running {
  const { promise: ended, resolve } = Promise.withResolvers<Ended>();
  const child = execFile(
    process.execPath,
    ['--conditions=oncebox-source', join(root, 'apps/oncebox/src/main.ts'), ...args],
    { cwd, env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: compileCache(root), ...env } },
    (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
  );
  return {
    ended,
    onLine: (listener) => {
      if (child.stdout !== null) createInterface(child.stdout).on('line', listener);
    },
    kill: () => child.kill('SIGKILL'),
  };
}
