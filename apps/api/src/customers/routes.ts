import { type Pool, type Transaction, transaction } from '@oncebox/mysql';
import { outbox } from '@oncebox/outbox';
import { type Response, Router } from 'express';
import { validate as isUuid, v7 as uuidv7 } from 'uuid';
import { jsonBody, parseBody } from '../body.ts';
import { notAllowed } from '../error-handler.ts';
import { idempotent } from '../idempotency/idempotent.ts';
import type { Answer } from '../idempotency/store.ts';
import { etagOf, versionOf } from '../if-match.ts';
import { lineageOf } from '../lineage.ts';
import { Problem } from '../problem.ts';
import { type CreatedVersion, created, languageOf, updated } from './announcement.ts';
import { type Customer, customerChange, newCustomer } from './schemas.ts';
import { EmailTakenError, find, insert, update } from './store.ts';

/** Milliseconds for one attempt at a write: less than a client waits, so that it learns what became of it. */
const WRITE = { timeoutMs: 10_000 };

const noSuchCustomer = () => new Problem('no-such-customer');

const send = (response: Response, customer: Customer) => response.set('etag', etagOf(customer)).json(customer);

export function customerRoutes(pool: Pool, createdVersion: CreatedVersion): Router {
  const routes = Router();

  routes
    .route('/customers')
    .post(...jsonBody, async (request, response) => {
      const given = parseBody(newCustomer, request.body);
      const id = uuidv7();
      const language = languageOf(request);
      const create = async (tx: Transaction): Promise<Answer> => {
        const customer = await insert(tx, id, given);
        await outbox.add(tx, created(customer, language, createdVersion, lineageOf(response)));
        const headers = { location: `/customers/${id}`, etag: etagOf(customer), 'content-type': 'application/json' };
        return { status: 201, headers, body: JSON.stringify(customer) };
      };
      await idempotent(pool, request, response, create, WRITE).catch(explainTaken);
    })
    .all(notAllowed('POST'));

  routes
    .route('/customers/:id')
    .get(async (request, response) => {
      const { id } = request.params;
      const found = isUuid(id) ? await find(pool, id) : undefined;
      if (found === undefined) throw noSuchCustomer();
      send(response, found);
    })
    .patch(...jsonBody, async (request, response) => {
      const id = String(request.params['id']);
      const version = versionOf(request.get('if-match'));
      const change = parseBody(customerChange, request.body);
      if (!isUuid(id)) throw noSuchCustomer();
      const changed = await transaction(
        pool,
        async (tx) => {
          const customer = await update(tx, id, version, change);
          if (customer === 'missing') throw noSuchCustomer();
          if (customer === 'stale') throw new Problem('stale-version');
          // Also when the values are the same as before: to find that out would take a read under the lock for every change,
          // and the new version tells a client that repeats an unanswered PATCH that the first one arrived.
          await outbox.add(tx, updated(customer, lineageOf(response)));
          return customer;
        },
        WRITE,
      ).catch(explainTaken);
      send(response, changed);
    })
    .all(notAllowed('GET', 'HEAD', 'PATCH'));

  return routes;
}

function explainTaken(error: unknown): never {
  if (!(error instanceof EmailTakenError)) throw error;
  const errors = [{ pointer: '#/email', field: 'email', message: 'is taken' }];
  throw new Problem('email-taken', { errors });
}
