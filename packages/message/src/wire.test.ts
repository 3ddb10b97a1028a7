import { describe, expect, it } from 'vitest';
import { causedBy } from './contract.ts';
import { decodeLineage, encodeLineage } from './row.ts';
import { fromWire, type OutgoingMessage, toWire } from './wire.ts';

const outgoing: OutgoingMessage = {
  id: '019a0000-0000-7000-8000-000000000001',
  type: 'Noted',
  version: 3,
  aggregateId: 'n1',
  partition: 7,
  payload: '{"b":1,"a":9007199254740993,"c":"🚚"}',
  lineage: { correlationId: 'c1', causationId: 'm0', traceparent: '00-ab-cd-01' },
  exchange: 'oncebox.events',
  routingKey: 'note.noted',
  mandatory: true,
  source: 'shop',
  occurredAt: new Date('2026-11-21T10:20:30.456Z'),
};

describe('toWire', () => {
  it('sends the payload byte for byte, persistent, with CloudEvents headers and a timestamp in seconds', () => {
    const { body, properties } = toWire(outgoing);
    expect(body).toEqual(Buffer.from(outgoing.payload));
    expect(properties).toEqual({
      persistent: true,
      messageId: outgoing.id,
      type: 'Noted',
      contentType: 'application/json',
      timestamp: 1_795_256_430,
      appId: 'shop',
      correlationId: 'c1',
      headers: {
        'cloudEvents:specversion': '1.0',
        'cloudEvents:id': outgoing.id,
        'cloudEvents:source': 'shop',
        'cloudEvents:type': 'Noted',
        'cloudEvents:time': '2026-11-21T10:20:30.456Z',
        'cloudEvents:subject': 'n1',
        schemaversion: 3,
        partition: '7',
        traceparent: '00-ab-cd-01',
        causationid: 'm0',
      },
    });
  });

  it('leaves out what a message has not', () => {
    const { properties } = toWire({ ...outgoing, lineage: {} });
    expect(properties).not.toHaveProperty('correlationId');
    expect(properties.headers).not.toHaveProperty('traceparent');
    expect(properties.headers).not.toHaveProperty('causationid');
  });
});

describe('fromWire', () => {
  const { body: content, properties } = toWire(outgoing);

  it('reads back what was sent', () => {
    expect(fromWire({ content, properties, routingKey: 'note.noted' })).toEqual({
      id: outgoing.id,
      type: 'Noted',
      version: 3,
      payload: outgoing.payload,
      lineage: outgoing.lineage,
      aggregateId: 'n1',
      source: 'shop',
      occurredAt: outgoing.occurredAt,
      routingKey: 'note.noted',
    });
  });

  it.each([
    ['an id', { ...properties, messageId: undefined }],
    ['an id that is not empty', { ...properties, messageId: '' }],
    ['an id that the inbox can hold', { ...properties, messageId: 'é'.repeat(128) }],
    ['a type', { ...properties, type: undefined }],
    ['a version', { ...properties, headers: {} }],
    ['an id that is UTF-8', { ...properties, messageId: '\ufffda' }],
    ['an id that is well-formed', { ...properties, messageId: '\ud800' }],
    ['a type that is UTF-8', { ...properties, type: 'Not\ufffd' }],
    ['a type that the columns hold', { ...properties, type: 'é'.repeat(128) }],
    ['a key that is UTF-8', { ...properties, headers: { ...properties.headers, 'cloudEvents:subject': '\ufffd' } }],
    [
      'a key that the columns hold',
      { ...properties, headers: { ...properties.headers, 'cloudEvents:subject': '🚚'.repeat(256) } },
    ],
  ])('refuses a message without %s', (_, stripped) => {
    expect(() => fromWire({ content, properties: stripped, routingKey: 'note.noted' })).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_MALFORMED_MESSAGE' }),
    );
  });

  it('refuses a body and a routing key that are not UTF-8', () => {
    const latin1 = Buffer.from('"Zoë"', 'latin1');
    expect(() => fromWire({ content: latin1, properties, routingKey: 'x' })).toThrow('The body is not UTF-8');
    expect(() => fromWire({ content, properties, routingKey: '\ufffd' })).toThrow('The routing key is not UTF-8');
  });

  it('takes a key of 255 code points, and drops what a message that it causes could not carry on', () => {
    const subject = '🚚'.repeat(255);
    const long = 'x'.repeat(256);
    const headers = { schemaversion: 3, 'cloudEvents:subject': subject, causationid: long, traceparent: long };
    const foreign = { messageId: 'é'.repeat(127), type: 'Noted', correlationId: '\ufffd', headers };
    const received = fromWire({ content, properties: foreign, routingKey: 'note.noted' });
    expect(received).toMatchObject({ id: foreign.messageId, aggregateId: subject, lineage: {} });
    expect(decodeLineage(encodeLineage(causedBy(received)))).toEqual({ causationId: foreign.messageId });
  });
});
