import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { Rights } from './vhost.ts';

const COMPOSE = join(import.meta.dirname, '../../docker-compose.yml');

const definitions = z.object({
  permissions: z.array(z.object({ user: z.string(), configure: z.string(), write: z.string(), read: z.string() })),
});

/** What docker-compose.yml lets a process do at the broker; as Compose reads it, with the defaults of variables, and $$ for $. */
export function rightsOf(name: string): Rights {
  const [, text = ''] = /rabbitmq-definitions:\n +content: \|\n([\s\S]*)$/.exec(readFileSync(COMPOSE, 'utf8')) ?? [];
  const json = text.replaceAll(/\$\{\w+:-(\w+)\}/g, '$1').replaceAll('$$', () => '$');
  const found = definitions.parse(JSON.parse(json)).permissions.find(({ user }) => user === name);
  if (found === undefined) throw new Error(`docker-compose.yml has no rights for ${name}`);
  const { configure, write, read } = found;
  return { configure, write, read };
}
