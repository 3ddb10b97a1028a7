import { setTimeout as sleep } from 'node:timers/promises';
import type { Program } from '../support/program.ts';
import type { Fleet } from './fleet.ts';
import type { RestartableServers } from './servers.ts';

export interface Torment {
  readonly fleet: Fleet;
  readonly servers: Pick<RestartableServers, 'restart'>;
  readonly random: () => number;
  /** Ends it, once a server that is being restarted is back. */
  readonly signal: AbortSignal;
  readonly onFault: (fault: string) => void;
}

/** Signals to processes at random, now and then a server's restart, until `signal`; then everything that was stopped goes on. */
export async function torment(given: Torment): Promise<void> {
  await Promise.all([signals(given), restarts(given)]);
  for (const program of given.fleet.members()) program.kill('SIGCONT');
}

async function signals({ fleet, random, signal, onFault }: Torment): Promise<void> {
  while (await pause(300 + random() * 3_000, signal)) {
    const dice = random();
    // Those that a failpoint has stopped, too.
    if (dice < 0.05) for (const each of fleet.members()) each.kill('SIGCONT');
    const programs = fleet.members().filter(hasStarted);
    const program = programs[Math.floor(random() * programs.length)];
    // With few of them up, a slow machine would see nothing but starts.
    if (program === undefined || programs.length <= fleet.size / 2) continue;
    const name = dice < 0.55 ? 'SIGKILL' : dice < 0.8 ? 'SIGTERM' : 'SIGSTOP';
    program.kill(name);
    onFault(name);
    // Mostly short, and now and then longer than a server waits for a client.
    if (name === 'SIGSTOP') void pause(300 + random() ** 4 * 45_000, signal).then(() => program.kill('SIGCONT'));
  }
}

const hasStarted = ({ lines }: Program): boolean =>
  lines.some(({ msg }) => /^(Listening on port|connected to broker)/.test(msg));

async function restarts({ servers, random, signal, onFault }: Torment): Promise<void> {
  while (await pause(10_000 + random() * 25_000, signal)) {
    const server = random() < 0.5 ? 'database' : 'broker';
    const manner = random() < 0.5 ? 'stopped' : 'killed';
    onFault(`${server} ${manner}`);
    await servers.restart(server, manner);
  }
}

/** @returns false when the signal came first. */
const pause = (ms: number, signal: AbortSignal): Promise<boolean> => sleep(ms, true, { signal }).catch(() => false);
