import type { PoolConnection } from 'mysql2/promise';
import { type Method, outlived, type Statements } from './transaction-statements.ts';

declare const begun: unique symbol;

/**
 * An open transaction: mysql2's `query` and `execute`, and the proof that somebody has begun it and
 * will end it. A pool or a bare connection is not one, to the compiler and (`assertTransaction`) at
 * run time.
 */
export interface Transaction {
  readonly query: PoolConnection['query'];
  readonly execute: PoolConnection['execute'];
  readonly [begun]: true;
}

/**
 * Of the symbol registry, so that a handle of one copy of this package is one to another copy in
 * the same process.
 */
const HANDLE = Symbol.for('oncebox.transaction');

/** @internal What this package knows of a handle. */
export interface Handle {
  readonly statements: Statements;
  /** 0 for the transaction itself, one more for each savepoint within another. */
  readonly depth: number;
  /** The transaction, or the work of the savepoint, has ended. */
  ended: boolean;
  /** A savepoint of this handle is open. */
  savepoint: boolean;
}

/** @internal */
export function handleOf(value: unknown): Handle | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  try {
    // Only `handle` below sets this symbol, in this copy of the package or in another copy.
    const found = Reflect.get(value, HANDLE) as Handle | undefined;
    return found === undefined || found.ended ? undefined : found;
  } catch {
    return undefined; // a proxy or a getter that throws is no handle of ours
  }
}

/**
 * @internal Makes a handle. `end` makes it useless, so that a query after the end is an error and
 *   not an autocommit.
 */
export function handle(statements: Statements, depth = 0): { readonly tx: Transaction; end(): void } {
  const own: Handle = { statements, depth, ended: false, savepoint: false };
  const through =
    (method: Method) =>
    (...args: readonly unknown[]): Promise<unknown> => {
      if (own.ended) throw outlived();
      return statements.run(method, args);
    };
  // The one place where the brand is given: the object carries exactly what the type says, but for
  // the compile-time symbol.
  const tx = { query: through('query'), execute: through('execute'), [HANDLE]: own } as unknown as Transaction;
  return {
    tx,
    end: () => {
      own.ended = true;
    },
  };
}
