import { describe, expect, it } from 'vitest';
import { z } from 'zod';
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
  ])('refuses an aggregate id that is %s', (_, id) => {
    expect(() => toOutboxRow(Noted.message({ id, text: '' }))).toThrow(
      expect.objectContaining({ code: 'ONCEBOX_INVALID_PAYLOAD' }),
    );
  });
});

describe('decodeLineage', () => {
  it('takes no headers for an empty lineage, and passes over what it does not know', () => {
    expect(decodeLineage(null)).toEqual({});
    expect(decodeLineage('{"tenant":"t1"}')).toEqual({});
  });

  it.each(['{', '[]', '"x"', 'null', '{"correlationId":1}', `{"traceparent":"${'0'.repeat(256)}"}`])(
    'refuses %s, which a plain SQL writer may have left',
    (headers) => {
      expect(() => decodeLineage(headers)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_HEADERS' }));
    },
  );
});
