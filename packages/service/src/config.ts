import { join } from 'node:path';
import dotenv from 'dotenv';
import type { z } from 'zod';
import { ConfigError } from './errors.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads a process's settings from its environment. An empty string counts as unset: that is what `NAME=` in a Compose file
 * or an `.env` means.
 *
 * @throws ConfigError ONCEBOX_INVALID_CONFIG whose message is one line that names every wrong variable and its rule, and
 *   never its value, which may be a secret.
 */
export function readConfig<Schema extends z.ZodObject>(schema: Schema, environment: Environment): z.output<Schema> {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const complaints = new Map<string, string>();
  for (const { path, message } of parsed.error.issues) {
    const name = path.length === 0 ? 'The environment' : String(path[0]);
    if (!complaints.has(name))
      complaints.set(name, `${name} ${name in given ? 'is wrong' : 'is missing'} (${message})`);
  }
  const line = `Invalid configuration: ${[...complaints.values()].join('; ')}`;
  throw new ConfigError(line.replaceAll(/\s+/g, ' '));
}

/** Adds to the environment what an `.env` file says and the environment does not. */
export function loadEnvironmentFiles(): void {
  // `npm start -w apps/api` runs in the app's folder; INIT_CWD is where the user typed it, and where the .env is.
  const folders = [process.env['INIT_CWD'] ?? process.cwd(), process.cwd()];
  dotenv.config({ quiet: true, path: folders.map((folder) => join(folder, '.env')) });
}

/**
 * `readConfig` of the real environment and, below it, of an `.env` file. When the configuration is wrong it writes that
 * one line to stderr and ends the process with exit code 1: there is no logger yet, and a stack would hide the line.
 */
export function loadConfig<Schema extends z.ZodObject>(schema: Schema): z.output<Schema> {
  loadEnvironmentFiles();
  try {
    return readConfig(schema, process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}
