import type { Problem } from '@oncebox/message';
import { asBytes, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';
import { iso } from './inspect.ts';
import { parseDefinition, type WorkerDefinition } from './workers.ts';

/** Seconds that something must last before it is a problem: a release that is rolled out, or a restart, is none. */
const LASTING_SECONDS = 30;
/** The same for a consumer without workers: a deployment, or a host that is away, takes longer. */
const GONE_SECONDS = 900;
/** Of what two workers differ in, so many names are shown. */
const SHOWN = 5;

export interface ConsumerProblem extends Problem {
  readonly consumer: string;
}

interface Worker {
  readonly consumer: string;
  readonly place: string;
  readonly definition: WorkerDefinition;
  readonly isRefused: boolean;
  readonly isLive: boolean;
  /** Whether it has been alive, or gone, for long enough. */
  readonly lasts: boolean;
  readonly leaseUntil: string;
}

/** What is wrong with the names and bindings of a schema's consumers, or of one. Plain reads of two small tables. */
export async function readProblems(db: Pick<Transaction, 'query'>, consumer?: string): Promise<ConsumerProblem[]> {
  const workers = await readWorkers(db, consumer);
  const bindings = await readUnhandled(db, consumer);
  const byConsumer = Map.groupBy(workers, (worker) => worker.consumer);
  return [
    ...Array.from(byConsumer, ([name, all]) => [nameTaken(name, all), gone(name, all), differ(name, all)]).flat(),
    ...bindings.map(({ consumer: name, ...binding }) => unhandled(name, binding, byConsumer.get(name) ?? [])),
  ].filter((problem) => problem !== undefined);
}

/** The workers of a schema's consumers, or of one, the gone that are still remembered too. */
export async function readWorkers(db: Pick<Transaction, 'query'>, consumer?: string): Promise<Worker[]> {
  const [rows] = await db.query<
    (RowDataPacket & {
      consumer: string;
      place: string;
      definition: string;
      refused: number;
      live: number;
      lasts: number;
      leaseUntil: string;
    })[]
  >(
    `SELECT consumer, place, definition, refused, lease_until > UTC_TIMESTAMP(6) AS live, ${iso('lease_until')} AS leaseUntil,
            IF(lease_until > UTC_TIMESTAMP(6),
               started_at <= TIMESTAMPADD(SECOND, -${LASTING_SECONDS}, UTC_TIMESTAMP(6)),
               lease_until <= TIMESTAMPADD(SECOND, -${GONE_SECONDS}, UTC_TIMESTAMP(6))) AS lasts
       FROM consumer_workers ${consumer === undefined ? '' : 'WHERE consumer = ?'} ORDER BY consumer, started_at, worker`,
    consumer === undefined ? [] : [asBytes(consumer)],
  );
  return rows.map(({ definition, refused, live, lasts, ...row }) => ({
    ...row,
    definition: parseDefinition(definition),
    isRefused: refused === 1,
    isLive: live === 1,
    lasts: lasts === 1,
  }));
}

interface Unhandled {
  readonly type: string;
  readonly exchange: string;
  readonly routingKey: string;
  readonly since: string;
}

async function readUnhandled(
  db: Pick<Transaction, 'query'>,
  consumer: string | undefined,
): Promise<(Unhandled & { readonly consumer: string })[]> {
  const [rows] = await db.query<(RowDataPacket & Unhandled & { consumer: string })[]>(
    `SELECT consumer, type, exchange, routing_key AS routingKey, ${iso('unhandled_since')} AS since FROM consumer_bindings
      WHERE unhandled_since <= TIMESTAMPADD(SECOND, -${LASTING_SECONDS}, UTC_TIMESTAMP(6))
        ${consumer === undefined ? '' : 'AND consumer = ?'} ORDER BY consumer, type, exchange, routing_key`,
    consumer === undefined ? [] : [asBytes(consumer)],
  );
  return rows;
}

const nameTaken = (consumer: string, workers: readonly Worker[]): ConsumerProblem | undefined =>
  workers.some(({ isLive, isRefused }) => isLive && isRefused)
    ? {
        consumer,
        code: 'ONCEBOX_CONSUMER_NAME_TAKEN',
        what:
          `The consumer name ${consumer} belongs to another service at this broker, so this one consumes nothing: it would take ` +
          'messages of the other. Give this consumer a name of its own; or, if the other service has given the name up, hand it over',
        command: `oncebox consumers take ${consumer}`,
      }
    : undefined;

/** One that was refused never consumed: its queue, if there is one, is another service's. */
function gone(consumer: string, workers: readonly Worker[]): ConsumerProblem | undefined {
  const consuming = workers.filter(({ isRefused }) => !isRefused);
  if (consuming.length === 0 || consuming.some(({ isLive, lasts }) => isLive || !lasts)) return undefined;
  const since = consuming
    .map(({ leaseUntil }) => leaseUntil)
    .toSorted()
    .at(-1);
  return {
    consumer,
    code: 'ONCEBOX_CONSUMER_GONE',
    what: `${consumer} has had no worker of this release or a later one since ${since}, and its messages wait. Start its worker; or, if the consumer was removed for good, remove what it has left`,
    command: `oncebox consumers remove ${consumer}`,
  };
}

const namesOf = ({ definition }: Worker): string[] =>
  Object.entries(definition.versions).flatMap(([type, versions]) => versions.map((version) => `${type} v${version}`));

function differ(consumer: string, workers: readonly Worker[]): ConsumerProblem | undefined {
  const live = workers
    .filter(({ isLive, isRefused, lasts }) => isLive && !isRefused && lasts)
    .map((worker) => ({ place: worker.place, names: new Set(namesOf(worker)) }));
  const all = [...new Set(live.flatMap(({ names }) => [...names]))];
  const lacking = live
    .map(({ place, names }) => ({ place, names: all.filter((name) => !names.has(name)) }))
    .filter(({ names }) => names.length > 0);
  if (lacking.length === 0) return undefined;
  const told = lacking.slice(0, SHOWN).map(({ place, names }) => {
    return `${place} does not handle ${names.slice(0, SHOWN).join(', ')}${names.length > SHOWN ? ' …' : ''}`;
  });
  return {
    consumer,
    code: 'ONCEBOX_WORKERS_DIFFER',
    what:
      `The workers of ${consumer} handle different messages, so messages wait for the worker that knows them: ${told.join('; ')}. ` +
      'Deploy one release to all of them, or give the two consumers different names',
    command: 'oncebox consumers list',
  };
}

function unhandled(consumer: string, binding: Unhandled, workers: readonly Worker[]): ConsumerProblem {
  const { type, exchange, routingKey, since } = binding;
  const isKnown = workers.some(({ isLive, definition }) => isLive && Object.hasOwn(definition.versions, type));
  const fate = isKnown ? 'No worker expects messages by it' : 'Its messages are retried, then dead';
  return {
    consumer,
    code: 'ONCEBOX_BINDING_UNHANDLED',
    what:
      `${consumer} is still bound to ${exchange} with ${routingKey} for ${type}, which no worker of it has had since ${since}. ${fate}. ` +
      'Remove the binding if no release is to come back that has it',
    command: `oncebox consumers unbind ${consumer} ${type}`,
  };
}
