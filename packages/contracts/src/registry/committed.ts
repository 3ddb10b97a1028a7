import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Contract } from '@oncebox/message';
import { asyncApi } from './asyncapi.ts';
import { breaks } from './breaking.ts';
import { nameOf, type Schema, schemaOf } from './schema.ts';

const ROOT = join(import.meta.dirname, '../../../..');
export const SCHEMAS = 'packages/contracts/schemas';
const EXAMPLES = 'packages/contracts/examples';
const ASYNCAPI = 'docs/asyncapi.yaml';

const readJson = (path: string): Schema => JSON.parse(readFileSync(path, 'utf8'));

/** The files of a folder, by their names without `.json`. */
const readAll = (folder: string): Map<string, Schema> =>
  new Map(globSync(join(ROOT, folder, '*.json')).map((path) => [basename(path, '.json'), readJson(path)]));

/** Payloads that were recorded, by type and version: `CustomerCreated.v1`. */
export const examples = (): ReadonlyMap<string, Schema> => readAll(EXAMPLES);
export const committedSchemas = (): ReadonlyMap<string, Schema> => readAll(SCHEMAS);
export const committedAsyncApi = (): string => readFileSync(join(ROOT, ASYNCAPI), 'utf8');

const jsonOf = (schema: Schema): string => `${JSON.stringify(schema, undefined, 2)}\n`;

/** What of the contracts breaks readers, compared with the schemas that are committed; nothing may be committed over it. */
export function breakage(contracts: readonly Contract[], committed = committedSchemas()): string[] {
  const names = new Set(contracts.map(nameOf));
  const gone = [...committed.keys()].filter((name) => !names.has(name));
  return [
    ...contracts.flatMap((contract) => {
      const before = committed.get(nameOf(contract));
      const lines = before === undefined ? [] : breaks(before, schemaOf(contract));
      return lines.length === 0 ? [] : [refusal(contract, lines)];
    }),
    ...gone.map(
      (name) =>
        `${name} has a committed schema and no contract. Messages of it may still lie in queues, logs and dead letters: keep it as an earlier ` +
        `version. When none can be left, delete ${SCHEMAS}/${name}.json.`,
    ),
  ];
}

const refusal = ({ type, version }: Contract, lines: readonly string[]): string =>
  [
    `${type} v${version} has changed so that readers break:`,
    ...lines.map((line) => `    ${line}`),
    `  Messages of v${version} may lie in queues, logs and dead letters, and workers that are running read v${version} as it was. So leave it as it was and`,
    `  make v${version + 1}: nextVersion(<the contract of v${version}>, { payload, aggregateId, upcast }), then run make contracts (docs/evolving.md).`,
    `  Only if v${version} has never been deployed: delete ${SCHEMAS}/${type}.v${version}.json and run make contracts.`,
  ].join('\n');

/** Which committed files are not those of the contracts, though no reader would break. */
export function staleness(contracts: readonly Contract[]): string[] {
  const committed = committedSchemas();
  const stale = contracts
    .filter((contract) => {
      const before = committed.get(nameOf(contract));
      return before === undefined || jsonOf(before) !== jsonOf(schemaOf(contract));
    })
    .map((contract) => `${SCHEMAS}/${nameOf(contract)}.json`);
  if (asyncApi(contracts, examples()) !== committedAsyncApi()) stale.push(ASYNCAPI);
  return stale.map((file) => `${file} is not of these contracts: run make contracts and commit what it writes.`);
}

export function write(contracts: readonly Contract[]): void {
  for (const contract of contracts) {
    writeFileSync(join(ROOT, SCHEMAS, `${nameOf(contract)}.json`), jsonOf(schemaOf(contract)));
  }
  writeFileSync(join(ROOT, ASYNCAPI), asyncApi(contracts, examples()));
}
