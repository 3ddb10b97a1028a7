import type { Role } from './fleet.ts';

/** The moments at which a process can do the most damage, by the names of `test/support/failpoints.ts`. */
const POINTS: Readonly<Record<Role, readonly string[]>> = {
  api: ['transaction:committing', 'transaction:committed'],
  relay: ['relay:claimed', 'relay:published', 'relay:settled', 'relay:committed'],
  worker: ['inbox:recorded', 'inbox:handled', 'inbox:committed', 'consumer:acked'],
};

type Environment = Readonly<Record<string, string>>;

/** The process ends itself at one of its points, at the first to fifth time. */
export function killedSoon(role: Role, random: () => number): Environment {
  const points = POINTS[role];
  const point = points[Math.floor(random() * points.length)];
  return { ONCEBOX_FAILPOINTS: `${point}=kill@${1 + Math.floor(random() * 5)}` };
}

/** It may end or stop itself at each of them, now and then. */
export function killedSometime(role: Role, random: () => number): Environment {
  const failpoints = POINTS[role].flatMap((point) => [`${point}=kill%0.001`, `${point}=stop%0.0003`]);
  return { ONCEBOX_FAILPOINTS: failpoints.join(), ONCEBOX_SEED: String(Math.floor(random() * 2 ** 31)) };
}
