import { Buffer } from 'node:buffer';
import { type ExecuteValues, format, type QueryValues, type SqlValue } from 'mysql2';
import type { Pool } from 'mysql2/promise';
import { asBytes } from './as-bytes.ts';
import { DatabaseError } from './errors.ts';
import { handleOf, type Transaction } from './handle.ts';
import { isOurs, type Statements } from './transaction-statements.ts';

/** A column as mysql2 shows it to `typeCast`, as far as it is used here. */
interface Field {
  readonly type: string;
  string(): string | null;
}

const DATES: ReadonlySet<string> = new Set(['DATE', 'DATETIME', 'TIMESTAMP', 'NEWDATE']);

/**
 * What our own pools make of a column, whatever `dateStrings`, `bigNumberStrings`, `timezone` or a
 * `typeCast` of the connection say.
 */
function cast(field: Field, next: () => unknown): unknown {
  if (DATES.has(field.type)) {
    const text = field.string();
    return text === null ? null : new Date(`${text.replace(' ', 'T')}Z`);
  }
  const value = next();
  if (field.type !== 'LONGLONG' || typeof value !== 'string') return value;
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** @internal Options of one statement by which its results are as on our pools. */
export const OPTIONS = { rowsAsArray: false, nestTables: false, namedPlaceholders: false, typeCast: cast } as const;

/**
 * A moment as UTC text: the driver would write it in the zone that the connection was opened with.
 */
const bound = (value: unknown): unknown =>
  value instanceof Date ? value.toISOString().replace('T', ' ').replace('Z', '') : value;

interface Query {
  readonly sql: string;
  readonly values?: unknown;
  /** Milliseconds. */
  readonly timeout?: number;
}

const queryOf = (given: string | Query, values: unknown): Query =>
  typeof given === 'string' ? { sql: given, values } : given;

function withBytes(value: unknown): SqlValue {
  if (typeof value === 'string') return asBytes(value);
  if (Array.isArray(value)) return value.map(withBytes);
  // What is left are numbers, nulls, Dates and Buffers, which are all that statements of ours are
  // given.
  return value as SqlValue;
}

/**
 * The same transaction as our own statements need it: on a connection that another library has
 * opened, results and parameters are as on ours whatever options it was opened with, and a prepared
 * statement means the schema that the session is in. (mysql2 keeps prepared statements by their
 * text, and the server binds each to the schema in which it was prepared.) On a connection of ours,
 * and for a pool, the argument itself.
 */
export function withOwnOptions<Db extends object>(tx: Db): Db {
  const found = handleOf(tx);
  if (found === undefined || isOurs(found.statements)) return tx;
  const { statements } = found;
  const view = {
    query(given: string | Query, values?: unknown) {
      const { sql, values: all, ...rest } = queryOf(given, values);
      const text = all === undefined ? sql : format(sql, withBytes(all), true, 'Z');
      return statements.run('query', [{ ...rest, sql: text, ...OPTIONS }]);
    },
    async execute(given: string | Query, values?: unknown) {
      const { sql, values: all, ...rest } = queryOf(given, values);
      const schema = await schemaOf(statements);
      const text = `${sql} /* ${Buffer.from(schema, 'utf8').toString('hex')} */`;
      const params = Array.isArray(all) ? all.map(bound) : [];
      return await statements.run('execute', [{ ...rest, sql: text, values: params, ...OPTIONS }]);
    },
  };
  // The same handle, by the same symbol: what is asked of the transaction is answered by the one
  // that it is a view of.
  for (const symbol of Object.getOwnPropertySymbols(tx)) Reflect.set(view, symbol, Reflect.get(tx, symbol));
  // What a handle is used for here: its two methods, and the symbol.
  return view as unknown as Db;
}

/**
 * A pool as our own statements need it, whatever options it was made with. Each statement is a
 * transaction by itself, and fails after `timeoutMs`.
 */
export function statementsOf(pool: Pool, timeoutMs: number): Pick<Transaction, 'query' | 'execute'> {
  const options = { timeout: timeoutMs, ...OPTIONS };
  const view = {
    query: (sql: string, values: QueryValues) => pool.query({ sql, ...options }, values),
    execute: (sql: string, values: ExecuteValues) => pool.execute({ sql, ...options }, values),
  };
  // What is called of the driver's overloads: a text, and values.
  return view as unknown as Pick<Transaction, 'query' | 'execute'>;
}

/**
 * Asked once in a transaction of ours; the owner of a foreign one may change it between any two
 * statements.
 */
async function schemaOf(statements: Statements): Promise<string> {
  if (statements.schema !== undefined && !statements.foreign) return statements.schema;
  const answer = await statements.run('query', [{ sql: 'SELECT DATABASE() AS name', ...OPTIONS }]);
  const name: unknown = Array.isArray(answer) ? answer[0]?.[0]?.name : undefined;
  if (typeof name !== 'string') {
    throw new DatabaseError(
      'ONCEBOX_UNSUITABLE_CONNECTION',
      'The connection of this transaction has no default schema: name it when you open the connection, or USE it',
    );
  }
  statements.schema = name;
  return name;
}
