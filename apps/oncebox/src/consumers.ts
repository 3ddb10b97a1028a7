import { forgetBinding, forgetConsumer, type KnownConsumer, readConsumer, readWorkers } from '@oncebox/inbox';
import type { Binding } from '@oncebox/message';
import { type NamedConsumer, type Names, openNames } from '@oncebox/rabbitmq';
import { assertNone, readArguments } from './arguments.ts';
import { brokerOptions } from './broker.ts';
import { type Command, UsageError } from './command.ts';
import { SOURCE_HELP, SOURCE_OPTIONS, type Source, type SourceOptions, withSources } from './sources.ts';
import { table } from './table.ts';

const HELP = `Usage: oncebox consumers list [--json]
       oncebox consumers unbind CONSUMER TYPE
       oncebox consumers unbind CONSUMER --exchange EXCHANGE --routing-key KEY
       oncebox consumers remove CONSUMER [--force]
       oncebox consumers take CONSUMER [--force]

list    the workers of each consumer, and what they handle
unbind  removes from the consumer's queue the bindings of a type that none of its workers handles any more: messages of the type come no
        longer. Do it when neither an old release nor a rollback is to handle the type. With --exchange and --routing-key it removes a
        binding that no worker has recorded, as a release before 0013_names leaves it; upgrade all workers first
remove  deletes the queues of a consumer that has no worker any more, and its registrations. Messages in the queues are lost, so remove
        refuses while there are any, unless --force is given, and always while somebody consumes. Dead letters, and the ids of handled
        messages, stay in the schema
take    gives the consumer's name at the broker to the service of this schema, from the service that has it. Stop that service first: take
        refuses while somebody consumes the queue, unless --force is given

  --force               remove with the messages in the queues; take while somebody consumes
${SOURCE_HELP}
  AMQP_URL              the broker, as a user who may configure the consumer's queues and exchanges: the worker's may

JSON of list: { workers: [{ schema, consumer, place, state, handles: [] }] }
Exit codes: 0 done, 1 failed or refused, 2 called wrongly.`;

export const consumersCommand: Command = { summary: "consumers' workers, names and bindings", help: HELP, run };

const OPTIONS = {
  ...SOURCE_OPTIONS,
  force: { type: 'boolean', default: false },
  exchange: { type: 'string' },
  'routing-key': { type: 'string' },
} as const;

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  const [action = '', consumer, ...rest] = positionals;
  const { exchange, 'routing-key': routingKey } = values;
  if (action !== 'unbind' && (exchange ?? routingKey) !== undefined) {
    throw new UsageError('--exchange and --routing-key are options of unbind');
  }
  if (action === 'list') {
    assertNone(positionals.slice(1));
    return await list(values, values.json);
  }
  if (!ACTIONS.includes(action)) {
    throw new UsageError(action === '' ? 'list, unbind, remove or take?' : `there is no "consumers ${action}"`);
  }
  if (consumer === undefined) throw new UsageError(`${action} takes the name of a consumer`);
  if (action === 'unbind') return await change(values, consumer, chooseBindings(rest, exchange, routingKey));
  assertNone(rest);
  return await change(values, consumer, action === 'remove' ? remove : take);
}

const ACTIONS = ['unbind', 'remove', 'take'];

type Action = (known: Known) => Promise<number>;

function chooseBindings(
  [type, ...rest]: readonly string[],
  exchange: string | undefined,
  routingKey: string | undefined,
): Action {
  assertNone(rest);
  if (type !== undefined && exchange === undefined && routingKey === undefined) return (known) => unbind(known, type);
  if (type === undefined && exchange !== undefined && routingKey !== undefined) {
    return (known) => unbindUnknown(known, { exchange, routingKey });
  }
  throw new UsageError('unbind takes a type, or --exchange and --routing-key');
}

