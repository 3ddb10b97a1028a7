import express, { type Request, type RequestHandler } from 'express';
import type { z } from 'zod';
import { Problem } from './problem.ts';

const raw = express.raw({ type: () => true, limit: '100kb', inflate: false });
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** `application/json`, with `charset=utf-8` or nothing, which means the same: JSON has no other encoding (RFC 8259). */
const JSON_TYPE = /^application\/json\s*(;\s*charset=("utf-8"|utf-8)\s*)?;?\s*$/i;

const bodies = new WeakMap<Request, Buffer>();

/** The body as it was sent, of a request that has passed `jsonBody`. */
export function bytesOf(request: Request): Buffer {
  const bytes = bodies.get(request);
  if (bytes === undefined) throw new Error('jsonBody must be before the handler of this route');
  return bytes;
}

/**
 * Reads the body as JSON, any JSON: what shape it must have is for the resource to say.
 *
 * Not express.json(): it leaves a body of another type unread as if there were none, takes an empty one for `{}`, and
 * replaces bytes that are not UTF-8 instead of refusing them.
 */
export const jsonBody: RequestHandler[] = [
  (request, _response, next) => {
    if (!JSON_TYPE.test(request.get('content-type') ?? '')) {
      throw new Problem('unsupported-media-type', { headers: { accept: 'application/json' } });
    }
    next();
  },
  raw,
  (request, _response, next) => {
    const bytes = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    bodies.set(request, bytes);
    try {
      request.body = JSON.parse(utf8.decode(bytes));
    } catch {
      // Not as the cause, nor its message: V8 quotes the text, which is personal data.
      throw new Problem('malformed-json');
    }
    next();
  },
];

/**
 * @throws Problem invalid-fields, with one entry for each field that is wrong, missing or not known.
 */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw invalidFields(
    parsed.error.issues.flatMap(({ path, message, ...issue }) =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((key) => ({ path: [...path, key], message: 'is not a field of this resource' }))
        : [{ path, message }],
    ),
  );
}

/** One entry for each field, by its path in the body; of several about one field, the first. */
export function invalidFields(found: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[]) {
  const errors = new Map<string, { pointer: string; field: string; message: string }>();
  for (const { path, message } of found) {
    const field = path.map(String).join('/');
    if (!errors.has(field)) errors.set(field, { pointer: pointerTo(path), field, message });
  }
  const entries = [...errors.values()];
  const named = entries.map(({ field, message }) => `${field === '' ? 'the body' : field} ${message}`).join('; ');
  return new Problem('invalid-fields', { detail: `Nothing was changed: ${named}.`, errors: entries });
}

const pointerTo = (path: readonly PropertyKey[]): string =>
  ['#', ...path.map((part) => encodeURIComponent(String(part).replaceAll('~', '~0').replaceAll('/', '~1')))].join('/');
