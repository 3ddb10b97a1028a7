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

interface StepOptions {
  readonly id?: string;
  readonly partitioned?: boolean;
}

/** A step as the relay would publish it. */
export const stepOnTheWire = (walk: string, n: number, { id = uuidv7(), partitioned = true }: StepOptions = {}) =>
  toWire({
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

/** Publishes it. @returns its id. */
export function sendStep(channel: Channel, walk: string, n: number, options: StepOptions = {}): string {
  const { body, properties } = stepOnTheWire(walk, n, options);
  channel.publish(Stepped.exchange, Stepped.routingKey, body, properties);
  return properties.messageId;
}
