/**
 * Levels of objects and arrays. zod's recursive schemas overflow the stack at about 1,200, in a
 * reader sooner than here.
 */
export const MOST_LEVELS = 256;

/**
 * Where what a reader makes of a payload's text differs from the payload as it was given: the keys
 * to that place, the outermost first.
 *
 * An absent field equals undefined, and -0 equals 0. Nothing else that JSON drops or changes
 * passes: a Date, a Map, NaN, an instance of a class, a hole in an array. An accessor may answer
 * otherwise next time, and a `__proto__` key sets the prototype of a reader's copy.
 *
 * @returns undefined when there is no difference; as many keys as there are levels for what is
 *   nested deeper.
 */
export function differenceOf(given: unknown, read: unknown, levels = MOST_LEVELS): PropertyKey[] | undefined {
  if (given === read && !isObject(given)) return undefined;
  if (!isObject(given) || !isObject(read)) return Object.is(given, read) ? undefined : [];
  if (levels === 0) return [];
  if (Array.isArray(given)) return Array.isArray(read) ? differenceOfArrays(given, read, levels) : [];
  if (isDate(given)) return isDate(read) && given.getTime() === read.getTime() ? undefined : [];
  if (!isPlain(given) || !isPlain(read)) return [];
  for (const key of Reflect.ownKeys(given)) {
    const property = Reflect.getOwnPropertyDescriptor(given, key);
    if (property === undefined || !('value' in property) || key === '__proto__') return [key];
    const value = Object.hasOwn(read, key) ? Reflect.get(read, key) : undefined;
    const inside = differenceOf(property.value, value, levels - 1);
    if (inside !== undefined) return [key, ...inside];
  }
  for (const key of Object.keys(read)) {
    if (!Object.hasOwn(given, key) && Reflect.get(read, key) !== undefined) return [key];
  }
  return undefined;
}

function differenceOfArrays(
  given: readonly unknown[],
  read: readonly unknown[],
  levels: number,
): PropertyKey[] | undefined {
  // A hole has no key, and what was put on an array beside its elements has one.
  const isDense = Reflect.ownKeys(given).length === given.length + 1;
  if (!isDense || given.length !== read.length || !Array.isArray(Object.getPrototypeOf(given))) return [];
  for (let index = 0; index < given.length; index++) {
    const inside = differenceOf(given[index], read[index], levels - 1);
    if (inside !== undefined) return [index, ...inside];
  }
  return undefined;
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

/** Without fields of its own, which its text has not. */
const isDate = (value: object): value is Date =>
  Object.getPrototypeOf(value) === Date.prototype && Reflect.ownKeys(value).length === 0;

/** An object literal's prototype, also that of another realm: Jest gives each test file its own. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype) return true;
  return (
    isObject(prototype) && Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'propertyIsEnumerable')
  );
}
