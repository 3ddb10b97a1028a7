import { bringBack } from '@oncebox/rabbitmq';
import { amqpUrls, loadConfig } from '@oncebox/service';
import { z } from 'zod';
import { UsageError } from './command.ts';

const tell = (_fields: object, text: string): void => console.error(text);
const logger = { info: () => undefined, warn: tell, error: tell };

/** @returns the exit code. */
export async function bringBackTo(names: readonly string[], isFiltered: boolean, json: boolean): Promise<number> {
  const [consumer] = names;
  if (consumer === undefined || names.length > 1 || isFiltered) {
    throw new UsageError('bring-back takes the name of one consumer, and no filters');
  }
  const { AMQP_URL: urls } = loadConfig(z.object({ AMQP_URL: amqpUrls() }));
  const moved = await bringBack({ urls, consumer, logger });
  if (json) console.log(JSON.stringify({ consumer, moved }));
  else
    console.log(
      `${moved} moved to ${consumer}.dead, where its worker tries to keep them: "oncebox dead list" shows what came of it`,
    );
  return 0;
}
