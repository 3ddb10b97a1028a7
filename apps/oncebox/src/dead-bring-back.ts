import { bringBack } from '@oncebox/rabbitmq';
import { brokerOptions } from './broker.ts';
import { UsageError } from './command.ts';

/** @returns the exit code. */
export async function bringBackTo(names: readonly string[], isFiltered: boolean, json: boolean): Promise<number> {
  const [consumer] = names;
  if (consumer === undefined || names.length > 1 || isFiltered) {
    throw new UsageError('bring-back takes the name of one consumer, and no filters');
  }
  const moved = await bringBack({ ...brokerOptions(), consumer });
  if (json) console.log(JSON.stringify({ consumer, moved }));
  else
    console.log(
      `${moved} moved to ${consumer}.dead, where its worker tries to store them: "oncebox dead list" shows the result`,
    );
  return 0;
}
