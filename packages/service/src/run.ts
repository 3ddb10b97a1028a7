import type { Logger } from 'pino';

/** One thing to end before the process does. */
export interface StopStep {
  /** As it is logged when it hangs: `http server`. */
  readonly name: string;
  readonly stop: () => Promise<unknown> | unknown;
}

export interface RunSettings {
  readonly logger: Logger;
  /** Milliseconds from the signal to the end of the process, come what may. Default 9,000: below the 10 s that Docker gives. */
  readonly deadlineMs?: number;
}

const lastSteps: StopStep[] = [];

/** Adds a step to those of `run`, after all that it is given: for what is to tell of their end too. */
export const stopLast = (step: StopStep): void => void lastSteps.push(step);

/**
 * Runs a process from its start to its end.
 *
 * `start` brings everything up and returns how to take it down, in order. SIGTERM or SIGINT aborts `stopping`, waits for a
 * start that is still under way, runs the steps one after another, and exits 0; 1 when a step failed or the deadline
 * passed. A start that fails, and an error that nobody caught, end the process at once with one fatal line and exit code 1.
 */
export async function run(
  { logger, deadlineMs = 9_000 }: RunSettings,
  start: (stopping: AbortSignal) => Promise<readonly StopStep[]>,
): Promise<void> {
  const stopping = new AbortController();
  const die = (message: string) => (err: unknown) => {
    logger.fatal({ err }, `${message}: ${err instanceof Error ? err.message : String(err)}`);
    process.exit(1);
  };
  process.on('uncaughtException', die('Uncaught exception'));
  process.on('unhandledRejection', die('Unhandled rejection'));

  let now = 'the start';
  const signalled = new Promise<void>((resolve) => {
    const begin = (signal: NodeJS.Signals) => {
      // `make dev` gets a process both SIGINT (its whole group does) and SIGTERM; the second must not cut the stop short.
      if (stopping.signal.aborted) return logger.debug(`${signal} again: still stopping`);
      logger.info(`${signal}: stopping`);
      stopping.abort(new Error(`Stopped by ${signal}`));
      setTimeout(() => {
        logger.fatal(`Not stopped within ${deadlineMs} ms: ${now} hangs`);
        process.exit(1);
      }, deadlineMs);
      resolve();
    };
    process.on('SIGTERM', begin);
    process.on('SIGINT', begin);
  });

  let steps: readonly StopStep[] = [];
  try {
    steps = await start(stopping.signal);
  } catch (error) {
    if (!stopping.signal.aborted) die('Could not start')(error);
    // What `stopping` cut short rejects with its reason: that is a stop, not a failure.
    if (error !== stopping.signal.reason) logger.warn({ err: error }, 'The start failed while stopping');
  }
  await signalled;
  let failed = false;
  for (const { name, stop } of [...steps, ...lastSteps]) {
    now = name;
    try {
      await stop();
    } catch (err) {
      failed = true;
      logger.error({ err }, `Could not stop ${name}`);
    }
  }
  logger.info('Stopped');
  process.exit(failed ? 1 : 0);
}
