import { createPublisher } from '@oncebox/rabbitmq';
import { expect, it, onTestFinished, vi } from 'vitest';
import { scriptConfirms } from '../support/scripted-confirms.ts';
import { add, newRelay, quiet, Step, seen, states, steps, useRelays, vhost } from '../support/walks.ts';

useRelays();

it('28: confirms that come out of order or for many settle the rows that they are for, and no other', async () => {
  const broker = await scriptConfirms(vhost.amqpUrl, 6);
  const publisher = createPublisher({ urls: [broker.url], name: 'scripted', logger: quiet });
  onTestFinished(() => publisher.close());
  await vi.waitFor(() => expect(publisher.ready).toBe(true), { timeout: 20_000 });
  const walks = ['a', 'b', 'c', 'd', 'e', 'f'];
  await add(...walks.map((walk) => Step.message({ walk, step: 1 })));
  const relay = newRelay({ publisher, backoff: { firstMs: 1, mostMs: 1 } });

  const passing = relay.runOnce();
  await broker.confirmed;
  // The place of a message on the channel is its place in the queue.
  await vi.waitFor(() => expect(seen).toHaveLength(6));
  const order = steps();
  broker.say('ack', 5);
  broker.say('nack', 2);
  broker.say('ack', 4, 'multiple'); // 1, 3 and 4: of 2 the broker has spoken
  expect(new Set(await states())).toEqual(new Set(['Step1 pending'])); // of 6 it has not
  broker.say('nack', 6, 'multiple');
  const [result] = await passing;
  const published = result?.published.map(
    (id) => order[seen.findIndex(({ properties }) => properties.messageId === id)],
  );
  expect(published).toEqual([5, 1, 3, 4].map((place) => order[place - 1]));
  const refused = [2, 6].map((place) => order[place - 1]);
  expect(await states()).toEqual(
    walks.map((walk) => `Step1 ${refused.includes(`${walk}1`) ? 'pending held' : 'published'}`),
  );

  await vi.waitFor(async () => {
    await relay.runOnce();
    expect(new Set(await states())).toEqual(new Set(['Step1 published']));
  });
  // Only those whose confirm was taken from them are there twice.
  await vi.waitFor(() => expect(steps().toSorted()).toEqual([...order, ...refused].toSorted()));
});
