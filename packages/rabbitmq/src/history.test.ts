import { expect, test } from 'vitest';
import { historyFor } from './history.ts';

test.each([
  ['c', ['c'], '6'],
  ['c.2', ['c.0', 'c.1', 'c.2', 'c.3'], '6'],
  ['c.0', ['c.0', 'c.1', 'c.2', 'c.3'], undefined],
  ['c.0', ['c.0', 'c.1', 'c.2', 'c.3'], 'six'],
])('history goes to the queue %s of %j for partition %s, as what is announced does', (queue, queues, partition) => {
  const delivery = { content: Buffer.from('{}'), properties: { headers: { partition, 'x-stream-offset': 7 } } };
  const sending = historyFor(queues, delivery);
  expect(sending).toMatchObject({ exchange: '', routingKey: queue });
  expect(sending.options.headers).toEqual({ partition, 'oncebox-replay': 'true' });
});
