import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const profile = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
    }),
  ),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

/** A function, and its share of the time in which the process was not idle. */
export interface SelfTime {
  readonly where: string;
  readonly share: number;
}

/** Reads the CPU profiles in a folder and forgets them; several of one case count together. */
export function topFunctions(folder: string, most = 25): { readonly busySeconds: number; readonly top: SelfTime[] } {
  const times = new Map<string, number>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))) {
    const { nodes, samples, timeDeltas } = profile.parse(JSON.parse(readFileSync(join(folder, file), 'utf8')));
    const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
    for (const [index, id] of samples.entries()) {
      const name = names.get(id) ?? '?';
      times.set(name, (times.get(name) ?? 0) + (timeDeltas[index] ?? 0));
    }
    rmSync(join(folder, file));
  }
  times.delete('(idle)');
  const busy = [...times.values()].reduce((sum, time) => sum + time, 0);
  const top = [...times].toSorted(([, a], [, b]) => b - a).slice(0, most);
  return { busySeconds: busy / 1e6, top: top.map(([where, time]) => ({ where, share: time / busy })) };
}

interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}

function nameOf({ functionName, url, lineNumber }: CallFrame): string {
  const name = functionName === '' ? '(anonymous)' : functionName;
  if (url === '') return name;
  const path = url.replace(/^.*\/node_modules\//, '').replace(/^file:\/\/.*\/(?=(packages|apps)\/)/, '');
  return `${name} ${path}:${lineNumber + 1}`;
}
