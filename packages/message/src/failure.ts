import { types } from 'node:util';

// What may be written down of whatever a handler threw. JavaScript lets it throw anything: nothing here may throw in turn, or one message
// would stop its consumer. The message of an error may quote personal data, the duplicate key of an INSERT for one.

/** On the prototype of errors whose message quotes no data. In the registry of symbols, because a process may have two copies of this package. */
export const QUOTES_NO_DATA = Symbol.for('oncebox.quotes-no-data');
/** On the prototype of errors after which no further attempt can help. */
export const NON_RETRYABLE = Symbol.for('oncebox.non-retryable');

/** What whoever catches an error reads of it. */
const FIELDS = ['name', 'message', 'stack', 'code', 'errno', 'fatal', 'sqlState', 'cause', 'constructor'] as const;
const TEXTS: ReadonlySet<string> = new Set(['name', 'message', 'stack']);
const NAME = /^[\w$.]{1,200}$/;
const CODE = /^[A-Z][A-Z0-9_]{0,200}$/;

const isObject = (value: unknown): value is object =>
  (typeof value === 'object' && value !== null) || typeof value === 'function';

/**
 * A field of a value of any kind; undefined where there is none, and where reading it throws, as a getter may. A Proxy has none: it may
 * answer anything, and something else the next time.
 */
export function fieldOf(value: unknown, field: string | symbol): unknown {
  try {
    return isObject(value) && !types.isProxy(value) ? Reflect.get(value, field) : undefined;
  } catch {
    return undefined;
  }
}

/** An Error of any realm, but no Proxy of one. */
function isError(value: unknown): value is Error {
  try {
    return !types.isProxy(value) && (types.isNativeError(value) || value instanceof Error);
  } catch {
    return false; // a Proxy in the chain of its prototypes
  }
}

/** Whether no further attempt can help, as NonRetryableError of any copy of @oncebox/inbox says. */
export const isNonRetryable = (thrown: unknown): boolean => fieldOf(thrown, NON_RETRYABLE) === true;

/** Stands for what a handler threw that is no sound Error: its message says what that was, and quotes nothing of it. */
export class ThrownError extends Error {
  override readonly name = 'ThrownError';
  /** That of what was thrown, where it has one; else ONCEBOX_NOT_AN_ERROR. */
  readonly code: string;
  readonly errno: number | undefined;
  readonly [NON_RETRYABLE]: boolean;

  constructor(message: string, thrown: unknown) {
    super(message);
    const errno = fieldOf(thrown, 'errno');
    this.code = codeOf(thrown) ?? 'ONCEBOX_NOT_AN_ERROR';
    this.errno = typeof errno === 'number' ? errno : undefined;
    this[NON_RETRYABLE] = isNonRetryable(thrown);
  }

  get [QUOTES_NO_DATA](): true {
    return true;
  }
}

/**
 * What a handler threw as an Error that is safe to hand around: the very same one if its fields can be read and are what their types
 * say, as those of nearly every Error are, and else a ThrownError.
 */
export function failureOf(thrown: unknown): Error {
  if (!isError(thrown)) return new ThrownError(`${kindOf(thrown)} was thrown: throw an Error`, thrown);
  const flaw = flawOf(thrown);
  if (flaw === undefined) return thrown;
  return new ThrownError(
    `an Error of class ${nameOf(thrown)} was thrown whose ${flaw}: leave the fields of an Error as they are`,
    thrown,
  );
}

function flawOf(error: Error): string | undefined {
  for (const field of FIELDS) {
    let value: unknown;
    try {
      value = Reflect.get(error, field);
    } catch {
      return `${field} cannot be read`;
    }
    const isLeftOut = field === 'stack' && value === undefined;
    if (TEXTS.has(field) && typeof value !== 'string' && !isLeftOut) return `${field} is no text`;
  }
  return undefined;
}

function kindOf(thrown: unknown): string {
  if (thrown === undefined || thrown === null) return String(thrown);
  if (types.isProxy(thrown)) return 'a Proxy';
  if (typeof thrown !== 'object') return `a ${typeof thrown}`;
  const name = constructorOf(thrown);
  return name === undefined ? 'an object' : `an object of class ${name}`;
}

/** The name of a value's class. Of a class alone: what else is called `constructor` is data. */
function constructorOf(value: object): string | undefined {
  const made = fieldOf(value, 'constructor');
  const name = typeof made === 'function' ? fieldOf(made, 'name') : undefined;
  return typeof name === 'string' && NAME.test(name) ? name : undefined;
}

/**
 * An error's class; of one that names itself after no class, nothing, as it may be anything. Of what is no Error its type: its `name` is
 * data. At most 200 characters.
 */
export function nameOf(thrown: unknown): string {
  if (!isObject(thrown) || typeof thrown === 'function') return thrown === null ? 'null' : typeof thrown;
  if (!isError(thrown)) return types.isProxy(thrown) ? 'Proxy' : (constructorOf(thrown) ?? 'object');
  const name = fieldOf(thrown, 'name');
  if (typeof name !== 'string' || name === 'Error') return constructorOf(thrown) ?? 'Error';
  return NAME.test(name) ? name : 'Error';
}

function codeOf(thrown: unknown): string | undefined {
  const code = fieldOf(thrown, 'code');
  return typeof code === 'string' && CODE.test(code) ? code : undefined;
}

/** `TypeError`, `MessageError ONCEBOX_INVALID_PAYLOAD`. At most 402 characters. */
export function classOf(thrown: unknown): string {
  const code = codeOf(thrown);
  return code === undefined ? nameOf(thrown) : `${nameOf(thrown)} ${code}`;
}

/** What a dead letter says of its error: its class, and of ours that know to quote no data the message too. At most 500 characters. */
export function reasonOf(thrown: unknown): string {
  const message = fieldOf(thrown, QUOTES_NO_DATA) === true ? fieldOf(thrown, 'message') : undefined;
  const reason = typeof message === 'string' ? `${classOf(thrown)}: ${message}` : classOf(thrown);
  return reason.slice(0, 500).toWellFormed();
}
