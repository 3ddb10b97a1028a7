import { setTimeout as sleep } from 'node:timers/promises';
import { type Program, tail } from '../support/program.ts';
import type { Api, Trio } from '../support/trio.ts';

export type Role = keyof Trio;
export const ROLES = ['api', 'relay', 'worker'] as const satisfies readonly Role[];

/** How one that was sent away, or ended itself at a failpoint, goes; one that hears SIGTERM while Node loads it ends by that. All else is a finding. */
const EXPECTED: readonly (number | NodeJS.Signals)[] = [0, 'SIGKILL', 'SIGTERM'];

const PATIENCE_MS = 180_000;

/** Processes that are started again whenever they end, as an orchestrator does. */
export interface Fleet {
  /** Processes that there are when none is away. */
  readonly size: number;
  /** Those that run now, stopped ones too. */
  members(role?: Role): readonly Program[];
  /** Of the apis that listen. */
  urls(): readonly string[];
  /** Ends that nobody asked for, with the last lines. */
  readonly surprises: readonly string[];
  /** What servers that are away, or a busy machine, explain, and a fault of ours might too. */
  readonly excused: readonly string[];
  /** How often one was started, the first time too. */
  readonly starts: number;
  /** Waits until all are ready. */
  ready(): Promise<void>;
  /** SIGTERM to all, and none comes back. */
  stop(): Promise<void>;
}

export interface FleetSettings {
  readonly trio: Trio;
  readonly sizes: Readonly<Record<Role, number>>;
  /** Of the next process of a role, failpoints for instance. */
  readonly environment: (role: Role) => Readonly<Record<string, string>>;
}

export function startFleet({ trio, sizes, environment }: FleetSettings): Fleet {
  const running = new Map<Program, Role>();
  const apis = new Map<Program, Api>();
  const surprises: string[] = [];
  const excused: string[] = [];
  const places: Promise<void>[] = [];
  let starts = 0;
  let isStopping = false;

  /** One place in the fleet: its process, the one after that, and so on. */
  async function keep(role: Role): Promise<void> {
    while (!isStopping) {
      starts += 1;
      const program = await begin(role).catch((error: unknown) => {
        // A failpoint may end an api before it listens.
        if (/ended with SIGKILL/.test(String(error))) return;
        // A very busy machine, or a start that hangs: from here they look alike, so a person has to look.
        (/did not within/.test(String(error)) ? excused : surprises).push(String(error));
      });
      if (program === undefined) continue;
      running.set(program, role);
      if (isStopping) program.kill('SIGTERM');
      const end = await program.exited;
      running.delete(program);
      apis.delete(program);
      // One that is to stop while a server is away, or the holder of a lock is frozen, cannot finish what it has in hand.
      const hadNoTime = program.lines.some(({ msg }) => msg.startsWith('Not stopped within'));
      if (EXPECTED.includes(end)) continue;
      (hadNoTime ? excused : surprises).push(`${role} ended with ${end}:\n${tail(program.lines)}`);
    }
  }

  async function begin(role: Role): Promise<Program> {
    if (role !== 'api') return trio[role](environment(role));
    const api = await trio.api(environment(role));
    apis.set(api, api);
    return api;
  }

  for (const role of ROLES) for (let n = 0; n < sizes[role]; n += 1) places.push(keep(role));

  const members = (role?: Role): readonly Program[] =>
    Array.from(running)
      .filter(([, each]) => role === undefined || each === role)
      .map(([program]) => program);

  const size = ROLES.reduce((sum, role) => sum + sizes[role], 0);
  return {
    size,
    members,
    urls: () => [...apis.values()].map(({ url }) => url),
    surprises,
    excused,
    get starts() {
      return starts;
    },
    async ready() {
      const deadline = Date.now() + PATIENCE_MS;
      for (;;) {
        const probes = await Promise.all(members().map((program) => program.probe('/readyz').catch(() => undefined)));
        if (probes.length === size && probes.every((status) => status === 200)) return;
        await sleep(50);
        if (Date.now() > deadline)
          throw new Error(`Not all are ready after ${PATIENCE_MS / 1_000} s: ${probes.join(' ')}`);
      }
    },
    async stop() {
      isStopping = true;
      for (const program of members()) {
        program.kill('SIGCONT');
        program.kill('SIGTERM');
      }
      await Promise.all(places);
    },
  };
}
