import { describe, expect, it } from 'vitest';
import { availabilityView } from '../availability/schemas.ts';
import { customer, customerChange, newCustomer } from '../customers/schemas.ts';
import { acceptedOrder, newOrder, orderView } from '../orders/schemas.ts';
import { problemSchema, problems } from '../problem.ts';
import type { MediaType } from './document.ts';
import { openApi } from './openapi.ts';
import { renderPage } from './page.ts';
import { STYLE } from './style.ts';

const operations = Object.values(openApi.paths).flatMap((methods) => Object.values(methods));
const responses = operations.flatMap((operation) => Object.entries(operation.responses));

describe('the document', () => {
  it('names no schema that it does not have, and has none that nobody names', () => {
    const text = JSON.stringify(openApi);
    const named = new Set([...text.matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name));
    expect([...named].sort()).toEqual(Object.keys(openApi.components.schemas).sort());
  });

  it('shows every problem where it can be met', () => {
    const shown = new Set(
      responses.flatMap(([, { content }]) => Object.keys(content?.['application/problem+json']?.examples ?? {})),
    );
    const elsewhere = ['no-such-resource', 'method-not-allowed'];
    expect([...shown, ...elsewhere].sort()).toEqual(Object.keys(problems).sort());
  });

  it('gives examples that fit the schemas they stand by', () => {
    const checks = {
      Customer: customer,
      NewCustomer: newCustomer,
      CustomerChange: customerChange,
      Order: orderView,
      NewOrder: newOrder,
      AcceptedOrder: acceptedOrder,
      Availability: availabilityView,
      Problem: problemSchema,
    };
    const media: MediaType[] = [
      ...responses.flatMap(([, { content }]) => Object.values(content ?? {})),
      ...operations.flatMap(({ requestBody }) => Object.values(requestBody?.content ?? {})),
    ];
    let checked = 0;
    for (const [name, schema] of Object.entries(checks)) {
      for (const { examples = {} } of media.filter((each) => each.schema.$ref === `#/components/schemas/${name}`)) {
        for (const { value } of Object.values(examples)) {
          expect(schema.strict().safeParse(value)).toMatchObject({ success: true });
          checked += 1;
        }
      }
    }
    expect(checked).toBeGreaterThan(10);
  });

  it('says the status of each problem under that status', () => {
    for (const [status, { content }] of responses) {
      for (const { value } of Object.values(content?.['application/problem+json']?.examples ?? {})) {
        expect(value).toMatchObject({ status: Number(status) });
      }
    }
  });

  it('has the rules of the schemas that requests are checked by', () => {
    expect(openApi.components.schemas['NewCustomer']).toMatchObject({
      required: ['email', 'name'],
      additionalProperties: false,
      properties: { email: { format: 'email', maxLength: 254 }, name: { minLength: 1, maxLength: 200 } },
    });
    expect(openApi.components.schemas['CustomerChange']).toMatchObject({
      minProperties: 1,
      additionalProperties: false,
    });
  });
});

describe('the page', () => {
  const page = renderPage(openApi, STYLE);

  it('has a place for each operation and each schema', () => {
    for (const { operationId } of operations) expect(page).toContain(`<section id="${operationId}">`);
    for (const name of Object.keys(openApi.components.schemas)) expect(page).toContain(`<section id="${name}">`);
  });

  it('loads nothing and runs nothing', () => {
    expect(page).not.toMatch(/<(script|link|img|iframe|object|embed)\b|\bsrc=|@import|url\(|\son\w+=/);
  });

  it('shows text of the document as text', () => {
    const hostile = { ...openApi, info: { ...openApi.info, title: '<script>"&\'' } };
    expect(renderPage(hostile, STYLE)).toContain('<h1>&lt;script&gt;&quot;&amp;&#39;</h1>');
  });
});
