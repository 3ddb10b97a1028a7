import { setTimeout as delay } from 'node:timers/promises';
import { quantity, sku } from '@oncebox/contracts';
import { NonRetryableError } from '@oncebox/inbox';
import type { Lineage } from '@oncebox/message';
import { z } from 'zod';

/** What we read of an order; whatever else the api says of it may change without us. */
const orderRead = z.object({
  items: z.array(z.object({ sku, quantity })),
  totalAmount: z.int().min(0),
});
export type OrderRead = z.output<typeof orderRead>;

export interface OrdersApi {
  /**
   * An order as it is now. Concurrent calls for one order share a request, which is why none of them can abort it: it has a
   * time-out of its own.
   *
   * @param lineage of the message for which it is asked: the api's log and traces name it. Of calls that share a request, the first's.
   * @throws OrderNotFoundError when the api knows no such order.
   * @throws OrdersApiError, or what fetch() throws, when three attempts got no usable answer.
   */
  order(orderId: string, lineage?: Lineage): Promise<OrderRead>;
}

/**
 * Dead at once: the api answers from the order's own events, which were there before anything was announced, so no later attempt
 * finds them. The dead letter can be replayed once the wrong URL is corrected, which is the likely reason.
 */
export class OrderNotFoundError extends NonRetryableError {}

/** An answer that is no order. */
export class OrdersApiError extends Error {
  override readonly name = 'OrdersApiError';
  readonly code: string;

  constructor(status: number) {
    super(`The api answered ${status}`);
    this.code = `HTTP_${status}`;
  }
}

/** What a header can hold: the ids of a message may be anybody's. */
const HEADER_VALUE = /^[\x21-\x7e]{1,128}$/;
const headersOf = ({ correlationId = '', traceparent = '' }: Lineage): Record<string, string> => ({
  ...(HEADER_VALUE.test(correlationId) ? { 'x-correlation-id': correlationId } : {}),
  ...(HEADER_VALUE.test(traceparent) ? { traceparent } : {}),
});

/** Milliseconds before the second and the third attempt. What is away for longer is for the consumer's own retries. */
const PAUSES_MS = [100, 400];
/** Orders whose last answer is kept, to be asked for again only if they have changed. */
const REMEMBERED = 1_000;

/**
 * @param url of the api; with a path, `/orders` is below it.
 * @param timeoutMs milliseconds for one attempt.
 */
export function ordersApi(url: string, timeoutMs = 5_000): OrdersApi {
  const orders = new URL('orders/', url.endsWith('/') ? url : `${url}/`);
  const remembered = new Map<string, { readonly etag: string; readonly order: OrderRead }>(); // least recently used first
  const underWay = new Map<string, Promise<OrderRead>>();

  const remember = (id: string, etag: string, order: OrderRead): OrderRead => {
    remembered.delete(id);
    remembered.set(id, { etag, order });
    for (const oldest of remembered.keys()) {
      if (remembered.size <= REMEMBERED) break;
      remembered.delete(oldest);
    }
    return order;
  };

  const attempt = async (id: string, lineage: Lineage): Promise<OrderRead> => {
    const known = remembered.get(id);
    const response = await fetch(new URL(id, orders), {
      headers: {
        accept: 'application/json',
        ...headersOf(lineage),
        ...(known === undefined ? {} : { 'if-none-match': known.etag }),
      },
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (response.status === 200) {
      const order = orderRead.parse(await response.json());
      const etag = response.headers.get('etag');
      return etag === null ? order : remember(id, etag, order);
    }
    await response.body?.cancel(); // or its connection stays taken
    if (response.status === 304 && known !== undefined) return remember(id, known.etag, known.order);
    if (response.status === 404) throw new OrderNotFoundError();
    throw new OrdersApiError(response.status);
  };

  const insist = async (id: string, lineage: Lineage): Promise<OrderRead> => {
    for (const pause of PAUSES_MS) {
      try {
        return await attempt(id, lineage);
      } catch (error) {
        if (error instanceof NonRetryableError) throw error;
        await delay(pause * (0.5 + Math.random()));
      }
    }
    return await attempt(id, lineage);
  };

  return {
    order(id, lineage = {}) {
      const shared = underWay.get(id);
      if (shared !== undefined) return shared;
      const asked = insist(id, lineage).finally(() => underWay.delete(id));
      underWay.set(id, asked);
      return asked;
    },
  };
}
