import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';

const ROOT = join(import.meta.dirname, '..');
const CONDITIONS = '--conditions=oncebox-source';
const START_MS = 60_000;
/** As in the images: without it, the compiler that strips types is 30 MB of each process. */
const NODE_COMPILE_CACHE = join(ROOT, 'node_modules/.cache/compile');

/** A process under measurement: one of ours, as it is deployed. */
export interface Launched {
  /** The first match of this in what it says. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
  /** Waits until its readiness probe says yes. */
  ready(): Promise<void>;
  /** The most memory it has had so far, in MB of 10^6 bytes. */
  peakMegabytes(): number;
  /** Processor time it has used so far, of all its threads. */
  cpuSeconds(): number;
  /** SIGTERM, and waits for its end. @throws when it does not end well */
  stop(): Promise<void>;
}

export interface LaunchOptions {
  /** Where it leaves a CPU profile when it ends; without it none is taken. */
  readonly profileInto?: string | undefined;
  readonly onLine?: (line: string) => void;
}

/**
 * Starts a program of ours from its file, told by its environment alone.
 *
 * @param main path in this repository
 */
export function launch(
  main: string,
  environment: Readonly<Record<string, string>>,
  { profileInto, onLine = () => undefined }: LaunchOptions = {},
): Launched {
  const profiling = profileInto === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileInto}`];
  const flags = [CONDITIONS, '--import', '@oncebox/service/tracing', ...profiling];
  const child = spawn(process.execPath, [...flags, join(ROOT, main)], {
    cwd: import.meta.dirname,
    env: { NODE_COMPILE_CACHE, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${main} could not be started`);
  const release = killWithUs(pid);
  let ended = false;
  const exited = once(child, 'exit').finally(() => {
    ended = true;
    release();
  });
  // The beginning is enough: what is waited for are ports.
  const beginning: string[] = [];
  createInterface(child.stdout).on('line', (line) => {
    if (beginning.length < 50) beginning.push(line);
    onLine(line);
  });

  const until = async <T>(what: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> => {
    const deadline = Date.now() + START_MS;
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (ended || Date.now() > deadline) throw new Error(`${main} never ${what}. It said:\n${beginning.join('\n')}`);
      await sleep(10);
    }
  };
  const said = (pattern: RegExp): Promise<RegExpExecArray> =>
    until(`said ${pattern}`, () => beginning.map((line) => pattern.exec(line)).find((match) => match !== null));

  return {
    said,
    async ready() {
      const [, port] = await said(/probes on port (\d+)/i);
      await until('was ready', async () => {
        const response = await fetch(`http://127.0.0.1:${port}/readyz`);
        await response.body?.cancel();
        return response.ok || undefined;
      });
    },
    peakMegabytes: () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 976.5625,
    cpuSeconds() {
      // After the name, which may hold anything: state is the third field, utime and stime the 14th and 15th, in 1/100 s.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
      return (Number(fields[11]) + Number(fields[12])) / 100;
    },
    async stop() {
      child.kill('SIGTERM');
      const [code, signal] = await exited;
      if (code !== 0) throw new Error(`${main} ended with ${code ?? signal}. It said:\n${beginning.join('\n')}`);
    },
  };
}

/** A shell that kills the process when our end of its pipe closes, however we end. @returns what calls it off */
function killWithUs(pid: number): () => void {
  const shell = spawn('/bin/sh', ['-c', 'read -r done || kill -9 "$0"', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  shell.unref();
  return () => void shell.stdin.end('done\n');
}

/** A process of `bench/bare` under way; it ends by itself when we do. */
export interface Bare<Result> {
  readonly result: Promise<Result>;
  stop(): Promise<void>;
}

/** Starts a file of `bench/bare` with its settings. Its result is what it sends us first. */
export function startBare<Result>(file: string, settings: object, schema: z.ZodType<Result>): Bare<Result> {
  const child = fork(join(import.meta.dirname, 'bare', file), [JSON.stringify(settings)], {
    execArgv: [CONDITIONS],
    env: {},
  });
  const exited = once(child, 'exit');
  const result = Promise.race([
    once(child, 'message').then(([message]) => schema.parse(message)),
    exited.then(([code, signal]) => Promise.reject(new Error(`bench/bare/${file} ended with ${code ?? signal}`))),
  ]);
  result.catch(() => undefined); // of one that is only ever stopped
  return {
    result,
    async stop() {
      if (child.connected) child.disconnect();
      await exited;
    },
  };
}

/** Runs it to its result. */
export async function runBare<Result>(file: string, settings: object, schema: z.ZodType<Result>): Promise<Result> {
  const { result, stop } = startBare(file, settings, schema);
  return await result.finally(stop);
}
