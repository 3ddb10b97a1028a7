import { randomBytes } from 'node:crypto';
import type { Connection as CoreConnection } from 'mysql2';
import { DatabaseError, errnoOf } from './errors.ts';
import { forgetSettings, hasOurSettings } from './settings.ts';
import { kindOf } from './statement-kind.ts';

/** @internal */
export type Method = 'query' | 'execute';

/** @internal Runs the statements of one transaction, and watches over it. */
export interface Statements {
  readonly connection: CoreConnection;
  /** Another library has begun the transaction, and ends it at any time. */
  readonly foreign: boolean;
  /** The names of this transaction's savepoints begin with it, and no other's do. */
  readonly prefix: string;
  /** What the work leaves in the session beyond the transaction. */
  readonly leftovers: 'none' | 'locks' | 'settings';
  /** The default schema, where it is known. */
  schema: string | undefined;
  /** Runs a statement that the handle was given. */
  run(method: Method, args: readonly unknown[]): Promise<unknown>;
  /**
   * Gives a statement of this package to the connection at once. The caller has made sure that the
   * transaction is open, or the statement itself does.
   */
  send(method: Method, args: readonly unknown[]): Promise<unknown>;
  /**
   * Calls `work` when every earlier statement has its reply, and does not call it when the
   * transaction has ended. Without turns, a statement that waits behind a deadlock in the driver's
   * queue would commit by itself. On a foreign connection `work` is called at once, because the
   * owner's statements take no turns.
   */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
  /** No statement is sent from now on. */
  close(): void;
  /**
   * @throws DatabaseError ONCEBOX_TRANSACTION_LOST when the transaction has ended. Asks the server
   *   only if a statement has failed since its last reply.
   */
  assertOpen(): Promise<void>;
  /**
   * Set when a transaction of ours has ended before its time. What it wrote may be committed.
   */
  readonly lost: DatabaseError | undefined;
  /** Why no statement is sent any more. */
  readonly refusal: DatabaseError | undefined;
}

const SERVER_STATUS_IN_TRANS = 1;
const SERVER_STATUS_AUTOCOMMIT = 2;
const DEADLOCK = 1213;
const NO_SUCH_SAVEPOINT = 1305;

/** @internal */
export const outlived = (): DatabaseError =>
  new DatabaseError('ONCEBOX_NOT_A_TRANSACTION', 'This transaction has ended: await every query inside it');

/** @internal */
export const transactionLost = (why: string, cause?: unknown): DatabaseError =>
  new DatabaseError('ONCEBOX_TRANSACTION_LOST', why, cause === undefined ? {} : { cause });

/** @param cause the error with which the server ended the transaction, if there was one. */
function endedBefore(foreign: boolean, cause?: unknown): DatabaseError {
  if (foreign) {
    return new DatabaseError(
      'ONCEBOX_NOT_A_TRANSACTION',
      'The transaction of this handle has ended: its owner has committed it or rolled it back. Use the handle before that, and await it.',
    );
  }
  const why =
    errnoOf(cause) === undefined
      ? 'A statement has ended this transaction: what was written before it is committed, and what came after it is by itself. ' +
        'Run what commits (DDL, COMMIT, a procedure that does) outside of transaction().'
      : 'The server has ended this transaction, and the error that said so was caught: pass it on, so that the whole is repeated';
  return transactionLost(why, cause);
}

const notSent = (foreign: boolean): DatabaseError =>
  transactionLost(
    'A statement that commits or begins a transaction was given to an open one, and was not sent: ' +
      (foreign
        ? 'let the library that began the transaction end it.'
        : 'the transaction is rolled back. Run DDL, COMMIT, ROLLBACK, BEGIN and LOCK TABLES outside of it.'),
  );

const COPY = randomBytes(4).toString('hex');
let transactions = 0;

/**
 * @internal Whether a reply's flags say that a transaction is open. Without autocommit the next
 *   statement opens one.
 */
export const isInTransaction = (status: number, foreign: boolean): boolean =>
  (status & SERVER_STATUS_IN_TRANS) !== 0 || (foreign && (status & SERVER_STATUS_AUTOCOMMIT) === 0);

