import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { gatherWrites } from './gather.ts';

/** Counts what would be system calls. amqplib hands a message to its socket in an immediate. */
function socketOf() {
  const calls: number[] = [];
  const stream = new Writable({
    write: (_chunk, _encoding, done) => {
      calls.push(1);
      done();
    },
    writev: (chunks, done) => {
      calls.push(chunks.length);
      done();
    },
  });
  const gather = gatherWrites({ connection: { stream } } as never); // all that it looks at
  const send = (messages: number) => {
    for (let n = 0; n < messages; n++) gather();
    setImmediate(() => {
      for (let n = 0; n < messages; n++) stream.write('message');
    });
  };
  return { calls, send, stream };
}
const turn = () => new Promise(setImmediate);

test('what is sent in a turn leaves in one call, in every one of many turns', async () => {
  const { calls, send } = socketOf();
  for (let turns = 0; turns < 10; turns++) {
    send(20);
    await turn();
  }
  while (calls.reduce((sum, messages) => sum + messages, 0) < 200) await turn();
  expect(calls.filter((messages) => messages < 20)).toEqual([]);
  expect(calls.length).toBeLessThanOrEqual(10);
});

test('what nobody gathers leaves at once, also after what was gathered', async () => {
  const { calls, send, stream } = socketOf();
  send(2);
  while (calls.length === 0) await turn();
  await turn();
  stream.write('heartbeat');
  expect(calls).toEqual([2, 1]);
});
