import { createRequire } from 'node:module';
import { context, trace } from '@opentelemetry/api';
import { type DestinationStream, type Logger, pino } from 'pino';
import { serializeError } from './logged-error.ts';

export type { Logger } from 'pino';

export interface LoggerSettings {
  /** Name of the process: `api`. */
  readonly name: string;
  /** The least level that is written. */
  readonly level: string;
  readonly format: 'json' | 'pretty';
}

/**
 * The log of a process, on stdout: JSON lines, or with `pretty` lines that read `[09:30:00] INFO api: message`.
 *
 * Written synchronously and without a worker thread in both formats, so that the last lines before the end are not lost.
 * Log errors as `err`; they come with their causes, and without what a database error quotes of the data. Lines that are written
 * within a span have its `trace_id` and `span_id`.
 */
export function createLogger({ name, level, format }: LoggerSettings): Logger {
  const options = {
    name,
    level,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: serializeError },
    mixin: activeSpan,
  };
  const pretty = format === 'pretty' ? prettyStream(name) : undefined;
  // Not pino's default stream: it writes asynchronously, and what it flushes at the exit overtakes the write under way.
  const logger = pino(options, pretty ?? inTurns(pino.destination({ dest: 1, sync: true })));
  if (format === 'json' || pretty !== undefined) return logger;
  logger.warn('LOG_FORMAT=pretty needs the package pino-pretty, which is not installed: logging JSON');
  return logger;
}

/**
 * Writes the lines of one turn of the loop together: a system call a line was a tenth of a worker's time. At the end of the turn and no later, so
 * that what is said of a message stands there before its transaction begins. What the process says in its last turn is written as it
 * exits; only SIGKILL and an abort take it along, but for a fatal line, after which pino flushes.
 *
 * Gathered here, and not by `minLength`: the `flushSync` that this would need waits for ever once nobody reads stdout any more.
 */
function inTurns(destination: DestinationStream): DestinationStream & { flushSync(): void } {
  let lines = '';
  let exiting = false;
  const flushSync = (): void => {
    if (lines === '') return;
    const gathered = lines;
    lines = '';
    destination.write(gathered);
  };
  process.once('exit', () => {
    flushSync();
    exiting = true;
  });
  return {
    flushSync,
    write(line) {
      if (exiting) return destination.write(line);
      if (lines === '') process.nextTick(flushSync);
      lines += line;
    },
  };
}

function activeSpan(): object {
  const span = trace.getSpanContext(context.active());
  return span === undefined ? {} : { trace_id: span.traceId, span_id: span.spanId };
}

/** A development dependency of the workspace alone: an image that carries production dependencies must not die of its lack. */
function prettyStream(name: string): DestinationStream | undefined {
  const load = createRequire(import.meta.url);
  let pretty: typeof import('pino-pretty');
  try {
    pretty = load('pino-pretty');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'MODULE_NOT_FOUND') return undefined;
    throw error;
  }
  return pretty({
    sync: true,
    singleLine: true,
    colorize: process.stdout.isTTY === true,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname,name',
    customPrettifiers: { level: (_value, _key, _log, { labelColorized }) => `${labelColorized} ${name}` },
  });
}
