import { execFileSync, spawn } from 'node:child_process';
import { removeNative } from '../../deploy/infra/native.ts';

/**
 * Vitest leaves without a teardown on Ctrl-C, and nobody has one on SIGKILL. So a second process holds the other end of
 * a pipe; when the run is gone, however it went, the pipe closes and the guard removes what the run has left.
 *
 * @param target `native <directory>` or `docker <label>`
 */
export function guard(...target: readonly ['native' | 'docker', string]): void {
  spawn(process.execPath, [import.meta.filename, ...target], {
    detached: true, // out of the terminal's reach
    stdio: ['pipe', 'ignore', 'ignore'],
  }).unref();
}

async function remove(kind: string | undefined, target: string): Promise<void> {
  if (kind === 'native') return removeNative(target);
  const ids = execFileSync('docker', ['ps', '--all', '--quiet', '--filter', `label=${target}`], { encoding: 'utf8' });
  const containers = ids.split('\n').filter(Boolean);
  if (containers.length > 0) execFileSync('docker', ['rm', '--force', '--volumes', ...containers]);
}

if (import.meta.main) {
  const [kind, target = ''] = process.argv.slice(2);
  process.stdin.resume().once('end', () => void remove(kind, target));
}
