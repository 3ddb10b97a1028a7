import { type CommandOutcome, defineCommand, type ReplyTo, replyTo } from '@oncebox/message';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineSaga, type Step } from './definition.ts';
import { SagaError } from './errors.ts';
import { answered, begin, type Next, type Position, timedOut } from './machine.ts';

interface Trip {
  readonly hotel: boolean;
}

const payload = z.strictObject({ replyTo, reason: z.string().optional() });
const command = (type: string) => defineCommand({ type, version: 1, owner: 'travel', payload });
const does = (type: string) => (_data: Trip, to: ReplyTo) => command(type).message({ replyTo: to });
const undoes = (type: string) => (_data: Trip, to: ReplyTo, reason: string) =>
  command(type).message({ replyTo: to, reason });

function trip(given: Partial<Step<Trip>> = {}) {
  return defineSaga<Trip>({
    name: 'trip',
    data: z.strictObject({ hotel: z.boolean() }),
    steps: [
      { name: 'plan', compensation: undoes('Withdraw') },
      { name: 'flight', action: does('Fly'), compensation: undoes('Unfly'), timeoutMs: 100, attempts: 2, ...given },
      {
        name: 'hotel',
        when: ({ hotel }) => hotel,
        action: does('Sleep'),
        compensation: undoes('Unsleep'),
        attempts: 1,
      },
      { name: 'insurance', action: does('Insure'), attempts: 2 },
    ],
  });
}

const instance = { saga: trip(), id: 't-1', data: { hotel: true } };
const done: CommandOutcome = { kind: 'done' };
const refused = (reason: string): CommandOutcome => ({ kind: 'refused', reason });
/** What is sent: `Fly` to do a step, `Unfly (full)` to undo it. */
const sent = (next: Next | undefined): string | undefined => {
  const message = next?.command?.message;
  if (message === undefined) return undefined;
  const { reason } = payload.parse(message.payload);
  return reason === undefined ? message.contract.type : `${message.contract.type} (${reason})`;
};
/** Answers what the saga waits for. */
const answer = (position: Position, outcome: CommandOutcome, of = instance): Next => {
  const next = answered(of, position, position, outcome);
  if (next === undefined) throw new Error('the answer changed nothing');
  return next;
};
/** Where the saga stands after answers, the first of them to its first command. */
const after = (...outcomes: readonly CommandOutcome[]): Next =>
  outcomes.reduce((next, outcome) => answer(next.position, outcome), begin(instance));

describe('forward', () => {
  it('does its steps one after the other, and is completed by the answer to the last', () => {
    expect([begin(instance), after(done), after(done, done)].map(sent)).toEqual(['Fly', 'Sleep', 'Insure']);
    const end = after(done, done, done);
    expect(end.position).toMatchObject({ state: 'completed', reason: null });
    expect(end.command).toBeUndefined();
  });

  it('leaves out a step that its data does not ask for, and does not undo it either', () => {
    const short = { ...instance, data: { hotel: false } };
    const insuring = answer(begin(short).position, done, short);
    expect(sent(insuring)).toBe('Insure');
    expect(sent(answer(insuring.position, refused('too_old'), short))).toBe('Unfly (too_old)');
  });

  it('each command says which step of which saga waits for its answer', () => {
    expect(begin(instance).command?.message.payload).toMatchObject({
      replyTo: { saga: 'trip', id: 't-1', step: 'flight', direction: 'forward' },
    });
  });
});

describe('back', () => {
  it('undoes what was done in reverse order, not the step that was refused, with its reason', () => {
    const back = after(done, done, refused('too_old'));
    const next = answer(back.position, done);
    const last = answer(next.position, done);
    expect([back, next, last].map(sent)).toEqual(['Unsleep (too_old)', 'Unfly (too_old)', 'Withdraw (too_old)']);
    expect(answer(last.position, done).position).toMatchObject({ state: 'compensated', reason: 'too_old' });
  });

  it('is stuck when an undoing is refused, and goes on when it is done after all', () => {
    const back = after(done, refused('full'));
    const hanging = answer(back.position, refused('closed'));
    expect(hanging).toMatchObject({ position: { state: 'stuck', step: 'flight', problem: 'refused: closed' } });
    expect(hanging.command).toBeUndefined();
    expect(sent(answer(hanging.position, done))).toBe('Withdraw (full)');
  });
});

