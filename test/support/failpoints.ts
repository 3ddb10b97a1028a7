import { subscribe } from 'node:diagnostics_channel';
import { writeSync } from 'node:fs';
import { seeded } from './seeded.ts';

/**
 * Loaded with `--import` into a program under test, where it ends or stops that program by its own hand at one exact place: no
 * signal from outside can hit the moment between a confirm and its settling.
 *
 * `ONCEBOX_FAILPOINTS` names signals of the packages without their `oncebox:` (docs/operations.md has them all), what to do and when:
 * `relay:published=kill@3,inbox:handled=stop,inbox:committed=kill%0.01`. `kill` is SIGKILL and `stop` SIGSTOP; `@3` the third time,
 * once; `%0.01` each time with that chance, the same ones for the same `ONCEBOX_SEED`; without either, the first time.
 */
const FAILPOINT = /^([a-z]+:[a-z]+)=(kill|stop)(?:@(\d+)|%(0?\.\d+))?$/;
const SIGNALS = { kill: 'SIGKILL', stop: 'SIGSTOP' } as const;

const random = seeded(Number(process.env['ONCEBOX_SEED'] ?? 1));

for (const text of (process.env['ONCEBOX_FAILPOINTS'] ?? '').split(',').filter(Boolean)) {
  const [, point, action, nth, chance] = FAILPOINT.exec(text) ?? [];
  if (point === undefined || (action !== 'kill' && action !== 'stop')) throw new Error(`No failpoint: ${text}`);
  let times = 0;
  subscribe(`oncebox:${point}`, () => {
    times += 1;
    if (chance === undefined ? times !== Number(nth ?? 1) : random() >= Number(chance)) return;
    // Synchronous: the test that waits for this line must find it, and there is no later for this process.
    writeSync(1, `failpoint ${text}\n`);
    process.kill(process.pid, SIGNALS[action]);
  });
}
