import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Reports progress to whoever waits in front of a terminal. */
export type OnProgress = (line: string) => void;

/** Every server we start, and whatever it starts, carries this in its environment; the value is unique to the server. */
const MARK = 'ONCEBOX_INFRA';

export interface ServerProcess {
  /** The instance's directory; holds `<name>.pid` and `<name>.log`. */
  readonly dir: string;
  readonly name: string;
}

/** Starts a server that outlives this process, its output in its log file. */
export async function launch(server: ServerProcess, command: readonly string[], env: NodeJS.ProcessEnv) {
  const log = openSync(logFile(server), 'a');
  // The shell writes its own pid and becomes the server, so there is no moment at which the server runs and its pid is
  // not on disk: a run that is killed right here leaves nothing that the next one cannot find.
  const child = spawn('/bin/sh', ['-c', 'echo $$ >"$0" && exec "$@"', pidFile(server), ...command], {
    cwd: server.dir,
    env: { ...env, [MARK]: identity(server) },
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  child.unref();
  await until(() => runningPid(server) !== undefined || child.exitCode !== null, 5_000);
}

/**
 * The pid of a server that `launch` started in this directory and that still runs.
 *
 * A pid file alone proves nothing: its process may be gone and the number someone else's by now. The mark in the
 * process's environment tells.
 */
export function runningPid(server: ServerProcess): number | undefined {
  try {
    const pid = Number(readFileSync(pidFile(server), 'utf8'));
    return isMarked(pid, server) ? pid : undefined;
  } catch {
    return undefined; // no pid file
  }
}

/** Asks the server to stop, waits until it has, and kills what is left of it. */
export async function stop(server: ServerProcess, patienceMs = 30_000): Promise<void> {
  const pid = runningPid(server);
  if (pid !== undefined) signal(pid, 'SIGTERM');
  await until(() => runningPid(server) === undefined, patienceMs);
  await killRemains(server);
}

/** A server that does not stop, one too young to have a pid file, helpers of one that was killed. */
export async function killRemains(server: ServerProcess): Promise<void> {
  const remains = () =>
    readdirSync('/proc')
      .map(Number)
      .filter((pid) => pid > 0 && isMarked(pid, server));
  for (const pid of remains()) signal(pid, 'SIGKILL');
  await until(() => remains().length === 0, 5_000);
}

function isMarked(pid: number, server: ServerProcess): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8')
      .split('\0')
      .includes(`${MARK}=${identity(server)}`);
  } catch {
    return false; // no such process, or not ours to look at
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it ended by itself in the meantime
  }
}

/** Waits until a launched server answers. */
export async function untilReady(server: ServerProcess, answers: () => Promise<boolean>, patienceMs: number) {
  let ready = false;
  const settled = await until(async () => {
    ready = await answers();
    return ready || runningPid(server) === undefined;
  }, patienceMs);
  if (ready) return;
  const what = settled ? 'ended while it started' : `does not answer after ${patienceMs / 1_000} s`;
  throw new Error(`${server.name} ${what}. The end of ${logFile(server)}:\n${tail(logFile(server))}`);
}

/** @returns whether the condition came true before the deadline. */
export async function until(condition: () => boolean | Promise<boolean>, patienceMs: number): Promise<boolean> {
  const deadline = Date.now() + patienceMs;
  while (!(await condition())) {
    if (Date.now() > deadline) return false;
    await sleep(100);
  }
  return true;
}

export function portIsFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
      .once('error', () => resolve(false))
      .listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

export async function requireFreePort(who: string, port: number): Promise<void> {
  // One that was just killed loses its memory, by which we know it, before its sockets.
  if (await until(() => portIsFree(port), 2_000)) return;
  throw new Error(
    `${who} cannot start: 127.0.0.1:${port} is taken by a process that does not belong to this directory, perhaps ` +
      `another clone's servers. Stop them there with "make down", or see who it is: ss -ltnp 'sport = :${port}'`,
  );
}

const identity = ({ dir, name }: ServerProcess) => join(dir, name);
const pidFile = ({ dir, name }: ServerProcess) => join(dir, `${name}.pid`);
const logFile = ({ dir, name }: ServerProcess) => join(dir, `${name}.log`);

function tail(path: string): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-15).join('\n');
  } catch {
    return '(no log)';
  }
}
