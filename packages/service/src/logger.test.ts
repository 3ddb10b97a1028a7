import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { pino } from 'pino';
import { expect, it, onTestFinished, vi } from 'vitest';
import { HOSTILE } from '../../../test/support/thrown.ts';
import { serializeError } from './logged-error.ts';

vi.setConfig({ testTimeout: 20_000 });

/** What a process has written by the time it is gone, which is what a log is for. */
function output(format: string, statements: string): string {
  const script = `
    import { createLogger } from '${import.meta.resolve('./index.ts')}';
    const logger = createLogger({ name: 'api', level: 'info', format: '${format}' });
    ${statements}
    process.exit(0);`;
  const node = ['--conditions=oncebox-source', '--input-type=module', '--eval', script];
  const { stdout, stderr } = spawnSync(process.execPath, node, {
    encoding: 'utf8',
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
  });
  expect(stderr).toBe('');
  return stdout;
}

it('writes JSON lines with the level by name, the time, the fields, and an error with its cause', () => {
  const lines = output(
    'json',
    `logger.debug('hidden'); logger.info({ id: 7 }, 'one');
     logger.error({ err: new Error('outer', { cause: Object.assign(new Error('inner'), { code: 'ECONNREFUSED' }) }) }, 'two');`,
  );
  const [first, second, ...rest] = lines.trim().split('\n');
  expect(rest).toEqual([]);
  expect(JSON.parse(first ?? '')).toMatchObject({ level: 'info', name: 'api', id: 7, msg: 'one' });
  expect(JSON.parse(first ?? '').time).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
  expect(JSON.parse(second ?? '')).toMatchObject({
    err: { type: 'Error', message: 'outer', cause: { message: 'inner', code: 'ECONNREFUSED' } },
  });
});

it('writes pretty lines that people read, the last one before the end included', () => {
  expect(output('pretty', `logger.info('Listening'); logger.warn({ id: 7 }, 'last');`)).toMatch(
    /^\[\d\d:\d\d:\d\d\] INFO api: Listening\n\[\d\d:\d\d:\d\d\] WARN api: last \{"id":7\}\n$/,
  );
});

it.each(['json', 'pretty'])('keeps the order of its %s lines up to the end of the process', (format) => {
  // The thread that asynchronous writes would use is busy, as under load: such a write would come after the exit's flush.
  const busy = `(await import('node:crypto')).pbkdf2('x', 'y', 300_000, 64, 'sha512', () => {});`;
  const lines = output(format, `${busy} for (const n of ['first', 'second', 'third']) logger.info(n);`);
  expect(lines.match(/first|second|third/g)).toEqual(['first', 'second', 'third']);
});

it('writes a fatal line, and what came before it, though the process is killed in the same turn', () => {
  const lines = output('json', `logger.info('before'); logger.fatal('last'); process.kill(process.pid, 'SIGKILL');`);
  expect(lines.match(/before|last/g)).toEqual(['before', 'last']);
});

it('writes what is said while the process exits', () => {
  const lines = output('json', `process.on('exit', () => logger.info('last')); logger.info('first');`);
  expect(lines.match(/first|last/g)).toEqual(['first', 'last']);
});

it('lets a process go on when nobody reads its output any more', async () => {
  const script = `
    import { createLogger } from '${import.meta.resolve('./index.ts')}';
    const logger = createLogger({ name: 'api', level: 'info', format: 'json' });
    logger.info('Listening');
    process.stdin.once('end', () => { logger.info('to nobody'); setImmediate(() => { logger.info('again'); setImmediate(() => process.exit(7)); }); }).resume();`;
  const node = ['--conditions=oncebox-source', '--input-type=module', '--eval', script];
  const child = spawn(process.execPath, node, { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  await once(child.stdout, 'close');
  child.stdin.end();
  expect(await once(child, 'exit')).toEqual([7, null]);
});

it('hides the data that a database error carries and quotes, and keeps what tells the fault', () => {
  const message = "Duplicate entry 'ada@example.com' for key 'customers.customers_email'";
  const error = new Error('insert failed', {
    cause: Object.assign(new Error(message), {
      code: 'ER_DUP_ENTRY',
      errno: 1062,
      sql: "INSERT INTO customers VALUES ('ada@example.com')",
      sqlMessage: message,
    }),
  });
  const logged = JSON.stringify(serializeError(error));
  expect(logged).not.toContain('ada@example.com');
  expect(logged).toContain("Duplicate entry '[hidden]' for key 'customers.customers_email'");
  expect(logged).toContain('ER_DUP_ENTRY');
  for (const text of [
    "Incorrect string value: '\\xF0it's' for column 'name' at row 1",
    "right syntax near 'ada' at line 1",
    "Duplicate entry 'x' for key 'ada' for key 'customers.customers_email'",
  ]) {
    expect(JSON.stringify(serializeError(new Error(text)))).not.toMatch(/xF0|ada/);
  }
});

it.each(HOSTILE)('logs whatever was thrown: %s', (_label, make) => {
  const lines: string[] = [];
  const logger = pino({ serializers: { err: serializeError } }, { write: (line: string) => void lines.push(line) });
  logger.error({ err: make() }, 'thrown');
  expect(lines.map((line) => JSON.parse(line).msg)).toEqual(['thrown']);
});

it('logs a frozen error with what it says, and without the data that it quotes', () => {
  const error = Object.freeze(new Error("Duplicate entry 'ada' for key 'email'"));
  expect(serializeError(error)).toMatchObject({ type: 'Error', message: "Duplicate entry '[hidden]' for key 'email'" });
});
