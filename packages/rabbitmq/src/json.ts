import { utf8TextOf } from '@oncebox/message';

/**
 * What a body says as JSON; undefined, which is no JSON value, for one that is no JSON in UTF-8.
 */
export function readJson(body: Buffer): unknown {
  const text = utf8TextOf(body);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
