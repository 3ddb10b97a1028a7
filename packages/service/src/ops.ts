import { createServer, type RequestListener } from 'node:http';
import type { Logger } from 'pino';
import { reasonCode } from './errors.ts';
import { type Listening, type ListenSettings, listen } from './http-server.ts';

/** Resolves when the dependency answers. The code of what it throws is shown to whoever asks; its message is not. */
export type Check = () => Promise<unknown> | unknown;

/** What `/metrics` shows; `createMetrics` of @oncebox/metrics makes one. */
export interface MetricsPage {
  readonly contentType: string;
  /** @param checks whether each dependency is there now, so that readiness has a history. */
  render(checks: Readonly<Record<string, boolean>>): Promise<string>;
}

export interface OpsSettings extends ListenSettings {
  readonly checks: Readonly<Record<string, Check>>;
  /** Without it there is no `/metrics`. */
  readonly metrics?: MetricsPage;
  readonly logger: Logger;
  /** Once aborted, the process is not ready, whatever its dependencies say: a load balancer should send nothing more. */
  readonly stopping: AbortSignal;
}

/** Milliseconds for one check: less than the second or more that whoever probes will wait. */
const CHECK_TIMEOUT_MS = 1_000;

/**
 * Serves the probes of a process, on a port of their own, so that they are not open to whoever may call the service:
 * `/livez` answers 200 while the event loop turns and asks nobody, since restarting a process does not cure its database; a
 * loop that does not turn answers nothing, and the probe times out. `/readyz` answers 200, or 503 and which dependency is missing;
 * `/metrics` asks the same and shows it among the metrics. Logs each change from ready to not ready and back.
 */
export async function startOpsServer({
  checks,
  metrics,
  logger,
  stopping,
  ...address
}: OpsSettings): Promise<Listening> {
  const paths = ['/livez', '/readyz', ...(metrics === undefined ? [] : ['/metrics'])];
  let last = '';
  const readiness = async () => {
    const results = await Promise.all(
      Object.entries(checks).map(async ([name, check]) => [name, await outcome(check)] as const),
    );
    const missing = results.filter(([, result]) => result !== 'ok').map(([name, result]) => `${name}: ${result}`);
    const ready = missing.length === 0 && !stopping.aborted;
    const now = stopping.aborted ? 'stopping' : missing.join(', ');
    if (now !== last) logger[ready ? 'info' : 'warn'](ready ? 'Ready' : `Not ready (${now})`);
    last = now;
    return { ready, ...(stopping.aborted ? { stopping: true } : {}), checks: Object.fromEntries(results) };
  };

  const answer: RequestListener = async (request, response) => {
    const sendText = (status: number, text: string, headers: Record<string, string>) =>
      response
        .writeHead(status, { 'cache-control': 'no-store', ...headers })
        .end(request.method === 'HEAD' ? undefined : text);
    const send = (status: number, body: unknown, headers: Record<string, string> = {}) =>
      sendText(status, `${JSON.stringify(body)}\n`, { 'content-type': 'application/json', ...headers });
    const path = request.url?.split('?', 1)[0] ?? '';
    if (!paths.includes(path)) return send(404, { error: `Here are ${paths.join(', ')}` });
    if (request.method !== 'GET' && request.method !== 'HEAD') return send(405, {}, { allow: 'GET, HEAD' });
    if (path === '/livez') return send(200, { live: true });
    const result = await readiness();
    if (path === '/readyz' || metrics === undefined) return send(result.ready ? 200 : 503, result);
    const isThere = Object.entries(result.checks).map(([name, found]) => [name, found === 'ok'] as const);
    try {
      const text = await metrics.render(Object.fromEntries(isThere));
      return sendText(200, text, { 'content-type': metrics.contentType });
    } catch (err) {
      // A process that works must not end because it can't be measured.
      logger.error({ err }, 'The metrics could not be shown');
      return send(500, { error: 'The log says why' });
    }
  };
  return listen(createServer(answer), address);
}

interface Call {
  readonly began: number;
  readonly result: Promise<string>;
}
/** By check, the call that has not ended yet. */
const underWay = new WeakMap<Check, Call>();
/** A call that takes longer has been forgotten by what it asks. */
const FORGOTTEN_MS = 10_000;

/** One call at a time: each probe of a dependency that is silent would otherwise hold a connection more. */
async function outcome(check: Check): Promise<string> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => late.resolve('timeout'), CHECK_TIMEOUT_MS);
  const last = underWay.get(check);
  const call = last !== undefined && performance.now() - last.began < FORGOTTEN_MS ? last : begin(check);
  try {
    return await Promise.race([call.result, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function begin(check: Check): Call {
  const result = (async () => await check())()
    .then(() => 'ok', reasonCode)
    .finally(() => {
      if (underWay.get(check) === call) underWay.delete(check);
    });
  const call: Call = { began: performance.now(), result };
  underWay.set(check, call);
  return call;
}
