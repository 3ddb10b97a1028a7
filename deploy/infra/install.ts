import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { OnProgress } from './process.ts';

/** Whether `install` has a chance: Debian or its like, as root. */
export const canInstall = (): boolean => process.getuid?.() === 0 && existsSync('/usr/bin/apt-get');

/** @throws Error with the end of the output. */
export async function install(packages: readonly string[], onProgress: OnProgress): Promise<void> {
  const script = join(import.meta.dirname, 'install-debian.sh');
  const child = spawn('/bin/bash', [script, ...packages], { stdio: ['ignore', 'pipe', 'pipe'] });
  const output: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      output.push(line);
      if (/^(Fetched|Setting up|Err:|E:) ?/.test(line)) onProgress(`  ${line}`);
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  if (code === 0) return;
  throw new Error(
    `Debian's packages could not be installed (exit code ${code}); run "apt-get install ${packages.join(' ')}" to see why. ` +
      `The end of its output:\n${output.slice(-15).join('\n')}`,
  );
}
