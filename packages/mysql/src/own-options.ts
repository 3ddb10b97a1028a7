import { Buffer } from 'node:buffer';
import { format, type SqlValue } from 'mysql2';
import type { RowDataPacket } from 'mysql2/promise';
import { DatabaseError } from './errors.ts';
import { type Handle, handleOf, isOurs, type Transaction } from './handle.ts';

/** A column as mysql2 shows it to `typeCast`, as far as it is used here. */
interface Field {
  readonly type: string;
  string(): string | null;
}

const DATES: ReadonlySet<string> = new Set(['DATE', 'DATETIME', 'TIMESTAMP', 'NEWDATE']);

/** What our own pools make of a column, whatever `dateStrings`, `bigNumberStrings`, `timezone` or a `typeCast` of the connection say. */
function cast(field: Field, next: () => unknown): unknown {
  if (DATES.has(field.type)) {
    const text = field.string();
    return text === null ? null : new Date(`${text.replace(' ', 'T')}Z`);
  }
  const value = next();
  if (field.type !== 'LONGLONG' || typeof value !== 'string') return value;
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

const OPTIONS = { rowsAsArray: false, nestTables: false, namedPlaceholders: false, typeCast: cast } as const;

/** A moment as UTC text: the driver would write it in the zone that the connection was opened with. */
const bound = (value: unknown): unknown =>
  value instanceof Date ? value.toISOString().replace('T', ' ').replace('Z', '') : value;

/**
 * The same transaction as our own statements need it: on a connection that another library has opened, results and parameters are as on
 * ours whatever options it was opened with, and a prepared statement means the schema that the session is in. (mysql2 keeps prepared
 * statements by their text, and the server binds each to the schema in which it was prepared.) On a connection of ours, `tx` itself.
 *
 * Only numbers and Buffers may be values of a `query`: the driver would quote text by rules that depend on the server's sql_mode.
 */
export function withOwnOptions(tx: Transaction): Transaction {
  const found = handleOf(tx);
  if (found === undefined || isOurs(found.statements)) return tx;
  const view: Pick<Transaction, never> & object = {
    query: (sql: string, values?: readonly unknown[]) =>
      tx.query({ sql: values === undefined ? sql : format(sql, [...values] as SqlValue[], true, 'Z'), ...OPTIONS }),
    async execute(sql: string, values: readonly unknown[] = []) {
      const schema = await schemaOf(tx, found);
      const text = `${sql} /* ${Buffer.from(schema, 'utf8').toString('hex')} */`;
      return await tx.execute({ sql: text, values: values.map(bound) as string[], ...OPTIONS });
    },
  };
  // The same handle, by the same symbol: what is asked of the transaction is answered by the one that it is a view of.
  for (const symbol of Object.getOwnPropertySymbols(tx)) Reflect.set(view, symbol, Reflect.get(tx, symbol));
  return view as Transaction;
}

/** Asked once in a transaction of ours; the owner of a foreign one may change it between any two statements. */
async function schemaOf(tx: Transaction, { statements }: Handle): Promise<string> {
  if (statements.schema !== undefined && !statements.foreign) return statements.schema;
  const [[row]] = await tx.query<(RowDataPacket & { name: string | null })[]>({
    sql: 'SELECT DATABASE() AS name',
    ...OPTIONS,
  });
  const name = row?.name;
  if (typeof name !== 'string') {
    throw new DatabaseError(
      'ONCEBOX_UNSUITABLE_CONNECTION',
      'The connection of this transaction has no default schema: name it when you open the connection, or USE it',
    );
  }
  statements.schema = name;
  return name;
}
