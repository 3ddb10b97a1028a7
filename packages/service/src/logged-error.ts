import { pino } from 'pino';

/**
 * `Duplicate entry 'ada@example.com' for key 'customers.email'`: what stands in the first quotes is data. It ends at the last
 * place where the server's words could go on, because data may contain such words too.
 */
const QUOTED_DATA =
  /\b(entry|value:?|near) '(?:[\s\S]*'(?= (?:for (?:key|column|function)|at (?:row|line))\b)|[\s\S]*?'$)/g;

const withoutData = (text: unknown): unknown =>
  typeof text === 'string' ? text.replaceAll(QUOTED_DATA, "$1 '[hidden]'") : text;

/**
 * An error as it is logged: with its causes, and without personal data. A driver's error carries the statement with the
 * parameters in it (`sql`), and the server's own message quotes the value that it refused.
 */
export function serializeError(error: unknown): unknown {
  return error instanceof Error ? clean(pino.stdSerializers.errWithCause(error)) : error;
}

function clean(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value !== 'object' || value === null) return withoutData(value);
  const kept = Object.entries(value).filter(
    ([name]) => name !== 'sql' && name !== 'sqlMessage' && name !== 'parameters',
  );
  return Object.fromEntries(kept.map(([name, field]) => [name, clean(field)]));
}
