import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { canInstall, install } from '../infra/install.ts';

/**
 * Runs Prometheus's `promtool` in this folder, and installs it first where that is possible.
 *
 * @returns what it printed.
 * @throws Error with what it printed when it finds something wrong; and when there is no promtool, with what to install.
 */
export async function promtool(...args: readonly string[]): Promise<string> {
  if (!(await isThere())) {
    if (!canInstall()) {
      throw new Error(
        'Checking the alerts takes promtool: install Prometheus ("apt-get install prometheus", "brew install prometheus").',
      );
    }
    await install(['prometheus'], console.log);
  }
  const running = promisify(execFile)('promtool', [...args], { cwd: import.meta.dirname });
  const { stdout, stderr } = await running.catch((error) => {
    throw new Error(`promtool ${args.join(' ')}:\n${error.stdout}${error.stderr}`);
  });
  return stdout + stderr;
}

const isThere = (): Promise<boolean> =>
  promisify(execFile)('promtool', ['--version']).then(
    () => true,
    () => false,
  );
