import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

const ROOT = join(import.meta.dirname, '../..');
const PATIENCE_MS = 40_000;
/** Node's own cache of what it makes of a source: stripping types is half of what a start costs. */
export const compileCache = (root = ROOT): string => join(root, 'node_modules/.cache/compile');

/** A line of a program's output. */
export interface Line {
  /** Of pino; `text` for a line of stdout that is no JSON object, `stderr` for all of stderr. */
  readonly level: string;
  readonly msg: string;
  /** pino's other fields. */
  readonly [field: string]: unknown;
}

/** A program of ours that runs as a process of its own. */
export interface Program {
  /** The path of its file. */
  readonly main: string;
  readonly pid: number;
  /** All that it has written so far, in order. */
  readonly lines: readonly Line[];
  /** Waits for a line whose message matches, also one that was written before, and returns the match. @throws when it ends, or 40 s pass, without. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
  /** Its exit code or the signal that ended it, once `lines` is complete. */
  readonly exited: Promise<number | NodeJS.Signals>;
  kill(signal: NodeJS.Signals): void;
  /** SIGCONT until it answers. One could come too early: a failpoint stops the process a moment after it has said so. @throws as `said` does. */
  resume(): Promise<void>;
  /** The status of one look at its ops server; undefined when it does not answer within two seconds. */
  probe(path: '/livez' | '/readyz'): Promise<number | undefined>;
  /** What its ops server answers. @throws when it does not. */
  page(path: '/readyz' | '/metrics'): Promise<string>;
  /** Waits until it is ready. @throws as `said` does. */
  ready(): Promise<void>;
}

const running = new Set<ChildProcess>();

/**
 * Starts a program as it is deployed: told by its environment alone, from a folder without an `.env`. Several of one program may
 * run at once. What still runs when this process ends, however it ends, is killed then.
 *
 * @param main path of the program's file in this repository: `apps/relay/src/main.ts`
 * @param environment with `ONCEBOX_FAILPOINTS`, the program ends or stops itself there: see `failpoints.ts`.
 * @param root folder of another release, to run its program instead
 */
export function launch(main: string, environment: Readonly<Record<string, string>>, root = ROOT): Program {
  const failpoints =
    'ONCEBOX_FAILPOINTS' in environment ? ['--import', join(import.meta.dirname, 'failpoints.ts')] : [];
  const flags = ['--conditions=oncebox-source', '--import', '@oncebox/service/tracing', ...failpoints];
  const child = spawn(process.execPath, [...flags, join(root, main)], {
    // Packages in flags are looked for from here, and `.env` is not here.
    cwd: join(root, 'apps'),
    env: { NODE_COMPILE_CACHE: compileCache(root), ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${main} could not be started`);
  const lines: Line[] = [];
  createInterface(child.stdout).on('line', (text) => lines.push(parse(text)));
  createInterface(child.stderr).on('line', (msg) => lines.push({ level: 'stderr', msg }));
  let end: number | NodeJS.Signals | undefined;
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('close', (code, signal) => {
      running.delete(child);
      tellReaper();
      end = code ?? signal ?? -1;
      resolve(end);
    });
  });
  running.add(child);
  tellReaper();

  /** Asks until there is an answer. */
  async function until<T>(what: string, answer: () => T | undefined | Promise<T | undefined>): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const ended = end; // looked at first: what came with the end is still to be asked for
      const found = await answer();
      if (found !== undefined) return found;
      if (ended === undefined && Date.now() < deadline) await sleep(20);
      else {
        const how = ended === undefined ? `did not within ${PATIENCE_MS} ms` : `ended with ${ended} before it did`;
        throw new Error(`${main} was to ${what} and ${how}. Its last lines:\n${tail(lines)}`);
      }
    }
  }

  const program: Program = {
    main,
    pid,
    lines,
    exited,
    said(pattern) {
      let read = 0;
      return until(`say ${pattern}`, () => {
        for (; read < lines.length; read += 1) {
          const found = pattern.exec(lines[read]?.msg ?? '');
          if (found !== null) return found;
        }
        return undefined;
      });
    },
    kill: (signal) => void child.kill(signal),
    async resume() {
      await until('go on', async () => {
        child.kill('SIGCONT');
        return (await program.probe('/livez')) === 200 ? true : undefined;
      });
    },
    async probe(path) {
      const [, port] = await program.said(/probes on port (\d+)/i);
      const signal = AbortSignal.timeout(2_000);
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal }).catch(() => undefined);
      await response?.body?.cancel();
      return response?.status;
    },
    async page(path) {
      const [, port] = await program.said(/probes on port (\d+)/i);
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(5_000) });
      return await response.text();
    },
    async ready() {
      await until('be ready', async () => ((await program.probe('/readyz')) === 200 ? true : undefined));
    },
  };
  return program;
}

/** The end of an output, to say why. */
export const tail = (lines: readonly Line[]): string =>
  lines
    .slice(-12)
    .map(({ level, msg }) => `  ${level} ${msg}`)
    .join('\n');

function parse(text: string): Line {
  try {
    const { level, msg, ...fields } = JSON.parse(text);
    if (typeof level === 'string' && typeof msg === 'string') return { ...fields, level, msg };
  } catch {
    // A process that was killed can leave half a line.
  }
  return { level: 'text', msg: text };
}

let reaper: Writable | undefined;

/**
 * Nobody stops anything when the run itself is killed. So a shell holds the other end of a pipe and knows which processes
 * run; when the pipe closes, whatever the reason, it kills them.
 */
function tellReaper(): void {
  if (reaper === undefined) {
    const script = 'while read -r line; do pids=$line; done; [ -z "$pids" ] || kill -9 $pids';
    const shell = spawn('/bin/sh', ['-c', script], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
    shell.unref();
    reaper = shell.stdin;
  }
  reaper.write(`${[...running].map(({ pid }) => pid).join(' ')}\n`);
}
