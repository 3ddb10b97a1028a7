import type { Logger } from '@oncebox/rabbitmq';
import { amqpUrls, loadConfig } from '@oncebox/service';
import { z } from 'zod';

const warn = (_fields: object, text: string): void => console.error(text);

/** What connects to the broker of AMQP_URL, and writes its warnings to stderr. */
export function brokerOptions(): { readonly urls: readonly string[]; readonly logger: Logger } {
  const { AMQP_URL: urls } = loadConfig(z.object({ AMQP_URL: amqpUrls() }));
  return { urls, logger: { info: () => undefined, warn, error: warn } };
}
