import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** `make dev`: api, relay and worker side by side in one terminal, until Ctrl-C. */

const ROOT = join(import.meta.dirname, '..');
const API = { name: 'api', opsPort: process.env['API_OPS_PORT'] ?? '3100' };
const RELAY = { name: 'relay', opsPort: process.env['RELAY_OPS_PORT'] ?? '3101' };
const WORKER = { name: 'worker', opsPort: process.env['WORKER_OPS_PORT'] ?? '3102' };
/** Longer than the deadline that each app sets itself. */
const PATIENCE_MS = 15_000;

const running = new Map<string, ChildProcess>();
const stopping = new AbortController();

const say = (name: string, line: string): void => console.log(`${name.padEnd(6)} | ${line}`);

function start({ name }: { readonly name: string }): void {
  const flags = ['--conditions=oncebox-source', '--import', '@oncebox/service/tracing'];
  const child = spawn(process.execPath, [...flags, `apps/${name}/src/main.ts`], {
    cwd: ROOT,
    env: { ...process.env, LOG_FORMAT: 'pretty', LOG_PAYLOADS: 'true' },
    stdio: ['ignore', 'pipe', 'pipe'],
    // In a process group of its own: the terminal sends Ctrl-C to everyone in ours, and each app must hear it once, from us.
    detached: true,
  });
  running.set(name, child);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => say(name, line));
  }
  child.once('error', (error) => ended(name, error.message));
  child.once('close', (code, signal) => ended(name, signal ?? `exit code ${code}`, code === 0));
}

function ended(name: string, how: string, cleanly = false): void {
  running.delete(name);
  if (stopping.signal.aborted && cleanly) return;
  process.exitCode = 1;
  say('dev', stopping.signal.aborted ? `${name} did not stop cleanly: ${how}` : `${name} ended by itself: ${how}`);
  stop();
}

function stop(): void {
  if (stopping.signal.aborted) return;
  stopping.abort();
  if (running.size > 0) say('dev', `stopping ${[...running.keys()].join(', ')}`);
  for (const child of running.values()) child.kill('SIGTERM');
  setTimeout(() => killAll(), PATIENCE_MS).unref();
}

function killAll(): void {
  for (const child of running.values()) child.kill('SIGKILL');
}

async function untilReady({ name, opsPort }: typeof API): Promise<void> {
  const url = `http://127.0.0.1:${opsPort}/readyz`;
  for (;;) {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) }).catch(() => undefined);
    stopping.signal.throwIfAborted();
    if (response?.ok) return say('dev', `${name} is ready`);
    await sleep(200, undefined, { signal: stopping.signal });
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
process.stdout.on('error', stop); // the terminal is gone
process.on('exit', killAll); // whatever ends this process early must not leave the apps behind

// The relay last: on a new broker it would find some of the worker's queues bound and others not yet, and a message that one queue has
// taken counts as published.
start(API);
start(WORKER);
try {
  await Promise.all([untilReady(API), untilReady(WORKER)]);
  start(RELAY);
  await untilReady(RELAY);
  const body = JSON.stringify({ email: 'ada@example.com', name: 'Ada Lovelace' });
  say('dev', 'all three are ready; Ctrl-C stops them. Post a customer:');
  console.log(
    `\n  curl -i -X POST http://127.0.0.1:${process.env['API_PORT'] ?? '3000'}/customers ` +
      `-H 'content-type: application/json' -d '${body}'\n`,
  );
} catch (error) {
  if (!stopping.signal.aborted) throw error;
}
