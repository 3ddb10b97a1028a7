import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { OrderNotFoundError, OrdersApiError, ordersApi } from './orders-api.ts';

/** Against a real HTTP server that plays the api. */

type Respond = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(...answers: readonly Respond[]) {
  const requests: { readonly url: string | undefined; readonly ifNoneMatch: string | undefined }[] = [];
  const server = createServer((request, response) => {
    const respond = answers[Math.min(requests.length, answers.length - 1)];
    requests.push({ url: request.url, ifNoneMatch: request.headers['if-none-match'] });
    respond?.(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // it listens on TCP
  return { url: `http://127.0.0.1:${port}`, requests };
}

const order = (version: number) => ({ items: [{ sku: 'SKU-1', quantity: version }], totalAmount: 100 * version });
const found =
  (version: number): Respond =>
  (_request, response) =>
    response.setHeader('etag', `"${version}"`).end(JSON.stringify({ ...order(version), status: 'confirmed', version }));
const status =
  (code: number): Respond =>
  (_request, response) =>
    response.writeHead(code).end();
const silence: Respond = () => undefined;

test('many calls for one order at the same time make one request', async () => {
  const { url, requests } = await serve(found(1));
  const api = ordersApi(url);
  const orders = await Promise.all(Array.from({ length: 20 }, () => api.order('a')));
  expect(orders).toEqual(Array.from({ length: 20 }, () => order(1)));
  expect(requests).toEqual([{ url: '/orders/a', ifNoneMatch: undefined }]);
  await Promise.all([api.order('a'), api.order('b')]);
  expect(requests).toHaveLength(3);
});

test('an order that is known is asked for by its ETag, and is the new one where it has changed', async () => {
  const { url, requests } = await serve(found(1), status(304), found(2), status(304));
  const api = ordersApi(`${url}/api`);
  const versions = [];
  for (let call = 0; call < 4; call++) versions.push(await api.order('a'));
  expect(versions).toEqual([order(1), order(1), order(2), order(2)]);
  expect(requests.map(({ ifNoneMatch }) => ifNoneMatch)).toEqual([undefined, '"1"', '"1"', '"2"']);
  expect(requests[0]?.url).toBe('/api/orders/a');
});

test('an order that the api does not know is given up at once', async () => {
  const { url, requests } = await serve(status(404));
  await expect(ordersApi(url).order('a')).rejects.toThrow(OrderNotFoundError);
  expect(requests).toHaveLength(1);
});

test('an api that fails for a moment, or does not answer, is asked again', async () => {
  const { url, requests } = await serve(status(503), silence, found(1));
  expect(await ordersApi(url, 1_000).order('a')).toEqual(order(1));
  expect(requests).toHaveLength(3);
});

test.each([
  { what: 'fails', respond: status(503), error: OrdersApiError },
  { what: 'never answers', respond: silence, error: DOMException },
  {
    what: 'answers what is no order',
    respond: (_request: IncomingMessage, response: ServerResponse) => response.end('{}'),
    error: Error,
  },
])('an api that $what is asked three times, and may be asked again later', async ({ respond, error }) => {
  const { url, requests } = await serve(respond);
  const api = ordersApi(url, 500);
  await expect(api.order('a')).rejects.toThrow(error);
  expect(requests).toHaveLength(3);
  await expect(api.order('a')).rejects.toThrow(error);
  expect(requests).toHaveLength(6);
});

test('the request says what it belongs to, as far as a header can hold it', async () => {
  const seen: IncomingMessage['headers'][] = [];
  const { url } = await serve((request, response) => {
    seen.push(request.headers);
    found(1)(request, response);
  });
  const api = ordersApi(url);
  await api.order('a', { correlationId: 'order-4711', causationId: 'm1', traceparent: '00-ab-cd-01' });
  await api.order('b', { correlationId: '🚚', traceparent: 'x'.repeat(200) });
  expect(seen[0]).toMatchObject({ 'x-correlation-id': 'order-4711', traceparent: '00-ab-cd-01' });
  expect(seen[1]).not.toHaveProperty('x-correlation-id');
  expect(seen[1]).not.toHaveProperty('traceparent');
});
