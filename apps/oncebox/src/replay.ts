import { setTimeout as delay } from 'node:timers/promises';
import { type Registration, readRegistrations } from '@oncebox/inbox';
import type { Pool } from '@oncebox/mysql';
import { momentBefore } from '@oncebox/outbox';
import { openHistory } from '@oncebox/rabbitmq';
import { assertNone, readArguments, readDuration, readMoment } from './arguments.ts';
import { brokerOptions } from './broker.ts';
import { type Command, UsageError } from './command.ts';
import { replayHistory } from './replay-history.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type Source, withSources } from './sources.ts';

const HELP = `Usage: oncebox replay --consumer NAME [--from TIME | --from first] [--type TYPE …] [--dry-run] [--force]

Sends history to one consumer: reads the log up to where it ends now, and sends what the consumer is registered for to that consumer's
own queue, marked as a replay. It goes through the inbox, so what the consumer has handled stays handled; a second run, after the first
was cut short for instance, does no harm. No other consumer gets anything.

Left alone are messages whose handler does not say "replays: true": an e-mail is not sent again.
A message from before the time that the inbox remembers is refused, and the run ends there: it may have been handled, and would be handled
again. --force sends it all the same. Not refused is a consumer that was added since: all that it has done is remembered. An older one that
handles a type only since then needs --force for it (with --type). What the consumer has given up is left to "oncebox dead".

  --from TIME           begin with messages written then: 24h, or 2026-01-31T08:00Z; or "first" (the default), where the log begins
  --type TYPE           only messages of this type; may be repeated
  --dry-run             show what would be sent, and send nothing
  --force               also what the inbox may have forgotten
  --settled-for DURATION   wait until the consumer has been registered for this long (30s, the relay's lease): before that, a message
                        that came too early for its queue may not be in the log yet
${SOURCE_HELP}
  AMQP_URL              the broker, as a user who may read the log and write to the default exchange: the worker's may

JSON: { messages: [{ schema, id, outcome }], counts: { outcome: number } }, the first 50 messages.
Exit codes: 0 done, 1 failed or refused, 2 called wrongly.`;

export const replayCommand: Command = { summary: 'send history from the log to one consumer', help: HELP, run };

const OPTIONS = {
  ...SOURCE_OPTIONS,
  consumer: { type: 'string' },
  from: { type: 'string', default: 'first' },
  type: { type: 'string', multiple: true },
  'dry-run': { type: 'boolean', default: false },
  force: { type: 'boolean', default: false },
  'settled-for': { type: 'string', default: '30s' },
} as const;

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  assertNone(positionals);
  const { consumer, force, json, 'dry-run': dryRun } = values;
  if (consumer === undefined) throw new UsageError('--consumer NAME says who is to get history');
  const moment = values.from === 'first' ? undefined : readMoment('from', values.from);
  const settledFor = readDuration('settled-for', values['settled-for']) ?? 0;
  return await withSources(values, ['services'], async ({ services }) => {
    const found = await find(services, consumer);
    if (found === undefined) {
      const schemas = services.map(({ schema }) => schema).join(', ');
      console.error(
        `oncebox replay: no consumer ${consumer} is registered in ${schemas}; its worker does that when it starts`,
      );
      return 1;
    }
    const { source, registrations } = found;
    const chosen = choose(registrations, values.type);
    if (!chosen.some(({ replays }) => replays)) {
      const types = chosen.map(({ type }) => type).join(', ');
      console.error(
        `oncebox replay: nothing is sent, because ${consumer} takes no history of ${types}: its handlers do not say "replays: true"`,
      );
      return 1;
    }
    const from = moment && ('at' in moment ? moment.at : new Date(await momentBefore(source.pool, moment.ago)));
    const since = registrations.map((registration) => registration.since).toSorted()[0] ?? '';
    const ordered = registrations.some((registration) => registration.ordered);
    const history = await openHistory({ ...brokerOptions(), consumer, ordered });
    try {
      if (!dryRun) await untilSettled(source.pool, chosen, settledFor);
      const report = await replayHistory(history, source, chosen, { since, from, force, dryRun });
      report.print(json);
      return report.exitCode(['sent', 'would send', 'handled', 'given up', 'not taken']);
    } finally {
      await history.close();
    }
  });
}

/** The schema in which the consumer has registered, and what for. */
async function find(
  services: readonly Source[],
  consumer: string,
): Promise<{ source: Source; registrations: readonly Registration[] } | undefined> {
  const found = [];
  for (const source of services) {
    const registrations = (await readRegistrations(source.pool)).filter((each) => each.consumer === consumer);
    if (registrations.length > 0) found.push({ source, registrations });
  }
  if (found.length > 1) {
    const schemas = found.map(({ source }) => source.schema).join(', ');
    throw new UsageError(`${consumer} is a consumer in ${schemas}: say which with --schema`);
  }
  return found[0];
}

function choose(registrations: readonly Registration[], types: readonly string[] | undefined): readonly Registration[] {
  const unknown = types?.find((type) => !registrations.some((registration) => registration.type === type));
  if (unknown !== undefined) {
    const known = registrations.map(({ type }) => type).join(', ');
    throw new UsageError(`--type ${unknown}: the consumer handles ${known}`);
  }
  return registrations.filter(({ type }) => types?.includes(type) ?? true);
}

/**
 * A message that was announced just before the consumer's queue was bound is in no queue of its, and may be on its way to the log. Once the
 * pass that announced it is over, it is in the log, or is announced again.
 */
async function untilSettled(pool: Pool, registrations: readonly Registration[], seconds: number): Promise<void> {
  for (let waits = 0; ; waits++) {
    const settled = await momentBefore(pool, seconds);
    if (registrations.every(({ since }) => since <= settled)) return;
    if (waits === 0) console.error(`waiting until the consumer has been registered for ${seconds} s`);
    await delay(500);
  }
}
