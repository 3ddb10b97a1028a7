import { types } from 'node:util';
import { pino } from 'pino';

/**
 * `Duplicate entry 'ada@example.com' for key 'customers.email'`: what stands in the first quotes is data. It ends at the last
 * place where the server's words could go on, because data may contain such words too.
 */
const QUOTED_DATA =
  /\b(entry|value:?|near) '(?:[\s\S]*'(?= (?:for (?:key|column|function)|at (?:row|line))\b)|[\s\S]*?'$)/g;

const withoutData = (text: unknown): unknown =>
  typeof text === 'string' ? text.replaceAll(QUOTED_DATA, "$1 '[hidden]'") : text;

/** Levels of an error's fields; one may lead back to the error, as the request of an HTTP client's error does. */
const DEEPEST = 8;

/**
 * An error as it is logged: with its causes, and without personal data. A driver's error carries the statement with the
 * parameters in it (`sql`), and the server's own message quotes the value that it refused.
 */
export function serializeError(error: unknown): unknown {
  try {
    return error instanceof Error ? clean(pino.stdSerializers.errWithCause(error), 0) : error;
  } catch {
    return bare(error);
  }
}

function clean(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return withoutData(value);
  if (depth === DEEPEST) return '[deeper]';
  if (Array.isArray(value)) return value.map((each) => clean(each, depth + 1));
  const kept = Object.entries(value).filter(
    ([name]) => name !== 'sql' && name !== 'sqlMessage' && name !== 'parameters',
  );
  return Object.fromEntries(kept.map(([name, field]) => [name, clean(field, depth + 1)]));
}

/** The bare fields of an error that pino cannot serialize: it marks what it visits, which a frozen error refuses, and fields may throw. */
function bare(error: unknown): unknown {
  try {
    if (!types.isNativeError(error)) return '[what was thrown cannot be read]';
    const { name, message, stack } = error;
    return clean({ type: name, message, stack }, 0);
  } catch {
    return '[what was thrown cannot be read]';
  }
}
