import { crc32 } from 'node:zlib';
import type { Received, Verdict } from '@oncebox/message';
import { inNoContext, keepContext } from './contexts.ts';
import { keyOf } from './ordered/store.ts';

/**
 * How many batches of a consumer may be under way. Each lane has one, so that the messages of a key, which all go by one lane, are
 * handled in the order of their arrival; several, so that a slow batch holds up only its lane, and one commits while another works.
 */
const LANES = 2;

interface Waiting {
  readonly received: Received;
  readonly settle: (verdict: Promise<Verdict>) => void;
}

/**
 * Collects messages into batches. There is no time to wait for more: what arrives while a batch is under way is the next one, so a
 * message that comes alone is handled at once and a flood is taken in large ones.
 *
 * @param handle resolves with a verdict for each message, in their order.
 * @param ordered an outage concerns whatever waits behind it as well, or that would be handled first when the outage is just over.
 */
export function inLanes(
  size: number,
  handle: (batch: readonly Received[]) => Promise<readonly Verdict[]>,
  ordered: boolean,
): (received: Received) => Promise<Verdict> {
  const lanes = Array.from({ length: LANES }, () => ({ waiting: [] as Waiting[], busy: false }));

  async function drain(lane: { waiting: Waiting[]; busy: boolean }): Promise<void> {
    while (lane.waiting.length > 0) {
      const batch = lane.waiting.splice(0, size);
      const verdicts = handle(batch.map(({ received }) => received));
      batch.forEach(({ settle }, index) => {
        settle(
          verdicts.then((all) => {
            const verdict = all[index];
            if (verdict === undefined) throw new Error('A batch was answered with fewer verdicts than it had messages');
            return verdict;
          }),
        );
      });
      const settled = await verdicts.catch(() => []); // each of its messages has been given the rejection
      const outage = ordered ? settled.find(({ kind }) => kind === 'unavailable') : undefined;
      if (outage !== undefined) for (const { settle } of lane.waiting.splice(0)) settle(Promise.resolve(outage));
    }
    lane.busy = false;
  }

  return (received) =>
    new Promise((settle) => {
      const lane = lanes[crc32(keyOf(received)) % LANES];
      if (lane === undefined) throw new Error(`No lane for ${received.id}`);
      keepContext(received);
      lane.waiting.push({ received, settle });
      if (lane.busy) return;
      lane.busy = true;
      // Not before this turn of the loop is over: what one read of the socket brought comes within it.
      setImmediate(() => inNoContext(() => void drain(lane)));
    });
}
