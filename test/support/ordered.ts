import { crc32 } from 'node:zlib';
import { defineMessage, PARTITIONS, toWire } from '@oncebox/message';
import type { Channel } from 'amqplib';
import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

/** What the tests of ordered consumers send: the steps of walks, each walk a key. */

export const Stepped = defineMessage({
  type: 'Stepped',
  version: 1,
  aggregateType: 'walk',
  aggregateId: ({ walk }) => walk,
  routingKey: 'walk.stepped',
  payload: z.strictObject({ walk: z.string(), n: z.int() }),
});

/** The effects, and the rights of the worker's user. */
export const STEPS_TABLE = `CREATE TABLE steps (seq BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, message_id CHAR(36) NOT NULL,
  walk VARCHAR(50) NOT NULL, n INT NOT NULL) ENGINE = InnoDB`;

/** Publishes a step as the relay would. @returns its id. */
export function sendStep(
  channel: Channel,
  walk: string,
  n: number,
  { id = uuidv7(), partitioned = true }: { id?: string; partitioned?: boolean } = {},
): string {
  const { body, properties } = toWire({
    id,
    type: Stepped.type,
    version: 1,
    aggregateId: walk,
    ...(partitioned ? { partition: crc32(walk) % PARTITIONS } : {}),
    payload: JSON.stringify({ walk, n }),
    lineage: {},
    exchange: Stepped.exchange,
    routingKey: Stepped.routingKey,
    mandatory: true,
    source: 'test',
    occurredAt: new Date(),
  });
  channel.publish(Stepped.exchange, Stepped.routingKey, body, properties);
  return id;
}
