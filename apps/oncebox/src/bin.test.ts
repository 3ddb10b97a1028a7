import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '../../..');

/** As an operator types it: npx looks the command up among what `npm ci` has linked. */
async function npx(...args: readonly string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: number | null; stdout: string; stderr: string }>();
  const child = execFile('npx', ['--no-install', ...args], { cwd: ROOT }, (_error, stdout, stderr) =>
    resolve({ code: child.exitCode, stdout, stderr }),
  );
  return await promise;
}

it('runs as "npx oncebox" in a clone that is installed, where nothing is compiled', async () => {
  expect(await npx('oncebox', '--help')).toEqual({
    code: 0,
    stdout: expect.stringContaining('Usage: oncebox <command>'),
    stderr: '',
  });
});

it('ends with the exit code of the command', async () => {
  expect(await npx('oncebox', 'no-such-command')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('there is no command "no-such-command"'),
  });
});
