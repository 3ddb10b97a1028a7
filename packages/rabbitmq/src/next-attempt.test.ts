import type { ConsumeMessage } from 'amqplib';
import { expect, it } from 'vitest';
import { nextAttempt } from './next-attempt.ts';
import { NOTE } from './notes.ts';

const inbox = { name: 'emails', retryDelaysMs: [1_000, 5_000, 30_000, 120_000, 600_000] };
const error = new Error('x');

/** After so many failed attempts, the first of them so long ago. */
function failed(times: number, agoMs = 0): ConsumeMessage {
  const headers = {
    [NOTE.attempts]: times,
    [NOTE.consumer]: 'emails',
    [NOTE.firstFailure]: new Date(Date.now() - agoMs).toISOString(),
  };
  const fields = { consumerTag: '', deliveryTag: 1, redelivered: false, exchange: '', routingKey: 'emails' };
  const none = {
    contentType: undefined,
    contentEncoding: undefined,
    deliveryMode: undefined,
    priority: undefined,
    correlationId: undefined,
    replyTo: undefined,
    expiration: undefined,
    messageId: undefined,
    timestamp: undefined,
    type: undefined,
    userId: undefined,
    appId: undefined,
    clusterId: undefined,
  };
  return { content: Buffer.alloc(0), fields, properties: { ...none, headers } };
}

it('climbs the ladder with each failure that counts, to its end', () => {
  const climbed = [0, 1, 4, 5].map((times) => nextAttempt(failed(times), { kind: 'retry', error }, inbox));
  expect(climbed).toEqual([
    { attempts: 1, retryInMs: 1_000 },
    { attempts: 2, retryInMs: 5_000 },
    { attempts: 5, retryInMs: 600_000 },
    { attempts: 6, retryInMs: undefined },
  ]);
});

it('stays where it is for what does not count, and waits as long as may be up to a minute', () => {
  const verdict = { kind: 'retry', error, uncounted: 'refused' } as const;
  expect(nextAttempt(failed(5), verdict, inbox)).toEqual({ attempts: 5, retryInMs: 30_000 });
  const slow = { name: 'emails', retryDelaysMs: [600_000] };
  expect(nextAttempt(failed(0), verdict, slow)).toEqual({ attempts: 0, retryInMs: 600_000 });
});

it('comes back soon for want of a connection, and counts nothing', () => {
  const verdict = { kind: 'retry', error, uncounted: 'unconnected' } as const;
  expect(nextAttempt(failed(2, 40_000), verdict, inbox)).toEqual({ attempts: 2, retryInMs: 1_000 });
});

it('waits for another worker no longer than the message has waited before, and counts nothing', () => {
  const verdict = { kind: 'retry', error, uncounted: 'elsewhere' } as const;
  expect(nextAttempt(failed(1, 0), verdict, inbox)).toEqual({ attempts: 1, retryInMs: 1_000 });
  expect(nextAttempt(failed(1, 40_000), verdict, inbox)).toEqual({ attempts: 1, retryInMs: 30_000 });
});

it('gives up what is dead', () => {
  expect(nextAttempt(failed(0), { kind: 'dead', error }, inbox)).toEqual({ attempts: 1, retryInMs: undefined });
});
