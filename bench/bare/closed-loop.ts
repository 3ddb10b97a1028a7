import { z } from 'zod';
import { report, settings } from './parent.ts';
import { post } from './post.ts';

/** So many clients that each post a customer, wait for the answer, and post the next: how much the api can take. */

const { url, clients, warmUpSeconds, seconds, mark } = settings(
  z.object({
    url: z.string(),
    clients: z.int(),
    warmUpSeconds: z.number(),
    seconds: z.number(),
    /** Part of each e-mail address, so that it is nobody else's. */
    mark: z.string(),
  }),
);

let posted = 0;
let accepted = 0;
const times: number[] = [];
const begin = performance.now() + warmUpSeconds * 1_000;
const end = begin + seconds * 1_000;

async function client(): Promise<void> {
  for (;;) {
    const start = performance.now();
    if (start >= end) return;
    posted += 1;
    const answer = await post(url, `${mark}-${posted}`);
    if (answer === undefined) continue;
    accepted += 1;
    // Those that were answered in this time, whenever they were sent: the rate is of answers.
    if (answer.at >= begin && answer.at <= end) times.push(answer.at - start);
  }
}

await Promise.all(Array.from({ length: clients }, client));
report({ posted, accepted, times });