describe('an answer that is not the one it waits for', () => {
  const { position } = after(done);
  it.each<[string, Pick<ReplyTo, 'step' | 'direction'>]>([
    ['to an earlier step', { step: 'flight', direction: 'forward' }],
    ['to a step that is not undone yet', { step: 'hotel', direction: 'back' }],
    ['to a step that there is not', { step: 'car', direction: 'forward' }],
  ])('%s changes nothing', (_name, to) => {
    for (const outcome of [done, refused('late')]) expect(answered(instance, position, to, outcome)).toBeUndefined();
  });

  it('changes nothing after the end', () => {
    for (const { position: end } of [after(done, done, done), after(refused('full'), done)]) {
      expect(answered(instance, end, end, refused('late'))).toBeUndefined();
    }
  });

  it('to an action changes nothing once the step is being undone', () => {
    const gone = timedOut(instance, position);
    expect(sent(gone)).toBe('Unsleep (timed_out)');
    expect(answered(instance, gone.position, { step: 'hotel', direction: 'forward' }, done)).toBeUndefined();
  });
});

describe('a time-out', () => {
  it('sends the command again, each time waiting twice as long', () => {
    const first = begin(instance);
    const again = timedOut(instance, first.position);
    expect([first, again].map((next) => next.command?.timeoutMs)).toEqual([100, 200]);
    expect([first, again].map(sent)).toEqual(['Fly', 'Fly']);
    expect(sent(answer(again.position, done))).toBe('Sleep');
  });

  it('gives the step up after its attempts, and undoes it too, as it may have been done', () => {
    const again = timedOut(instance, begin(instance).position);
    const back = timedOut(instance, again.position);
    expect(sent(back)).toBe('Unfly (timed_out)');
    expect(sent(answer(back.position, done))).toBe('Withdraw (timed_out)');
  });

  it('leaves it stuck at a step that cannot be undone, and resumed it has all its attempts again', () => {
    const again = timedOut(instance, after(done, done).position);
    const stuck = timedOut(instance, again.position);
    expect(stuck.position).toMatchObject({ state: 'stuck', direction: 'forward', step: 'insurance' });
    // As an operator's resumption leaves it.
    const resumed = timedOut(instance, { ...stuck.position, state: 'running', attempts: 0, problem: null });
    expect(resumed.position).toMatchObject({ state: 'running', attempts: 1 });
    expect(sent(resumed)).toBe('Insure');
    expect(answer(stuck.position, done).position.state).toBe('completed');
  });

  it('of an undoing sends it again, oftener than an action, and leaves it stuck in the end', () => {
    let next = after(done, refused('full'));
    for (let attempts = 2; attempts <= 10; attempts++) {
      next = timedOut(instance, next.position);
      expect(sent(next)).toBe('Unfly (full)');
    }
    expect(timedOut(instance, next.position).position).toMatchObject({ state: 'stuck', direction: 'back' });
  });
});

describe('a definition', () => {
  it.each<[string, Partial<Step<Trip>>]>([
    ['a step of a name that is there already', { name: 'hotel' }],
    ['a name that is none', { name: 'Flight!' }],
    ['no attempt', { attempts: 0 }],
    ['a wait of no time', { timeoutMs: 0 }],
  ])('is refused for %s', (_name, step) => {
    expect(() => trip(step)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_SAGA' }));
  });

  it('that has lost the step at which a saga waits is an error', () => {
    const lost = { ...begin(instance).position, step: 'cruise' };
    expect(() => timedOut(instance, lost)).toThrow(SagaError);
  });
});
