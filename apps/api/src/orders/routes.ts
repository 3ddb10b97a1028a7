import { readEvents } from '@oncebox/event-store';
import type { Pool, Transaction } from '@oncebox/mysql';
import { Router } from 'express';
import { validate as isUuid, v7 as uuidv7 } from 'uuid';
import { invalidFields, jsonBody, parseBody } from '../body.ts';
import { notAllowed } from '../error-handler.ts';
import { idempotent } from '../idempotency/idempotent.ts';
import type { Answer } from '../idempotency/store.ts';
import { etagOf } from '../if-match.ts';
import { lineageOf } from '../lineage.ts';
import { Problem } from '../problem.ts';
import { order } from './order.ts';
import { record } from './record.ts';
import { type NewOrder, newOrder } from './schemas.ts';
import { isCustomer, pricesOf } from './store.ts';
import { viewOf } from './view.ts';

/** Milliseconds for one attempt at a write: less than a client waits, so that it learns what became of it. */
const WRITE = { timeoutMs: 10_000 };

export function orderRoutes(pool: Pool): Router {
  const routes = Router();

  routes
    .route('/orders')
    .post(...jsonBody, async (request, response) => {
      const given = parseBody(newOrder, request.body);
      const id = uuidv7();
      // 202 and not 201: what the client wants is goods, and whether there are any is decided later, by others.
      const place = async (tx: Transaction): Promise<Answer> => {
        const data = { orderId: id, ...(await priced(tx, given)) };
        const placed = { id, version: 0, state: order.initial };
        await record(tx, placed, [{ type: 'OrderPlaced', data }], lineageOf(response));
        const body = { id, status: 'placed', totalAmount: data.totalAmount };
        const headers = { location: `/orders/${id}`, 'content-type': 'application/json' };
        return { status: 202, headers, body: JSON.stringify(body) };
      };
      await idempotent(pool, request, response, place, WRITE);
    })
    .all(notAllowed('POST'));

  routes
    .route('/orders/:id')
    .get(async (request, response) => {
      const { id } = request.params;
      const found = isUuid(id) ? viewOf(id, await readEvents(pool, order, id.toLowerCase())) : undefined;
      if (found === undefined) throw new Problem('no-such-order');
      response.set('etag', etagOf(found));
      if (hasVersion(request.get('if-none-match'), found)) response.status(304).end();
      else response.json(found);
    })
    .all(notAllowed('GET', 'HEAD'));

  return routes;
}

/**
 * Not left to Express: it sends the whole order to a client that says `Cache-Control: no-cache` as well, which fetch() does by itself with
 * every If-None-Match. That header asks caches to come here, and here is the order.
 */
const hasVersion = (ifNoneMatch: string | undefined, found: { readonly version: number }): boolean =>
  ifNoneMatch?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etagOf(found)) ?? false;

/** What the client wants, with what it costs. @throws Problem invalid-fields for a customer or a SKU that is none. */
async function priced(tx: Transaction, { items, ...given }: NewOrder) {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of items) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity);
  const prices = await pricesOf(tx, [...quantities.keys()]);
  const unknown = items.flatMap(({ sku }, index) =>
    prices.has(sku) ? [] : [{ path: ['items', index, 'sku'], message: 'is no product' }],
  );
  if (!(await isCustomer(tx, given.customerId))) unknown.push({ path: ['customerId'], message: 'is no customer' });
  if (unknown.length > 0) throw invalidFields(unknown);
  const lines = Array.from(quantities, ([sku, quantity]) => ({ sku, quantity, unitPrice: prices.get(sku) ?? 0 }));
  return {
    ...given,
    items: lines,
    totalAmount: lines.reduce((sum, { quantity, unitPrice }) => sum + quantity * unitPrice, 0),
  };
}
