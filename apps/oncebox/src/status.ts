import { readActivity, readProblems } from '@oncebox/inbox';
import { readBacklog, readOutboxProblems } from '@oncebox/outbox';
import { countSetAside } from '@oncebox/rabbitmq';
import { amqpUrls, loadConfig } from '@oncebox/service';
import { z } from 'zod';
import { assertNone, readArguments } from './arguments.ts';
import type { Command } from './command.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type Source, withSources } from './sources.ts';
import { duration, table } from './table.ts';

/** Where counts end: a glance needs no more, and counting a million takes as long as reading them. */
const COUNTED = 100_000;

const HELP = `Usage: oncebox status [--service VARIABLE …] [--schema NAME] [--json]

For each outbox: messages to be published (PENDING) and the age of the oldest, those that wait for their next attempt or behind
their key's failed head (HELD), those that were given up and block their key (PARKED) or do not (RELEASED).
For each consumer: its dead letters (DEAD), those that the database refused (SET ASIDE: they wait in the queue <consumer>.set-aside, see
"oncebox dead bring-back"), those that its worker is to send again (REPLAY), what it handled within the last hour.
Then, under PROBLEM, what is not repaired by itself, each with the command that mends it: names and bindings of consumers, rows of an
outbox that somebody has changed.
Counts end at ${COUNTED}, shown as ${COUNTED}+.

${SOURCE_HELP}
  AMQP_URL              the broker, which is asked what is set aside; without it the count is that of their dead letters

JSON: { countedUpTo, outboxes: [{ schema, pending, oldestSeconds, held, parked, released }],
        consumers: [{ schema, consumer, dead, setAside, replay, handledLastHour }],
        problems: [{ schema, consumer, code, what, command }] }; the consumer of a problem of an outbox is null
Exit codes: 0 nothing needs a person, 1 something is parked, dead, set aside or a problem, or the command failed, 2 called wrongly.`;

export const statusCommand: Command = { summary: 'backlog, parked messages and dead letters', help: HELP, run };

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, SOURCE_OPTIONS);
  assertNone(positionals);
  return await withSources(values, ['outboxes', 'services'], async (sources) => {
    const outboxes = await Promise.all(
      sources.outboxes.map(async ({ schema, pool }) => ({ schema, ...(await readBacklog(pool, COUNTED)) })),
    );
    const activities = await Promise.all(
      sources.services.map(async ({ schema, pool }) =>
        (await readActivity(pool, COUNTED)).map((activity) => ({ schema, ...activity })),
      ),
    );
    const waiting = await askBroker(activities.flat().map(({ consumer }) => consumer));
    const consumers = activities.flat().map((activity) => {
      const { consumer, setAside } = activity;
      return { ...activity, setAside: Math.max(setAside, waiting.get(consumer) ?? 0) };
    });
    const problems = [...(await outboxProblems(sources.outboxes)), ...(await consumerProblems(sources.services))];
    if (values.json) console.log(JSON.stringify({ countedUpTo: COUNTED, outboxes, consumers, problems }));
    else {
      const backlog = outboxes.map(({ schema, pending, oldestSeconds, held, parked, released }) => {
        const oldest = oldestSeconds === null ? '-' : duration(oldestSeconds);
        return [schema, counted(pending), oldest, counted(held), counted(parked), counted(released)];
      });
      const activity = consumers.map(({ schema, consumer, dead, setAside, replay, handledLastHour }) => {
        return [schema, consumer, counted(dead), counted(setAside), counted(replay), counted(handledLastHour)];
      });
      console.log(table([['OUTBOX', 'PENDING', 'OLDEST', 'HELD', 'PARKED', 'RELEASED'], ...backlog]));
      console.log(`\n${table([['INBOX', 'CONSUMER', 'DEAD', 'SET ASIDE', 'REPLAY', 'HANDLED IN 1 H'], ...activity])}`);
      for (const { schema, consumer, code, what, command } of problems) {
        console.log(`\nPROBLEM  ${schema} ${consumer ?? 'outbox'} ${code}\n  ${what}:\n  ${command}`);
      }
    }
    const needsPerson =
      outboxes.some(({ parked }) => parked > 0) || consumers.some(({ dead, setAside }) => dead > 0 || setAside > 0);
    return needsPerson || problems.length > 0 ? 1 : 0;
  });
}

/** Their commands with the schema: two services may have a consumer of one name. */
async function consumerProblems(services: readonly Source[]) {
  const found = await Promise.all(
    services.map(async ({ schema, pool }) =>
      (await readProblems(pool)).map(({ consumer, code, what, command }) => {
        return { schema, consumer, code, what, command: `${command} --schema ${schema}` };
      }),
    ),
  );
  return found.flat();
}

async function outboxProblems(outboxes: readonly Source[]) {
  const found = await Promise.all(
    outboxes.map(async ({ schema, pool }) =>
      (await readOutboxProblems(pool)).map((problem) => ({ schema, consumer: null, ...problem })),
    ),
  );
  return found.flat();
}

/** The database may have refused the dead letters without a body too, so they alone do not count all. */
async function askBroker(consumers: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const { AMQP_URL: urls } = loadConfig(z.object({ AMQP_URL: amqpUrls().optional() }));
  if (urls === undefined) return new Map();
  try {
    return await countSetAside({ urls, consumers, logger });
  } catch (error) {
    console.error(
      `what is set aside is counted by its dead letters alone: ${error instanceof Error ? error.message : error}`,
    );
    return new Map();
  }
}

const logger = { info: () => undefined, warn: () => undefined, error: () => undefined };

const counted = (count: number): string => (count >= COUNTED ? `${COUNTED}+` : String(count));
