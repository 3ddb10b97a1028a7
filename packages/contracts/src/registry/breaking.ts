import type { Schema } from './schema.ts';

/** They say something to people and nothing to readers. */
const ANNOTATIONS = ['$schema', '$comment', 'title', 'description', 'examples'];
const COMPARED = [...ANNOTATIONS, 'type', 'enum', 'properties', 'required', 'items'];

/**
 * What of a change to the schema of one version breaks a reader.
 *
 * There are readers on both sides of the change: those that are running get what is written by the new schema, and the new ones get what
 * was written by the old one. So what a version accepts can become neither less nor more. The one exception is a new optional
 * field of an object that takes fields it does not know; ours take none, or a misspelt one would pass for one that was left out.
 *
 * @returns a line for each, the field first.
 */
export function breaks(before: Schema, after: Schema, at = ''): string[] {
  const name = at === '' ? 'the payload' : at;
  const [type, newType] = [before, after].map(typeOf);
  if (type !== newType) return [`${name}: was ${type} and is ${newType}`];
  const found: string[] = [];

  const [fields, newFields] = [fieldsOf(before), fieldsOf(after)];
  const [required, newRequired] = [listIn(before, 'required'), listIn(after, 'required')];
  for (const [field, schema] of fields) {
    const path = at === '' ? field : `${at}.${field}`;
    const newSchema = newFields.get(field);
    if (newSchema === undefined) found.push(`${path}: is removed`);
    else found.push(...breaks(schema, newSchema, path));
    if (newSchema === undefined || required.includes(field) === newRequired.includes(field)) continue;
    found.push(
      `${path}: ${required.includes(field) ? 'was required and is optional' : 'was optional and is required'}`,
    );
  }
  for (const field of [...newFields.keys()].filter((each) => !fields.has(each))) {
    const path = at === '' ? field : `${at}.${field}`;
    if (newRequired.includes(field)) found.push(`${path}: is new and required`);
    else if (before['additionalProperties'] === false)
      found.push(`${path}: is new, and refused by readers that are running`);
  }

  const [values, newValues] = [listIn(before, 'enum').map(textOf), listIn(after, 'enum').map(textOf)];
  found.push(...values.filter((each) => !newValues.includes(each)).map((value) => `${name}: ${value} is removed`));
  found.push(
    ...newValues
      .filter((each) => !values.includes(each))
      .map((value) => `${name}: ${value} is new, and refused by readers that are running`),
  );

  if (isSchema(before['items']) && isSchema(after['items'])) {
    found.push(...breaks(before['items'], after['items'], `${at}[]`));
  } else if (textOf(before['items']) !== textOf(after['items'])) found.push(`${name}: items has changed`);

  const others = new Set([...Object.keys(before), ...Object.keys(after)].filter((key) => !COMPARED.includes(key)));
  for (const keyword of others) {
    const [was, is] = [textOf(before[keyword]), textOf(after[keyword])];
    if (was !== is) found.push(`${name}: ${keyword} was ${was} and is ${is}`);
  }
  return found;
}

const isSchema = (value: unknown): value is Schema =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function fieldsOf({ properties }: Schema): ReadonlyMap<string, Schema> {
  const fields = isSchema(properties) ? Object.entries(properties) : [];
  return new Map(fields.filter((entry): entry is [string, Schema] => isSchema(entry[1])));
}

const listIn = (schema: Schema, keyword: 'required' | 'enum'): readonly unknown[] => {
  const list = schema[keyword];
  return Array.isArray(list) ? list : [];
};

const typeOf = ({ type, ...schema }: Schema): string =>
  type !== undefined
    ? typeof type === 'string'
      ? type
      : textOf(type)
    : 'anyOf' in schema
      ? 'one of several types'
      : 'of any type';

/** As JSON, or the number 1 would be the text "1". */
const textOf = (value: unknown): string => JSON.stringify(value) ?? 'not there';