/** @internal */
export function statementsOn(connection: CoreConnection, { foreign }: { foreign: boolean }): Statements {
  // mysql2's own promises: a pool may have been made with another kind, or hand out callbacks.
  const promised = connection.promise();
  const prefix = `oncebox_${COPY}_${++transactions}`;
  let leftovers: Statements['leftovers'] = 'none';
  let lost: DatabaseError | undefined;
  let refused: DatabaseError | undefined;
  /**
   * The last error. The server may have ended the transaction with it, and its flags say so only in
   * the next reply.
   */
  let doubt: { readonly error: unknown } | undefined;
  let closed = false;
  let last: Promise<unknown> = Promise.resolve();

  function see(result: unknown, cause?: unknown): void {
    for (const status of statusesOf(result)) {
      if (isInTransaction(status, foreign)) continue;
      lost = endedBefore(foreign, cause);
      throw lost;
    }
  }

  async function check(): Promise<void> {
    const [result] = await promised.query('DO 0');
    see(result, doubt?.error);
    doubt = undefined;
  }

  /**
   * Sends a statement that runs others between a savepoint and its release, which fails if the
   * transaction is another one by then.
   */
  async function watched(send: () => Promise<unknown>): Promise<unknown> {
    const [, sent, released] = await Promise.allSettled([
      promised.query(`SAVEPOINT ${prefix}_call`),
      send(),
      promised.query(`RELEASE SAVEPOINT ${prefix}_call`),
    ]);
    if (released.status === 'rejected' && errnoOf(released.reason) === NO_SUCH_SAVEPOINT) lost ??= endedBefore(foreign);
    if (lost !== undefined) throw lost;
    if (sent.status === 'rejected') throw sent.reason;
    return sent.value;
  }

  function note(sql: string): ReturnType<typeof kindOf> {
    const kind = kindOf(sql);
    if (kind === 'moves' || kind === 'calls') self.schema = undefined;
    if (kind === 'moves' || kind === 'sets' || kind === 'calls') {
      leftovers = 'settings';
      forgetSettings(connection);
    }
    if (kind === 'locks' && leftovers === 'none') leftovers = 'locks';
    return kind;
  }

  const self: Statements = {
    connection,
    foreign,
    prefix,
    schema: undefined,
    get leftovers() {
      return leftovers;
    },
    get lost() {
      return lost;
    },
    get refusal() {
      return lost ?? refused ?? (closed ? outlived() : undefined);
    },
    inTurn(work) {
      if (foreign) return work();
      const turn = last.then(async () => {
        if (self.refusal !== undefined) throw self.refusal;
        if (doubt !== undefined) await check();
        return await work();
      });
      last = turn.catch(() => undefined);
      return turn;
    },
    close() {
      closed = true;
    },
    async run(method, args) {
      if (self.refusal !== undefined) throw self.refusal;
      const kind = note(sqlOf(args));
      if (kind === 'ends') {
        refused = notSent(foreign);
        throw refused;
      }
      if (foreign) await check();
      const send = (): Promise<unknown> => self.send(method, args);
      return await self.inTurn(() => (kind === 'calls' ? watched(send) : send()));
    },
    async send(method, args) {
      try {
        // The driver's overloads cannot be spread over; what is passed on is what the caller gave
        // to the same method.
        const answer = await (Reflect.apply(promised[method], promised, args) as Promise<unknown>);
        see(Array.isArray(answer) ? answer[0] : undefined);
        return answer;
      } catch (error) {
        if (errnoOf(error) === DEADLOCK) lost = endedBefore(foreign, error);
        else if (errnoOf(error) !== undefined) doubt = { error };
        throw error;
      }
    },
    assertOpen: () => self.inTurn(async () => undefined),
  };
  return self;
}

/**
 * @internal Whether the session is as `createPool` has set it, so that neither results nor text
 *   depend on anybody's options. What the owner of a foreign transaction does with the session
 *   nobody sees here.
 */
export const isOurs = ({ connection, foreign }: Statements): boolean => !foreign && hasOurSettings(connection);

/** @internal The driver's own object of a connection of either flavour. */
export function coreOf(connection: object): CoreConnection | undefined {
  const inner: unknown = Reflect.get(connection, 'connection');
  const core: unknown = typeof inner === 'object' && inner !== null && 'promise' in inner ? inner : connection;
  // mysql2 types no class for it; both of its flavours lead to an object with `promise`.
  return typeof core === 'object' && core !== null && 'promise' in core ? (core as CoreConnection) : undefined;
}

function sqlOf([first]: readonly unknown[]): string {
  const sql: unknown = typeof first === 'object' && first !== null ? Reflect.get(first, 'sql') : first;
  return typeof sql === 'string' ? sql : '';
}

/**
 * Of the headers in an answer: one of a statement that gives no rows, several of a procedure or of
 * several statements in one.
 */
function* statusesOf(result: unknown): Generator<number> {
  // Rows are objects; what has rows or a header as its first or last element is the answer to
  // several statements.
  const isSeveral =
    Array.isArray(result) && [result[0], result.at(-1)].some((each) => isHeader(each) || Array.isArray(each));
  const all: readonly unknown[] = isSeveral ? result : [result];
  for (const each of all) {
    const status: unknown = isHeader(each) ? Reflect.get(each, 'serverStatus') : undefined;
    if (typeof status === 'number') yield status;
  }
}

/** By the name of the class: a row may have a column `serverStatus`. */
const isHeader = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Reflect.get(value, 'constructor')?.name === 'ResultSetHeader';
