import specification from '@asyncapi/specs/schemas/3.0.0-without-$id.json' with { type: 'json' };
import { toWire } from '@oncebox/message';
import { Ajv } from 'ajv';
import { describe, expect, it, test } from 'vitest';
import { parse } from 'yaml';
import * as exported from '../index.ts';
import { asyncApi, ENVELOPE } from './asyncapi.ts';
import { breakage, committedAsyncApi, committedSchemas, examples, staleness } from './committed.ts';
import { contractsIn, nameOf } from './schema.ts';

const contracts = contractsIn(exported);
const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });

test('the contracts are as committed, and their readers do not break', () => {
  expect(breakage(contracts).join('\n')).toBe('');
  expect(staleness(contracts)).toEqual([]);
});

const isValid = ajv.compile(specification);

test('docs/asyncapi.yaml is a document of AsyncAPI 3.0', () => {
  isValid(parse(committedAsyncApi()));
  expect(isValid.errors).toBeNull();
  // It refuses what is none.
  expect(isValid({ ...parse(committedAsyncApi()), channels: [] })).toBe(false);
});

test('every header that a message is sent with is documented', () => {
  const { properties } = toWire({
    id: '019a0000-0000-7000-8000-000000000001',
    type: 'Noted',
    version: 1,
    aggregateId: 'n1',
    partition: 7,
    payload: '{}',
    lineage: { correlationId: 'c1', causationId: 'm0', traceparent: '00-ab-cd-01' },
    exchange: 'oncebox.events',
    routingKey: 'note.noted',
    mandatory: true,
    source: 'shop',
    occurredAt: new Date(),
  });
  const documented = [...Object.keys(ENVELOPE.headers.properties), 'schemaversion']; // the version is each message's own
  expect(documented).toEqual(expect.arrayContaining(Object.keys(properties.headers)));
});

test('a payload that may be claimed is documented with what is sent in its place', () => {
  const claimed = { ...exported.OrderPlaced, overLimit: 'claim-check' } as const;
  const document = parse(asyncApi([claimed], new Map()));
  isValid(document);
  expect(isValid.errors).toBeNull();
  const { payload } = document.components.messages['OrderPlaced.v1'];
  expect(payload.anyOf).toMatchObject([{ title: 'OrderPlaced v1' }, { required: ['claimCheck'] }]);
});

describe('payloads that were recorded', () => {
  it('are there of every version of a message that has several', () => {
    const several = contracts.filter(({ type }) => contracts.filter((other) => other.type === type).length > 1);
    expect(several.length).toBeGreaterThan(0);
    expect([...examples().keys()]).toEqual(expect.arrayContaining(several.map(nameOf)));
  });

  it.each([...examples()])('%s passes its contract and its committed schema', (name, payload) => {
    const contract = contracts.find((each) => nameOf(each) === name);
    expect(contract?.read(contract.version, payload)).toEqual(payload);
    const validate = ajv.compile(committedSchemas().get(name) ?? false);
    validate(payload);
    expect(validate.errors).toBeNull();
  });

  it('CustomerCreated v1 is read as a v2 in English', () => {
    const v1 = examples().get('CustomerCreated.v1');
    expect(exported.CustomerCreated.read(1, v1)).toEqual({ ...v1, language: 'en' });
  });
});
