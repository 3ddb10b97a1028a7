import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { isProjection, type Projection } from '@oncebox/event-store';
import { z } from 'zod';
import { UsageError } from './command.ts';

/** A module that exports projections, and the environment variable with the URL of their schema. */
export interface ProjectionModule {
  readonly variable: string;
  readonly file: string;
}

const manifest = z.object({
  oncebox: z.object({ projections: z.record(z.string(), z.array(z.string())) }).optional(),
});

/**
 * What `--module VARIABLE:file` names, or else what the nearest package.json lists: a rebuild must run the service's own code, and
 * whoever types the command should not have to know where that is.
 *
 * @throws UsageError
 */
export function findModules(given: readonly string[] | undefined): readonly ProjectionModule[] {
  if (given !== undefined) return given.map(readModule);
  // Run from its sources, it knows the repository that it is in, whatever folder it is called from.
  const starts = [
    process.env['INIT_CWD'] ?? process.cwd(),
    import.meta.filename.endsWith('.ts') && import.meta.dirname,
  ];
  for (const start of starts) {
    for (let folder = start || undefined; folder !== undefined; folder = parentOf(folder)) {
      const listed = listedIn(folder);
      if (listed !== undefined) return listed;
    }
  }
  throw new UsageError(
    'no projections: name the module that exports them with --module, or list it in package.json under oncebox.projections',
  );
}

function readModule(text: string): ProjectionModule {
  const [, variable, file] = /^([A-Za-z_]\w*):(?!\/\/)(.+)$/.exec(text) ?? [];
  // Not repeated in the message: what looks like no name may be the URL itself.
  if (variable === undefined || file === undefined) throw new UsageError('--module takes VARIABLE:file');
  return { variable, file: resolve(file) };
}

const parentOf = (folder: string): string | undefined => (dirname(folder) === folder ? undefined : dirname(folder));

function listedIn(folder: string): readonly ProjectionModule[] | undefined {
  const path = join(folder, 'package.json');
  if (!existsSync(path)) return undefined;
  const parsed = manifest.safeParse(JSON.parse(readFileSync(path, 'utf8')));
  if (!parsed.success) throw new UsageError(`${path}: oncebox.projections must map variables to lists of files`);
  const listed = Object.entries(parsed.data.oncebox?.projections ?? {});
  if (listed.length === 0) return undefined;
  return listed.flatMap(([variable, files]) => files.map((file) => ({ variable, file: resolve(folder, file) })));
}

/** Runs the module. @throws UsageError when there is none, or when it exports no projection. */
export async function loadProjections({ file }: ProjectionModule): Promise<readonly Projection[]> {
  if (!existsSync(file)) throw new UsageError(`there is no file ${file}`);
  const exported: Record<string, unknown> = await import(pathToFileURL(file).href);
  const projections = Object.values(exported).filter(isProjection);
  if (projections.length === 0) throw new UsageError(`${file} exports no projection`);
  return projections;
}
