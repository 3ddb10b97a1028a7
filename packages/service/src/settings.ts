import { z } from 'zod';

/** An integer within bounds, both included. */
export const integer = (minimum: number, maximum: number, byDefault: number) =>
  z
    .string()
    .refine((text) => /^\d{1,15}$/.test(text) && Number(text) >= minimum && Number(text) <= maximum, {
      error: `must be an integer from ${minimum} to ${maximum}`,
    })
    .transform(Number)
    .default(byDefault);

/** A number from 0 to 1. */
export const share = (byDefault: number) =>
  z
    .string()
    .refine((text) => /^\d(\.\d{1,9})?$/.test(text) && Number(text) <= 1, { error: 'must be a number from 0 to 1' })
    .transform(Number)
    .default(byDefault);

/** A TCP port to listen on; 0 takes any that is free. */
export const port = (byDefault: number) => integer(0, 65_535, byDefault);

export const flag = (byDefault: boolean) =>
  z
    .stringbool({
      truthy: ['true', '1', 'on'],
      falsy: ['false', '0', 'off'],
      error: 'must be true, false, 1, 0, on or off',
    })
    .default(byDefault);

function isUrl(text: string, protocols: readonly string[]): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !protocols.includes(url.protocol) || url.hostname === '') return undefined;
  try {
    // A bare % in a password parses as a URL, and throws where the driver decodes it.
    decodeURIComponent(url.username + url.password + url.pathname);
    return url;
  } catch {
    return undefined;
  }
}

const isDatabaseUrl = (text: string): boolean => (isUrl(text, ['mysql:', 'mysqls:'])?.pathname.length ?? 0) > 1;
const isAmqpUrl = (text: string): boolean => isUrl(text, ['amqp:', 'amqps:']) !== undefined;

const list = (form: string, accepts: (text: string) => boolean) => {
  const error = `must read ${form}, or several of these separated by commas, with reserved characters in names and passwords percent-encoded`;
  return z
    .string({ error })
    .transform((text) => text.split(',').map((part) => part.trim()))
    .refine((parts) => parts.every(accepts), { error });
};

const DATABASE_FORM = 'mysql://user:password@host:port/schema';

/** The URL of one schema. Its form alone is checked: the pool reads it. */
export const databaseUrl = () => {
  const error = `must read ${DATABASE_FORM}, with reserved characters in the name and the password percent-encoded`;
  return z.string({ error }).refine(isDatabaseUrl, { error });
};

/** The URLs of one schema or several. */
export const databaseUrls = () => list(DATABASE_FORM, isDatabaseUrl);

/** The URLs of one broker's nodes. */
export const amqpUrls = () => list('amqp://user:password@host:port', isAmqpUrl);

/** The same three variables in every process. */
export const logSettings = {
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], {
      error: 'must be trace, debug, info, warn, error, fatal or silent',
    })
    .default('info'),
  LOG_FORMAT: z.enum(['json', 'pretty'], { error: 'must be json or pretty' }).default('json'),
  /** Whether the worker's log lines show what is in a message, which is personal data. */
  LOG_PAYLOADS: flag(false),
};
