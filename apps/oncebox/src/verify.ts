import { assertNone, type Moment, readArguments, readCount, readDuration, readMoment } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { resolveMoment } from './moment.ts';
import { noSchema, SOURCE_HELP, SOURCE_OPTIONS, type Sources, withSources } from './sources.ts';
import { ago, table } from './table.ts';
import { type Finding, type Verification, type VerifyOptions, verifyAll } from './verification.ts';

const HELP = `Usage: oncebox verify [--since TIME] [--settled-for DURATION] [--closed] [--limit N]

Proves that every message that was committed is published, and that every consumer that is expected to handle it has. Or names the
ones that are missing:
  pending, held      not published yet: in turn, or waiting for the next attempt or behind the failed head of its key
  parked, released   not published, and given up
  not handled        published, and not in the inbox of this consumer: in a queue, or waiting for a retry, or lost
  dead, replay       this consumer has given it up; its worker is to send it again
  held               published, and waiting at this ordered consumer behind a message that failed
  discarded          an operator has given it up
  in no outbox       this consumer has handled it, or has it as a dead letter, and no outbox has its row. Either another program sent it,
                     or the outbox came back from an older backup: its change is gone, and its effect is there. Only with
                     --closed it counts as missing
"oncebox outbox republish" sends again what was published and not handled.
A consumer is expected to handle the messages of the types that it has registered for, from when it did. An optional message need not be
handled by anybody. What retention has removed from an outbox was published, but cannot be compared: the answer is then "unknowable before"
a time, and --since with a later one gets a proof.

  --since TIME          look at messages written since: 24h, or 2026-01-31T08:00Z
  --settled-for DURATION   what was written or published less long ago is in flight, and not missing (10s)
  --closed              after a restore: no program but these services sends to the consumers, so what is in no outbox is missing.
                        Not with --schema, with which verify does not compare that
  --limit N             most messages to name (100); all of them are counted
${SOURCE_HELP}

JSON: { verdict: "proven" | "missing" | "unknowable", since, unknowableBefore, checked, counts: { problem: number },
        unclaimed: { type: number }, findings: [{ schema, id, type, problem, consumer, reason, createdAt }] }
where the problems also are "in flight" and "unknowable", schema and type are null for what is in no outbox, and unclaimed messages are published ones that no consumer has registered for.
Exit codes: 0 proven, 1 something is missing, or the command failed, 2 called wrongly, 3 nothing is missing that anyone could know.`;

export const verifyCommand: Command = {
  summary: 'prove that nothing is lost, or name what is missing',
  help: HELP,
  run,
};

const OPTIONS = {
  ...SOURCE_OPTIONS,
  since: { type: 'string' },
  'settled-for': { type: 'string', default: '10s' },
  closed: { type: 'boolean', default: false },
  limit: { type: 'string', default: '100' },
} as const;

const PROGRESS_EVERY_MS = 2_000;

interface Answer extends Verification {
  readonly verdict: 'proven' | 'missing' | 'unknowable';
  readonly since: string | undefined;
  readonly counts: ReadonlyMap<Finding['problem'], number>;
  readonly findings: readonly Finding[];
}

const EXIT_CODES: Readonly<Record<Answer['verdict'], number>> = { proven: 0, missing: 1, unknowable: 3 };

async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, OPTIONS);
  assertNone(positionals);
  const since = readMoment('since', values.since);
  const settledFor = readDuration('settled-for', values['settled-for']) ?? 0;
  const limit = readCount('limit', values.limit) ?? 0;
  return await withSources(values, ['outboxes', 'services'], async (sources) => {
    // Without its consumers the proof would be of half of it, and look like the whole.
    for (const kind of ['outboxes', 'services'] as const) if (sources[kind].length === 0) throw noSchema([kind]);
    // One schema's consumers handle what the outboxes of others have.
    const looksForUnwritten = values.schema === undefined;
    if (values.closed && !looksForUnwritten) throw new UsageError('--closed is about all outboxes: leave --schema out');
    const settings = { settledFor, looksForUnwritten, closed: values.closed };
    const answer = await verify(sources, since, settings, limit);
    if (values.json) {
      const { counts, unclaimed, since: from = null, unknowableBefore = null, ...rest } = answer;
      const plain = { counts: Object.fromEntries(counts), unclaimed: Object.fromEntries(unclaimed) };
      console.log(JSON.stringify({ since: from, unknowableBefore, ...rest, ...plain }));
    } else print(answer);
    return EXIT_CODES[answer.verdict];
  });
}

async function verify(
  sources: Sources,
  moment: Moment | undefined,
  { closed, ...settings }: Pick<VerifyOptions, 'settledFor' | 'looksForUnwritten'> & { readonly closed: boolean },
  limit: number,
): Promise<Answer> {
  const [first] = sources.outboxes;
  const since = moment && first && (await resolveMoment(first.pool, moment));
  const counts = new Map<Finding['problem'], number>();
  const findings: Finding[] = [];
  let told = Date.now();
  const verification = await verifyAll(sources, {
    ...settings,
    since,
    onFinding: (finding) => {
      counts.set(finding.problem, (counts.get(finding.problem) ?? 0) + 1);
      // What is missing comes first when there is not room for all.
      if (findings.length < limit && finding.problem !== 'in flight') findings.push(finding);
    },
    onProgress: (line) => {
      if (Date.now() - told < PROGRESS_EVERY_MS) return;
      told = Date.now();
      console.error(line);
    },
  });
  const harmless: readonly Finding['problem'][] = [
    'in flight',
    'unknowable',
    ...(closed ? [] : ['in no outbox' as const]),
  ];
  const isMissing = counts.keys().some((problem) => !harmless.includes(problem));
  const isUnknowable = verification.unknowableBefore !== undefined || counts.has('unknowable');
  const verdict = isMissing ? 'missing' : isUnknowable ? 'unknowable' : 'proven';
  return { verdict, since, ...verification, counts, findings };
}

function print({ verdict, since, checked, counts, findings, unclaimed, unknowableBefore }: Answer): void {
  if (findings.length > 0) {
    const rows = findings.map(({ schema, id, type, problem, consumer, createdAt, reason }) => {
      return [schema, id, type, problem, consumer, ago(createdAt), reason];
    });
    console.log(`${table([['OUTBOX', 'MESSAGE', 'TYPE', 'PROBLEM', 'CONSUMER', 'AGE', 'REASON'], ...rows])}\n`);
  }
  console.log(`${checked} messages compared${since === undefined ? '' : `, written since ${since}`}`);
  for (const [problem, count] of counts) console.log(`${count} ${problem}`);
  for (const [type, count] of unclaimed) console.log(`${count} ${type} published that no consumer has registered for`);
  if (unknowableBefore !== undefined) {
    console.log(
      `Unknowable before ${unknowableBefore}: retention may have removed published messages from before then`,
    );
  }
  if (counts.has('not handled')) {
    console.log('"oncebox outbox republish --id …" sends again what is not handled, once it is in no queue any more');
  }
  console.log(
    {
      proven: 'Proven: every message that is not in flight is published, and handled by every expected consumer',
      missing: 'Missing: not every message is published and handled by every expected consumer, or an outbox lacks one',
      unknowable: 'Unknowable: nothing is missing of what is still there, and of the rest nobody can know',
    }[verdict],
  );
}