async function list(options: SourceOptions, asJson: boolean): Promise<number> {
  return await withSources(options, ['services'], async ({ services }) => {
    const found = await Promise.all(
      services.map(async ({ schema, pool }) =>
        (await readWorkers(pool)).map(({ consumer, place, isLive, isRefused, definition }) => {
          const state = !isLive ? 'gone' : isRefused ? 'refused' : 'consuming';
          const handles = Object.entries(definition.versions).flatMap(([type, versions]) =>
            versions.map((version) => `${type} v${version}`),
          );
          return { schema, consumer, place, state, handles };
        }),
      ),
    );
    const workers = found.flat();
    if (asJson) console.log(JSON.stringify({ workers }));
    else {
      const rows = workers.map(({ schema, consumer, place, state, handles }) => {
        return [schema, consumer, place, state, handles.join(', ')];
      });
      console.log(table([['SCHEMA', 'CONSUMER', 'WORKER', 'STATE', 'HANDLES'], ...rows]));
    }
    return 0;
  });
}

interface Known {
  readonly consumer: KnownConsumer & NamedConsumer;
  readonly source: Source;
  readonly names: Names;
  readonly force: boolean;
}

/** Runs one action on a consumer that one schema knows, connected to the broker. */
async function change(
  options: SourceOptions & { readonly force: boolean },
  name: string,
  action: Action,
): Promise<number> {
  return await withSources(options, ['services'], async ({ services }) => {
    const all = await Promise.all(
      services.map(async (source) => ({ source, consumer: { ...(await readConsumer(source.pool, name)), name } })),
    );
    // A name may be taken before its worker has ever run; in one schema, or whose it is would be a guess.
    const found = all.filter(({ consumer }) => consumer.isKnown || (action === take && all.length === 1));
    const [first, second] = found;
    const schemas = (found.length === 0 ? all : found).map(({ source }) => source.schema);
    if (first === undefined) return refuse(`no consumer ${name} is known in ${schemas.join(', ')}`);
    if (second !== undefined) {
      throw new UsageError(`${name} is a consumer in ${schemas.join(', ')}: say which with --schema`);
    }
    const names = await openNames(brokerOptions());
    try {
      return await action({ ...first, names, force: options.force });
    } finally {
      await names.close();
    }
  });
}

function refuse(why: string): number {
  console.error(`oncebox consumers: ${why}`);
  return 1;
}

const isOthers = async ({ consumer, names }: Known): Promise<boolean> =>
  (await names.claim(consumer.name, consumer.owner)) === 'refused';

async function unbind(known: Known, type: string): Promise<number> {
  const { consumer, source } = known;
  const { name, bindings, live } = consumer;
  const ofType = bindings.filter((binding) => binding.type === type);
  const unwanted = ofType.filter(({ wanted }) => !wanted);
  if (ofType.length === 0) return refuse(`no worker has written down that ${name} is bound for ${type}`);
  if (unwanted.length === 0) {
    const where = live.length === 0 ? 'its last worker did' : live.join(', ');
    return refuse(`nothing is unbound, because ${name} handles ${type} (${where}) and would bind it again`);
  }
  if (await isOthers(known)) return refuse(`the name ${name} belongs to another service: its bindings are left alone`);
  for (const binding of unwanted) {
    const { exchange, routingKey } = binding;
    const isShared = bindings.some(
      (each) => each.wanted && each.exchange === exchange && each.routingKey === routingKey,
    );
    if (!isShared && !(await unbindUnwanted(known, binding))) continue;
    await forgetBinding(source.pool, name, binding);
    console.log(
      isShared
        ? `${name} stays bound to ${exchange} with ${routingKey}, by which another type of it comes; ${type} is forgotten`
        : `${name} is no longer bound to ${exchange} with ${routingKey}`,
    );
  }
  return 0;
}

/** @returns false when a worker has begun to want the binding meanwhile: it is bound again, and its row stays. */
async function unbindUnwanted(known: Known, binding: Binding): Promise<boolean> {
  const { consumer, names } = known;
  await names.unbind(consumer, binding);
  // A worker that starts writes its row first and binds then. One whose row comes after this read binds after the unbind.
  if (!(await isWanted(known, binding))) return true;
  await names.bind(consumer, binding);
  console.log(
    `${consumer.name} stays bound to ${binding.exchange} with ${binding.routingKey}: a worker that has it has started`,
  );
  return false;
}

