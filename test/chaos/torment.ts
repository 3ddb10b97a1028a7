import type { Program } from '../support/program.ts';
import type { Fleet } from './fleet.ts';
import { pause } from './pause.ts';

export interface Torment {
  readonly fleet: Fleet;
  readonly random: () => number;
  readonly signal: AbortSignal;
  readonly onFault: (fault: string) => void;
}

/** Signals to processes at random until `signal`; then everything that was stopped goes on. */
export async function torment({ fleet, random, signal, onFault }: Torment): Promise<void> {
  while (await pause(300 + random() * 3_000, signal)) {
    // All that chance decides, before what depends on the moment: a seed makes the same choices each time.
    const [dice, which, length] = [random(), random(), random()];
    // Those that a failpoint has stopped, too.
    if (dice < 0.05) for (const each of fleet.members()) each.kill('SIGCONT');
    const programs = fleet.members().filter(hasStarted);
    const program = programs[Math.floor(which * programs.length)];
    // With few of them up, a slow machine would see nothing but starts.
    if (program === undefined || programs.length <= fleet.size / 2) continue;
    const name = dice < 0.55 ? 'SIGKILL' : dice < 0.8 ? 'SIGTERM' : 'SIGSTOP';
    program.kill(name);
    onFault(name);
    // Mostly short, and now and then longer than a server waits for a client.
    if (name === 'SIGSTOP') void pause(300 + length ** 4 * 45_000, signal).then(() => program.kill('SIGCONT'));
  }
  for (const program of fleet.members()) program.kill('SIGCONT');
}

const hasStarted = ({ lines }: Program): boolean =>
  lines.some(({ msg }) => /^(Listening on port|connected to broker)/.test(msg));
