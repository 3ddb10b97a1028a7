import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { claimFor } from './claim.ts';
import { defineMessage } from './contract.ts';
import { MessageError } from './errors.ts';
import { decodeLineage, toOutboxRow } from './row.ts';

const Noted = defineMessage({
  type: 'Noted',
  version: 3,
  aggregateType: 'note',
  aggregateId: ({ id }) => id,
  routingKey: 'note.noted',
  payload: z.strictObject({ text: z.string(), id: z.string() }),
});

describe('toOutboxRow', () => {
  it('writes the payload in the order of its contract and every other character as it is', () => {
    const row = toOutboxRow(Noted.message({ id: 'n1', text: 'Zoë 🚚 \u2028 "quoted" 9007199254740993' }));
    expect(row.payload).toBe('{"text":"Zoë 🚚 \u2028 \\"quoted\\" 9007199254740993","id":"n1"}');
    expect(row).toMatchObject({
      aggregatetype: 'note',
      aggregateid: 'n1',
      type: 'Noted',
      version: 3,
      exchange: 'oncebox.events',
      routing_key: 'note.noted',
      headers: null,
    });
  });

  it('keeps the lineage in the headers, and reads it back', () => {
    const lineage = { correlationId: 'c1', causationId: 'm0', traceparent: '00-ab-cd-01' };
    const row = toOutboxRow(Noted.message({ id: 'n1', text: '' }, lineage));
    expect(decodeLineage(row.headers)).toEqual(lineage);
  });

  it('refuses a payload that its contract rejects, names the field, and quotes no value', () => {
    // What a caller without types could pass.
    const payload: { id: string; text: string } = JSON.parse('{"id":"n1","text":42,"secret":"canary"}');
    const attempt = (): unknown => toOutboxRow(Noted.message(payload));
    expect(attempt).toThrow(MessageError);
    expect(attempt).toThrow(/text: /);
    expect(attempt).not.toThrow(/canary/);
  });

  it.each([
    ['empty', ''],
    ['too long for its column', 'n'.repeat(256)],
    ['too long for its column, in code points', '🚚'.repeat(256)],
    ['not well-formed', 'n\ud800'],
    ['damaged', 'n\ufffd'],
  ])('refuses an aggregate id that is %s', (_, id) => {
    expect(() => toOutboxRow(Noted.message({ id, text: '' }))).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_PAYLOAD' }),
    );
  });
});

const noted = { id: 'n1', text: '' };

describe('toOutboxRow, beside the payload', () => {
  it('takes a key of 255 code points', () => {
    const id = '🚚'.repeat(255);
    expect(toOutboxRow(Noted.message({ id, text: '' })).aggregateid).toBe(id);
  });

  it('refuses an aggregate id that is no text, or that cannot be made', () => {
    const withKey = (aggregateId: () => string) => defineMessage({ ...Noted, payload: Noted.schema, aggregateId });
    const keys = [withKey(() => JSON.parse('5')), withKey(() => expect.fail('no key'))];
    for (const contract of keys) {
      expect(() => toOutboxRow(contract.message(noted))).toThrow(
        expect.objectContaining({ code: 'ONCEBOX_INVALID_PAYLOAD' }),
      );
    }
  });

  it.each(['', 'n'.repeat(37), 'é', 'a\n', 'n '])(
    'refuses the message id %j, which its column would not give back',
    (id) => {
      expect(() => toOutboxRow({ ...Noted.message(noted), id })).toThrow(
        expect.objectContaining({ code: 'ONCEBOX_INVALID_HEADERS' }),
      );
    },
  );

  it.each<[string, object]>([
    ['is no text', { correlationId: 5 }],
    ['is empty', { correlationId: '' }],
    ['is over 255 bytes', { correlationId: 'é'.repeat(128) }],
    ['is not well-formed', { causationId: '\ud800' }],
    ['is damaged', { causationId: '\ufffd' }],
    ['is none of its ids', { tenant: 't1' }],
  ])('refuses a lineage with what %s', (_, lineage) => {
    expect(() => toOutboxRow(Noted.message(noted, lineage))).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_HEADERS' }),
    );
  });

  it('leaves out a trace context that is too long to be carried on', () => {
    const row = toOutboxRow(Noted.message(noted, { correlationId: 'c1', traceparent: '0'.repeat(256) }));
    expect(row.headers).toBe('{"correlationId":"c1"}');
  });

  it('refuses what a reader would take for a claim check, and an id that nobody could claim a payload by', () => {
    const Claimed = defineMessage({
      ...Noted,
      payload: z.any(),
      aggregateId: () => 'n',
      overLimit: 'claim-check',
      maxBytes: 9,
    });
    const message = Claimed.message('over the limit');
    expect(toOutboxRow(message).payload).toBe('"over the limit"');
    const posing = Claimed.message(JSON.parse(claimFor(message.id, 'x')));
    for (const each of [{ ...message, id: 'n1' }, posing]) {
      expect(() => toOutboxRow(each)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_PAYLOAD' }));
    }
  });
});

describe('decodeLineage', () => {
  it('takes no headers for an empty lineage, and passes over what it does not know', () => {
    expect(decodeLineage(null)).toEqual({});
    expect(decodeLineage('{"tenant":"t1","correlationId":""}')).toEqual({});
  });

  it.each([
    '{',
    '[]',
    '"x"',
    'null',
    '{"correlationId":1}',
    `{"traceparent":"${'0'.repeat(256)}"}`,
    `{"correlationId":"${'é'.repeat(128)}"}`,
  ])('refuses %s, which a plain SQL writer may have left', (headers) => {
    expect(() => decodeLineage(headers)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_HEADERS' }));
  });
});
