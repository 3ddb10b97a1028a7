import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { UsageError } from './command.ts';

/** `parseArgs`, strict. @throws UsageError */
export function readArguments<const Options extends ParseArgsOptionsConfig>(args: readonly string[], options: Options) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** For a command that takes options alone. @throws UsageError */
export function assertNone(positionals: readonly string[]): void {
  if (positionals.length > 0) throw new UsageError(`unexpected argument "${positionals[0]}"`);
}

const SECONDS: ReadonlyMap<string, number> = new Map([
  ['s', 1],
  ['m', 60],
  ['h', 3_600],
  ['d', 86_400],
]);

/** Reads `90s`, `15m`, `24h`, `7d`. @returns seconds; undefined for an option that was not given. @throws UsageError */
export function readDuration(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, count, unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = SECONDS.get(unit);
  if (count === undefined || seconds === undefined) {
    throw new UsageError(`--${option} takes a duration such as 90s, 15m, 24h or 7d, not "${text}"`);
  }
  return Number(count) * seconds;
}

/** A moment, or how long before now, in seconds: by the database's clock, which only the caller can ask. */
export type Moment = { readonly at: Date } | { readonly ago: number };

/** Reads `24h` as `readDuration`, or `2026-01-31` or `2026-01-31T08:00Z`. @throws UsageError */
export function readMoment(option: string, text: string | undefined): Moment | undefined {
  if (text === undefined) return undefined;
  if (/^\d+[smhd]$/.test(text)) return { ago: readDuration(option, text) ?? 0 };
  // A zone is required with a time: local time would mean another moment on another machine.
  const at = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d))?$/.test(text)
    ? new Date(text)
    : undefined;
  if (at === undefined || Number.isNaN(at.getTime())) {
    throw new UsageError(
      `--${option} takes a duration such as 24h, or a time such as 2026-01-31T08:00Z, not "${text}"`,
    );
  }
  return { at };
}

/** A whole number from 1 on. @throws UsageError */
export function readCount(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`--${option} takes a whole number from 1 on, not "${text}"`);
  return Number(text);
}

/** The values of `--state`, each once. @returns undefined for an option that was not given. @throws UsageError */
export function readStates<const T extends string>(
  texts: readonly string[] | undefined,
  states: readonly T[],
): T[] | undefined {
  const unknown = texts?.find((text) => !states.some((state) => state === text));
  if (unknown !== undefined) throw new UsageError(`--state takes one of ${states.join(', ')}, not "${unknown}"`);
  return texts && states.filter((state) => texts.includes(state));
}
