#!/usr/bin/env node
import { type Command, UsageError } from './command.ts';
import { consumersCommand } from './consumers.ts';
import { deadCommand } from './dead.ts';
import { eraseCommand } from './erase.ts';
import { messageCommand } from './message.ts';
import { migrateCommand } from './migrate.ts';
import { outboxCommand } from './outbox.ts';
import { projectionCommand } from './projection.ts';
import { replayCommand } from './replay.ts';
import { sagaCommand } from './saga.ts';
import { statusCommand } from './status.ts';
import { verifyCommand } from './verify.ts';

const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ['status', statusCommand],
  ['verify', verifyCommand],
  ['message', messageCommand],
  ['outbox', outboxCommand],
  ['dead', deadCommand],
  ['consumers', consumersCommand],
  ['replay', replayCommand],
  ['projection', projectionCommand],
  ['saga', sagaCommand],
  ['erase', eraseCommand],
  ['migrate', migrateCommand],
]);

const HELP = `Usage: oncebox <command> [options]

Commands:
${[...COMMANDS].map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}`).join('\n')}

"oncebox <command> --help" tells more. Exit codes: 0 done, 1 failed or something is wrong,
2 called wrongly, 3 retention has removed what would tell.`;

async function main([name, ...args]: readonly string[]): Promise<number> {
  const wantsHelp = [name, ...args].some((argument) => argument === '--help' || argument === '-h');
  const command = COMMANDS.get(name ?? '');
  if (wantsHelp) {
    console.log(command?.help ?? HELP);
    return 0;
  }
  if (command === undefined) {
    console.error(name === undefined ? HELP : `oncebox: there is no command "${name}"\n\n${HELP}`);
    return 2;
  }
  try {
    return await command.run(args);
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`oncebox ${name}: ${error.message}\n\n${command.help}`);
      return 2;
    }
    console.error(`oncebox ${name}: ${describe(error)}`);
    return 1;
  }
}

/** The message and not the object: a driver's error carries the statement, and that can carry data or a password. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error ? `${error.message} (${error.code})` : error.message;
}

process.exitCode = await main(process.argv.slice(2));
