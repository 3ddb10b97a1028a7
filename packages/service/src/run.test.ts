import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, it, vi } from 'vitest';

vi.setConfig({ testTimeout: 20_000 });

/** A real process, since signals and exit codes are what is at stake. `start` is the body of run's second argument. */
function process_(start: string) {
  const script = `
    import { createServer } from 'node:http';
    import { createLogger, listen, run } from '${import.meta.resolve('./index.ts')}';
    const logger = createLogger({ name: 'test', level: 'info', format: 'json' });
    setInterval(() => {}, 1e6); // stands for the server that a real process listens with
    await run({ logger, deadlineMs: 2_000 }, async (stopping) => { ${start} });`;
  const child = spawn(process.execPath, ['--conditions=oncebox-source', '--input-type=module', '--eval', script]);
  const lines: string[] = [];
  child.stderr.on('data', (data) => lines.push(String(data)));
  const waiting = new Map<string, () => void>();
  const reader = createInterface(child.stdout).on('line', (line) => {
    const { msg } = JSON.parse(line);
    lines.push(msg);
    waiting.get(msg)?.();
  });
  return {
    child,
    said: (message: string) => new Promise<void>((resolve) => waiting.set(message, resolve)),
    async ended() {
      const [[code]] = await Promise.all([once(child as ChildProcess, 'exit'), once(reader, 'close')]);
      return { code, lines };
    },
  };
}

it.each(['SIGTERM', 'SIGINT'] as const)('on %s runs the steps in order and exits 0', async (signal) => {
  const { child, said, ended } = process_(`
    setImmediate(() => logger.info('up'));
    const step = (name) => ({ name, stop: async () => { await null; logger.info(name + ' ' + stopping.aborted); } });
    return [step('one'), step('two')];`);
  await said('up');
  child.kill(signal);
  expect(await ended()).toEqual({
    code: 0,
    lines: ['up', `${signal}: stopping`, 'one true', 'two true', 'Stopped'],
  });
});

it('is not cut short by a second signal', async () => {
  const { child, said, ended } = process_(`
    setImmediate(() => logger.info('up'));
    const second = new Promise((resolve) => process.on('SIGTERM', resolve));
    return [{ name: 'one', stop: () => { logger.info('in step'); return second; } }];`);
  await said('up');
  const inStep = said('in step');
  child.kill('SIGINT');
  await inStep;
  child.kill('SIGTERM');
  expect(await ended()).toEqual({ code: 0, lines: ['up', 'SIGINT: stopping', 'in step', 'Stopped'] });
});

it('exits 1 at the deadline, naming the step that hangs', async () => {
  const { child, said, ended } = process_(`
    setImmediate(() => logger.info('up'));
    return [{ name: 'broker', stop: () => new Promise(() => {}) }];`);
  await said('up');
  child.kill('SIGTERM');
  expect(await ended()).toEqual({
    code: 1,
    lines: ['up', 'SIGTERM: stopping', 'Not stopped within 2000 ms: broker hangs'],
  });
});

it('runs the other steps when one fails, and exits 1', async () => {
  const { child, said, ended } = process_(`
    setImmediate(() => logger.info('up'));
    return [{ name: 'one', stop: () => { throw new Error('no'); } }, { name: 'two', stop: () => logger.info('two') }];`);
  await said('up');
  child.kill('SIGTERM');
  expect(await ended()).toEqual({
    code: 1,
    lines: ['up', 'SIGTERM: stopping', 'Could not stop one', 'two', 'Stopped'],
  });
});

it('stops a start that is still waiting', async () => {
  const { child, said, ended } = process_(`
    setImmediate(() => logger.info('waiting'));
    await new Promise((_, reject) => stopping.addEventListener('abort', () => reject(stopping.reason)));`);
  await said('waiting');
  child.kill('SIGTERM');
  expect(await ended()).toEqual({ code: 0, lines: ['waiting', 'SIGTERM: stopping', 'Stopped'] });
});

it('ends with one fatal line and exit code 1 when it cannot start', async () => {
  const { ended } = process_(`
    const { port } = await listen(createServer(), { port: 0, host: '127.0.0.1' });
    logger.info('first');
    await listen(createServer(), { port, host: '127.0.0.1' });`);
  expect(await ended()).toEqual({
    code: 1,
    lines: ['first', expect.stringMatching(/^Could not start: listen EADDRINUSE/)],
  });
});

it.each([
  ['Uncaught exception', `setImmediate(() => { throw new Error('oops'); }); return [];`],
  ['Unhandled rejection', `Promise.reject(new Error('oops')); return [];`],
])('%s: one fatal line, exit code 1', async (message, start) => {
  expect(await process_(start).ended()).toEqual({ code: 1, lines: [`${message}: oops`] });
});
