import { COMMANDS_EXCHANGE, type Contract, claimCheck, PARTITION_HEADER, REPLAY_HEADER } from '@oncebox/message';
import { stringify } from 'yaml';
import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { nameOf, type Schema, schemaOf } from './schema.ts';

const text = { type: 'string' };

/** What every message has around its payload, as `toWire` of @oncebox/message writes it; and the mark of a replay. */
export const ENVELOPE = {
  contentType: 'application/json',
  headers: {
    type: 'object',
    required: ['schemaversion', 'cloudEvents:specversion', 'cloudEvents:id', 'cloudEvents:source', 'cloudEvents:type'],
    properties: {
      'cloudEvents:specversion': { const: '1.0' },
      'cloudEvents:id': { ...text, description: 'Also the property messageId: a consumer knows a duplicate by it.' },
      'cloudEvents:source': { ...text, description: 'The schema that it was written in; also the property appId.' },
      'cloudEvents:type': { ...text, description: 'Also the property type.' },
      'cloudEvents:time': { ...text, format: 'date-time' },
      'cloudEvents:subject': { ...text, description: 'Id of the aggregate, by which messages are ordered.' },
      [PARTITION_HEADER]: {
        ...text,
        description: 'Of the ordering key, 0 to 15; ordered consumers divide the keys by it.',
      },
      traceparent: { ...text, description: 'W3C trace context.' },
      causationid: { ...text, description: 'Id of the message that caused this one.' },
      [REPLAY_HEADER]: { ...text, description: 'Only on history that was sent again from the log.' },
    },
  },
};

/**
 * All messages as an AsyncAPI 3.0 document in YAML.
 *
 * @param examples payloads that were recorded, by the name of their contract.
 */
export function asyncApi(contracts: readonly Contract[], examples: ReadonlyMap<string, Schema>): string {
  const channels = Map.groupBy(contracts, ({ routingKey }) => routingKey);
  const document = {
    asyncapi: '3.0.0',
    info: {
      title: 'Oncebox',
      version: manifest.version,
      license: { name: manifest.license },
      description:
        'The events and commands of this system. Of each type every version that is still read is here; readers take fields that a version does not have for a mistake.',
    },
    defaultContentType: 'application/json',
    channels: Object.fromEntries([...channels].map(([key, sent]) => [key, channel(key, sent)])),
    components: {
      messages: Object.fromEntries(contracts.map((contract) => [nameOf(contract), message(contract, examples)])),
      messageTraits: { envelope: ENVELOPE },
    },
  };
  return `# Made of packages/contracts by make contracts: change it there.\n${stringify(document, { lineWidth: 0, aliasDuplicateObjects: false })}`;
}

function channel(key: string, sent: readonly Contract[]) {
  const exchange = sent[0]?.exchange;
  const name = exchange === COMMANDS_EXCHANGE ? 'command' : 'event';
  return {
    address: key,
    description: `Routing key of the ${name}.`,
    messages: Object.fromEntries(
      sent.map((contract) => [nameOf(contract), { $ref: `#/components/messages/${nameOf(contract)}` }]),
    ),
    bindings: {
      amqp: {
        is: 'routingKey',
        exchange: { name: exchange, type: 'topic', durable: true, autoDelete: false },
        bindingVersion: '0.3.0',
      },
    },
  };
}

function message(contract: Contract, examples: ReadonlyMap<string, Schema>) {
  const { $schema, ...payload } = schemaOf(contract);
  const { $schema: _, ...claim } = z.toJSONSchema(claimCheck, { target: 'draft-7' });
  const example = examples.get(nameOf(contract));
  return {
    name: contract.type,
    title: payload['title'],
    traits: [{ $ref: '#/components/messageTraits/envelope' }],
    headers: { type: 'object', properties: { schemaversion: { const: contract.version } } },
    payload: contract.overLimit === 'claim-check' ? { anyOf: [payload, { title: 'In its place', ...claim }] } : payload,
    ...(example === undefined ? {} : { examples: [{ payload: example }] }),
  };
}
