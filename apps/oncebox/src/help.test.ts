import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Command, UsageError } from './command.ts';

const isCommand = (value: unknown): value is Command =>
  typeof value === 'object' && value !== null && 'help' in value && 'run' in value;

/**
 * From the files of the folder, so that a new command is among them. main.ts runs when it is
 * loaded.
 */
const commands: Command[] = [];
for (const file of readdirSync(import.meta.dirname)) {
  if (file === 'main.ts' || file.includes('.test.')) continue;
  commands.push(...Object.values<unknown>(await import(join(import.meta.dirname, file))).filter(isCommand));
}

/**
 * The parser refuses the second option, and so nothing runs. @returns whether it knows the first
 * one.
 */
async function accepts({ run }: Command, action: string | undefined, option: string): Promise<boolean> {
  const refused = await run([...(action === undefined ? [] : [action]), option, '--no-such-option']).catch((e) => e);
  expect(refused).toBeInstanceOf(UsageError);
  return !String(refused).includes(`Unknown option '${option}'`);
}

const optionsOf = (text: string): string[] => [...new Set(text.match(/(?<![\w-])--[a-z][a-z-]*/g))];
/**
 * `[action, its options]` of each line of usage: `Usage: oncebox outbox list [filters] [--limit
 * N]`.
 */
const usageOf = ({ help }: Command): (readonly [action: string | undefined, options: string[]])[] =>
  [...help.matchAll(/^(?:Usage:| {6}) oncebox [a-z]+ ?(?:\[?([a-z][a-z-]*)\b)?(.*)$/gm)].map(
    ([, action, rest = '']) => [action, optionsOf(rest)],
  );

describe.each(commands.map((command) => [command.help.split('\n', 1)[0], command] as const))(
  '%s',
  (_usage, command) => {
    it('has each option that its help names', async () => {
      const actions = usageOf(command).map(([action]) => action);
      const unknown: string[] = [];
      for (const option of optionsOf(command.help)) {
        const known = await Promise.all(actions.map((action) => accepts(command, action, option)));
        if (!known.includes(true)) unknown.push(option);
      }
      expect(unknown).toEqual([]);
    });

    it('has the options of each line of usage for that action', async () => {
      const unknown: string[] = [];
      for (const [action = '', options] of usageOf(command)) {
        for (const option of options) {
          if (!(await accepts(command, action || undefined, option))) unknown.push(`${action} ${option}`);
        }
      }
      expect(usageOf(command).length).toBeGreaterThan(0);
      expect(unknown).toEqual([]);
    });
  },
);