/** Whether a live worker has the binding; without any, whether the last one had it. */
async function isWanted({ consumer, source }: Known, { exchange, routingKey }: Binding): Promise<boolean> {
  const workers = (await readWorkers(source.pool, consumer.name)).filter(({ isRefused }) => !isRefused);
  const live = workers.filter(({ isLive }) => isLive);
  return (live.length > 0 ? live : workers).some(({ definition }) =>
    definition.bindings.some((each) => each.exchange === exchange && each.routingKey === routingKey),
  );
}

/** What is bound from before bindings were written down, or by hand. */
async function unbindUnknown(known: Known, binding: Binding): Promise<number> {
  const { consumer, source } = known;
  const { name, bindings, live } = consumer;
  const what = `${binding.exchange} with ${binding.routingKey}`;
  if (await isWanted(known, binding)) {
    return refuse(`nothing is unbound, because ${name} handles what comes by ${what} and would bind it again`);
  }
  if (await isOthers(known)) return refuse(`the name ${name} belongs to another service: its bindings are left alone`);
  if (live.length === 0 && (await consumedOf(known)).length > 0) {
    return refuse(
      `nothing is unbound, because a worker consumes that has not written down what it handles: upgrade it first`,
    );
  }
  if (!(await unbindUnwanted(known, binding))) return 1;
  const written = bindings.filter(
    ({ exchange, routingKey }) => exchange === binding.exchange && routingKey === binding.routingKey,
  );
  for (const each of written) await forgetBinding(source.pool, name, each);
  console.log(`${name} is not bound to ${what}`);
  return 0;
}

const consumedOf = async ({ consumer, names }: Known): Promise<string[]> =>
  (await names.depths(consumer)).filter(({ consumers }) => consumers > 0).map(({ queue }) => queue);

async function remove(known: Known): Promise<number> {
  const { consumer, source, names, force } = known;
  const { name, live } = consumer;
  if (live.length > 0) return refuse(`${name} has workers (${live.join(', ')}): stop them first`);
  if (await isOthers(known)) {
    await forgetConsumer(source.pool, name);
    console.log(`${name} is forgotten in ${source.schema}. Its queues belong to another service, and are left alone`);
    return 0;
  }
  const depths = await names.depths(consumer);
  const consumed = depths.filter(({ consumers }) => consumers > 0).map(({ queue }) => queue);
  if (consumed.length > 0) {
    return refuse(
      `nothing is removed, because somebody consumes ${consumed.join(', ')}, perhaps a worker of an earlier release: stop it first`,
    );
  }
  const filled = depths.filter(({ messages }) => messages > 0).map(({ queue, messages }) => `${messages} in ${queue}`);
  if (filled.length > 0 && !force) {
    return refuse(
      `nothing is removed, because messages would be lost (${filled.join(', ')}): --force removes them too`,
    );
  }
  await names.remove(consumer);
  await forgetConsumer(source.pool, name);
  const queues = depths.map(({ queue }) => queue).join(', ');
  console.log(`${name} is removed${queues === '' ? '' : `, with the queues ${queues}`}`);
  return 0;
}

async function take(known: Known): Promise<number> {
  const { consumer, names, source, force } = known;
  const { name, owner } = consumer;
  if ((await names.claim(name, owner)) === 'held') {
    console.log(`${name} belongs to the service of ${source.schema}`);
    return 0;
  }
  const busy = await consumedOf(known);
  if (busy.length > 0 && !force) {
    return refuse(`${name} is not taken, because somebody consumes ${busy.join(', ')}: stop the other service first`);
  }
  const taken = await names.take(name, owner);
  if (taken !== 'held') {
    return refuse(
      taken === 'unknown'
        ? `the user of AMQP_URL may not declare the exchange that marks ${name}`
        : `${name} was taken by another service in between`,
    );
  }
  console.log(`${name} belongs to the service of ${source.schema} now`);
  return 0;
}
