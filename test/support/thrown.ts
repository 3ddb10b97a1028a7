import { runInNewContext } from 'node:vm';

/**
 * What code may throw that is no sound Error. Each is made anew: some of them remember that they
 * were read.
 */

const fail = (): never => {
  throw new Error('read a field of a hostile value');
};

/** Every trap throws, that of `instanceof` too. */
const TRAPS = Object.fromEntries(Object.getOwnPropertyNames(Reflect).map((trap) => [trap, fail]));

const FIELDS = ['name', 'message', 'code', 'stack', 'errno', 'fatal', 'sqlState', 'cause', 'constructor'] as const;

const withField = (field: string, value: unknown): Error =>
  Object.defineProperty(new Error('ada@example.com'), field, { value, enumerable: true });
const withGetter = (field: string): Error =>
  Object.defineProperty(new Error('ada@example.com'), field, { get: fail, enumerable: true });

class Renamed extends Error {
  static override readonly name: string = '\ud800 ada@example.com';
}
class Nameless extends Error {}
Object.defineProperty(Nameless, 'name', { value: { first: 'ada' } });

const PRIMITIVES = [undefined, null, true, 0, 7n, Number.NaN, '', 'ada@example.com', Symbol('ada')];

export const HOSTILE: readonly (readonly [label: string, make: () => unknown])[] = [
  ...PRIMITIVES.map((value) => [`the ${typeof value} ${String(value)}`, () => value] as const),
  ['an object without a prototype', () => Object.create(null)],
  ['a body of an API', () => ({ name: 'Ada', message: 'ada@example.com', code: { id: 1 } })],
  ['a frozen object', () => Object.freeze({ errno: 'x', code: 5 })],
  ['a function', () => () => fail()],
  ['a class', () => Renamed],
  ['a promise', () => Promise.resolve()],
  ['an array', () => ['ada@example.com']],
  ['a Proxy', () => new Proxy({}, TRAPS)],
  ['a Proxy of an Error', () => new Proxy(new Error('ada'), TRAPS)],
  ['a Proxy of a function', () => new Proxy(fail, TRAPS)],
  ['a Proxy that answers every field', () => new Proxy({}, { get: () => 1213 })],
  ['a revoked Proxy', () => revoked()],
  ['a child of a Proxy', () => Object.create(new Proxy({}, TRAPS))],
  ['an Error with the body of an API', () => Object.assign(new Error(), { name: null })],
  ['a frozen Error', () => Object.freeze(new Error('frozen'))],
  ['an Error that is its own cause', () => withItself()],
  ...FIELDS.map((field) => [`an Error whose ${field} throws`, () => withGetter(field)] as const),
  ...FIELDS.map((field) => [`an Error whose ${field} is a number`, () => withField(field, 5)] as const),
  ...FIELDS.map((field) => [`an Error whose ${field} is an object`, () => withField(field, { a: 1 })] as const),
  ['an Error whose name is a lone surrogate', () => withField('name', '\ud800')],
  ['an Error whose name is huge', () => withField('name', 'x'.repeat(1_000_000))],
  ['an Error whose message is huge', () => new Error('\ud83d'.repeat(1_000_000))],
  ['an Error whose code is huge', () => withField('code', 'X'.repeat(1_000_000))],
  ['an Error of a renamed class', () => new Renamed('x')],
  ['an Error of a nameless class', () => new Nameless('x')],
  ['an Error without a prototype', () => Object.setPrototypeOf(new Error('x'), null)],
  ['an Error of another realm', () => runInNewContext('new TypeError("x")')],
  ['what only inherits from Error', () => Object.create(Error.prototype)],
];

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function withItself(): Error {
  const error = new Error('x');
  return Object.assign(error, { cause: error, itself: { error } });
}
