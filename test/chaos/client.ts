import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Told } from '../support/invariants.ts';

/** What the clients were told, in the terms of the invariants. It grows while they work. */
export interface Journal extends Told {
  readonly accepted: Set<string>;
  readonly refused: Set<string>;
  readonly unknown: Set<string>;
  readonly versions: Map<string, number>;
  /** When the client was told of a change, `<id> v<version>`, in milliseconds since 1970. */
  readonly answered: Map<string, number>;
  /** Requests that had no answer, or one that asks to try again. */
  retries: number;
}

export const newJournal = (): Journal => ({
  accepted: new Set(),
  refused: new Set(),
  unknown: new Set(),
  versions: new Map(),
  answered: new Map(),
  retries: 0,
});

export interface Asking {
  /** Where an api listens right now; undefined when none does. */
  readonly url: () => string | undefined;
  readonly journal: Pick<Journal, 'retries'>;
  readonly random: () => number;
  /** Milliseconds of thought after each request, at most. */
  readonly thinkMs: number;
}

export interface ClientSettings extends Asking {
  readonly journal: Journal;
  /** Tells its customers from those of other clients. */
  readonly name: string;
  /** Customers to post; default: until `signal`. */
  readonly customers?: number;
  /** Changes of each, at most; default 3. */
  readonly changes?: number;
  /** Begin no other customer. */
  readonly signal: AbortSignal;
}

const answer = z.object({
  id: z.string().optional(),
  version: z.number().optional(),
  type: z.string().optional(),
});
type Answer = { readonly status: number } & z.infer<typeof answer>;

const PATIENCE_MS = 120_000;
/** Longer than the api's own deadline for a write. */
const TIMEOUT_MS = 15_000;

/**
 * A client as it should be: it names an Idempotency-Key, sends a request without a definite answer again, and writes down what it
 * was told. Some customers are changed, some requests are not valid, some name an address that is taken.
 *
 * @throws Error at an answer that contradicts what it was told before.
 */
export async function runClient(settings: ClientSettings): Promise<void> {
  const { journal, random, name, signal, customers = Number.POSITIVE_INFINITY, changes = 3 } = settings;
  for (let n = 0; n < customers && !signal.aborted; n += 1) {
    const email = `${name}-${n}@example.com`;
    if (random() < 0.02) await beRefused(settings, `refused-${email}`);
    const key = randomUUID();
    const body = { email, name: `Customer ${n} of ${name}` };
    journal.unknown.add(email);
    const created = await ask(settings, 'POST', '/customers', body, { 'idempotency-key': key });
    if (created === 'unknown') continue;
    const { status, id } = created;
    if (status !== 201 || id === undefined) throw new Error(`POST ${email}: ${status} ${created.type}`);
    journal.accepted.add(id);
    journal.answered.set(`${id} v1`, Date.now());
    journal.unknown.delete(email);
    if (random() < 0.05) await repeat(settings, id, key, body);
    const last = Math.floor(random() * (changes + 1));
    for (let version = 1; version <= last && !signal.aborted; version += 1) {
      if (!(await change(settings, id, version))) break;
    }
  }
}

/** Both must leave nothing behind. */
async function beRefused(settings: ClientSettings, email: string): Promise<void> {
  const invalid = await ask(settings, 'POST', '/customers', { email, name: '' });
  if (invalid !== 'unknown' && invalid.status !== 422) throw new Error(`An invalid POST: ${invalid.status}`);
  settings.journal.refused.add(email);
}

/** The same request again is the same customer; the same address under another key is a conflict. */
async function repeat(settings: ClientSettings, id: string, key: string, body: object): Promise<void> {
  const again = await ask(settings, 'POST', '/customers', body, { 'idempotency-key': key });
  if (again !== 'unknown' && again.id !== id)
    throw new Error(`POST repeated: ${again.status}, ${again.id} after ${id}`);
  const taken = await ask(settings, 'POST', '/customers', body, { 'idempotency-key': randomUUID() });
  if (taken !== 'unknown' && taken.status !== 409) throw new Error(`A taken address: ${taken.status}`);
}

/** @returns false when its fate is unknown. */
async function change(settings: ClientSettings, id: string, version: number): Promise<boolean> {
  const path = `/customers/${id}`;
  const headers = { 'if-match': `"${version}"` };
  const changed = await ask(settings, 'PATCH', path, { name: `Version ${version + 1}` }, headers);
  if (changed === 'unknown') return false;
  if (changed.status === 412) {
    // Nobody else changes this customer: an earlier try of this request has arrived.
    const now = await ask(settings, 'GET', path);
    if (now === 'unknown') return false;
    if (now.version !== version + 1) throw new Error(`PATCH ${id}: stale at v${version}, and it is v${now.version}`);
  } else if (changed.status !== 200 || changed.version !== version + 1) {
    throw new Error(`PATCH ${id} at v${version}: ${changed.status} v${changed.version}`);
  }
  settings.journal.versions.set(id, version + 1);
  settings.journal.answered.set(`${id} v${version + 1}`, Date.now());
  return true;
}

/** Tries until there is a definite answer, or no patience left. */
export async function ask(
  { url, journal, random, thinkMs }: Asking,
  method: 'GET' | 'POST' | 'PATCH',
  path: string,
  body?: object,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer | 'unknown'> {
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    const api = url();
    const given = api === undefined ? undefined : await request(`${api}${path}`, method, body, headers);
    if (given !== undefined && given.status < 500 && !given.type?.endsWith('request-in-progress')) {
      await sleep(random() * thinkMs);
      return given;
    }
    journal.retries += 1;
    await sleep(50 + random() * 300);
  }
  return 'unknown';
}

async function request(
  url: string,
  method: string,
  body: object | undefined,
  headers: Readonly<Record<string, string>>,
): Promise<Answer | undefined> {
  try {
    const response = await fetch(url, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, ...answer.parse(await response.json()) };
  } catch {
    return undefined; // no connection, or a broken one: the outcome is unknown
  }
}
