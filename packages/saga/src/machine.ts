import type { CommandOutcome, Message, ReplyTo } from '@oncebox/message';
import type { Saga, Step } from './definition.ts';
import { SagaError } from './errors.ts';

// What a saga does next, and nothing else: no clock, no database. Every function takes where the saga stands and returns where it
// stands then.

export type Direction = ReplyTo['direction'];

/** Where a saga stands. */
export interface Position {
  /** `stuck` still takes the answer that it waits for, but sends nothing by itself until an operator resumes it. */
  readonly state: 'running' | 'stuck' | 'completed' | 'compensated';
  /** `back` once it undoes what it has done. */
  readonly direction: Direction;
  /** The step whose answer it waits for; once it has ended, its last one. */
  readonly step: string;
  /** How often that step's command has been sent. */
  readonly attempts: number;
  /** Why it turned back. */
  readonly reason: string | null;
  /** Why it is stuck. */
  readonly problem: string | null;
}

export interface Next {
  readonly position: Position;
  /** What to send, and how long to wait for the answer. */
  readonly command?: { readonly message: Message; readonly timeoutMs: number };
  /** In words, for the history. */
  readonly happened: string;
}

/** A saga of which something is known: its definition, its id, its data. */
export interface Instance<Data = unknown> {
  readonly saga: Saga<Data>;
  readonly id: string;
  readonly data: Data;
}

const TIMEOUT_MS = 30_000;
const ATTEMPTS = 3;
/** Over four hours at the default wait. Who does not answer may be giving up an action; nobody may leave one half undone so soon. */
const UNDOING_ATTEMPTS = 10;
const LONGEST_TIMEOUT_MS = 24 * 3_600_000;

export const begin = <Data>(instance: Instance<Data>): Next => forward(instance, 0, 'started');

/** @returns undefined for an answer that is not the one it waits for: late, repeated, or to another step. It changes nothing. */
export function answered<Data>(
  instance: Instance<Data>,
  position: Position,
  replyTo: Pick<ReplyTo, 'step' | 'direction'>,
  outcome: CommandOutcome,
): Next | undefined {
  const isOver = position.state === 'completed' || position.state === 'compensated';
  if (isOver || replyTo.step !== position.step || replyTo.direction !== position.direction) return undefined;
  const at = indexOf(instance.saga, position.step);
  const what = `${nameOf(position)} ${outcome.kind}${outcome.kind === 'refused' ? `: ${outcome.reason}` : ''}`;
  if (position.direction === 'forward') {
    if (outcome.kind === 'done') return forward(instance, at + 1, what);
    return back(instance, at - 1, outcome.reason, what);
  }
  if (outcome.kind === 'done') return back(instance, at - 1, reasonOf(position), what);
  // To go on would leave something undone for good; asking again would get the same answer.
  return { position: stuck(position, `refused: ${outcome.reason}`), happened: what };
}

/** The answer has not come in time: asks again, or gives the step up, or is stuck where that is not possible. */
export function timedOut<Data>(instance: Instance<Data>, position: Position): Next {
  const at = indexOf(instance.saga, position.step);
  const step = instance.saga.steps[at];
  const { attempts, direction } = position;
  const what = `${nameOf(position)} not answered`;
  const most = direction === 'back' ? UNDOING_ATTEMPTS : (step?.attempts ?? ATTEMPTS);
  if (attempts < most) {
    const happened = attempts === 0 ? `${nameOf(position)} resumed` : `${what}, sent again`;
    const again = commandOf(instance, step, direction, attempts + 1, reasonOf(position));
    const running = { ...position, state: 'running', attempts: attempts + 1, problem: null } as const;
    if (again !== undefined) return { position: running, command: again, happened };
  }
  // Nobody knows whether the action was done or will be yet: it is undone as if it were.
  if (direction === 'forward' && step?.compensation !== undefined) return back(instance, at, 'timed_out', what);
  return { position: stuck(position, `not answered, ${attempts} times`), happened: what };
}

export const stuck = (position: Position, problem: string): Position => ({ ...position, state: 'stuck', problem });

function forward<Data>(instance: Instance<Data>, from: number, happened: string): Next {
  const { steps } = instance.saga;
  for (const step of steps.slice(from)) {
    const command = commandOf(instance, step, 'forward', 1, '');
    if (command === undefined) continue;
    return { position: running('forward', step.name, null), command, happened };
  }
  return { position: { ...running('forward', lastOf(steps), null), state: 'completed' }, happened };
}

/** Undoes the steps from the one at index `from` down: those that were reached. */
function back<Data>(instance: Instance<Data>, from: number, reason: string, happened: string): Next {
  const { steps } = instance.saga;
  for (const step of steps.slice(0, from + 1).reverse()) {
    const command = commandOf(instance, step, 'back', 1, reason);
    if (command === undefined) continue;
    return { position: running('back', step.name, reason), command, happened };
  }
  return { position: { ...running('back', steps[0]?.name ?? '', reason), state: 'compensated' }, happened };
}

/** @returns undefined where the step has nothing to send in this direction, or is not on this saga's way. */
function commandOf<Data>(
  { saga, id, data }: Instance<Data>,
  step: Step<Data> | undefined,
  direction: Direction,
  attempt: number,
  reason: string,
): Next['command'] {
  if (step === undefined || step.when?.(data) === false) return undefined;
  const replyTo: ReplyTo = { saga: saga.name, id, step: step.name, direction };
  const message = direction === 'forward' ? step.action?.(data, replyTo) : step.compensation?.(data, replyTo, reason);
  if (message === undefined) return undefined;
  const timeoutMs = Math.min((step.timeoutMs ?? TIMEOUT_MS) * 2 ** (attempt - 1), LONGEST_TIMEOUT_MS);
  return { message, timeoutMs };
}

const running = (direction: Direction, step: string, reason: string | null): Position => ({
  state: 'running',
  direction,
  step,
  attempts: 1,
  reason,
  problem: null,
});

/** `payment`, or `undoing payment`. */
const nameOf = ({ direction, step }: Position): string => (direction === 'forward' ? step : `undoing ${step}`);
const reasonOf = ({ reason }: Position): string => reason ?? '';
const lastOf = (steps: readonly { readonly name: string }[]): string => steps.at(-1)?.name ?? '';

function indexOf(saga: Saga, name: string): number {
  const index = saga.steps.findIndex((step) => step.name === name);
  if (index >= 0) return index;
  throw new SagaError(
    'ONCEBOX_UNKNOWN_STEP',
    `Saga ${saga.name} waits at step ${JSON.stringify(name)}, which its definition no longer has: give a step its name back until no saga is at it`,
  );
}
