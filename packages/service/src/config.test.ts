import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { readConfig } from './config.ts';
import { amqpUrls, databaseUrl, databaseUrls, flag, integer, logSettings, port, share } from './settings.ts';

vi.setConfig({ testTimeout: 20_000 });

const schema = z.object({
  DATABASE_URL: databaseUrl(),
  RELAY_URLS: databaseUrls().optional(),
  AMQP_URL: amqpUrls().optional(),
  PORT: port(3000),
  BATCH: integer(1, 1000, 500),
  SHARE: share(1),
  FLAG: flag(false),
  ...logSettings,
});
const DATABASE_URL = 'mysql://api:s3cret@127.0.0.1:13306/shop';
const read = (environment: Record<string, string>) => readConfig(schema, { DATABASE_URL, ...environment });

describe('readConfig', () => {
  it('gives defaults where nothing is set, and for an empty string', () => {
    const settings = {
      PORT: 3000,
      BATCH: 500,
      SHARE: 1,
      FLAG: false,
      LOG_LEVEL: 'info',
      LOG_FORMAT: 'json',
      LOG_PAYLOADS: false,
    };
    expect(read({})).toEqual({ DATABASE_URL, ...settings });
    expect(read({ PORT: '', LOG_FORMAT: '', FLAG: '' })).toEqual({ DATABASE_URL, ...settings });
  });

  it('reads numbers, flags and lists of URLs', () => {
    const config = read({ PORT: '0', BATCH: '1000', FLAG: 'on', AMQP_URL: 'amqp://a:b@one, amqps://a:b@two:5671/v' });
    expect(config).toMatchObject({ PORT: 0, BATCH: 1000, FLAG: true });
    expect(config.AMQP_URL).toEqual(['amqp://a:b@one', 'amqps://a:b@two:5671/v']);
    expect(read({ RELAY_URLS: `${DATABASE_URL},mysqls://r:p@db/fulfilment` }).RELAY_URLS).toHaveLength(2);
    for (const part of ['0', '0.25', '1', '1.0']) expect(read({ SHARE: part }).SHARE).toBe(Number(part));
    for (const off of ['false', '0', 'off', 'OFF']) expect(read({ FLAG: off }).FLAG).toBe(false);
  });

  it.each([
    { PORT: '65536' },
    { PORT: '-1' },
    { PORT: '80 ' },
    { PORT: '0x50' },
    { BATCH: '0' },
    { BATCH: '987654' },
    { BATCH: '1.5' },
    { SHARE: '1.1' },
    { SHARE: '-0.5' },
    { SHARE: '.5' },
    { FLAG: 'yes' },
    { LOG_LEVEL: 'loud' },
    { LOG_FORMAT: 'xml' },
    { DATABASE_URL: 'postgres://a:s3cret@db/shop' },
    { DATABASE_URL: 'mysql://a:s3cret@db:3306' },
    { DATABASE_URL: 'mysql://a:s3cret%@db/shop' },
    { RELAY_URLS: `${DATABASE_URL},` },
    { AMQP_URL: 'http://a:s3cret@broker' },
    { AMQP_URL: 'amqp://a:s3cret@one,two' },
  ])('refuses %o and names the variable, not the value', (environment) => {
    const [[name, value]] = Object.entries(environment) as [[string, string]];
    expect(() => read(environment)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_CONFIG' }));
    expect(() => read(environment)).toThrow(new RegExp(`^Invalid configuration: ${name} is wrong \\(must .+\\)$`));
    if (value.length > 4) expect(() => read(environment)).not.toThrow(value);
    expect(() => read(environment)).not.toThrow('s3cret');
  });

  it('names every wrong variable once, in one line', () => {
    expect(() => readConfig(schema, { PORT: 'x', FLAG: 'maybe' })).toThrow(
      /^Invalid configuration: DATABASE_URL is missing \([^\n]+\); PORT is wrong \([^\n]+\); FLAG is wrong \([^\n]+\)$/,
    );
  });
});

describe('loadConfig', () => {
  const script = `
    import { z } from 'zod';
    import { loadConfig, port } from '${import.meta.resolve('./index.ts')}';
    console.log(JSON.stringify(loadConfig(z.object({ A_PORT: port(1), B_PORT: port(2), C_PORT: port(3) }))));`;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'config-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const node = ['--conditions=oncebox-source', '--input-type=module', '--eval', script];
  const environment = (variables: Record<string, string>) => ({
    PATH: process.env['PATH'],
    INIT_CWD: folder,
    ...variables,
  });

  it('takes what the environment does not say from .env, and the rest from the defaults', () => {
    writeFileSync(join(folder, '.env'), 'A_PORT=10\nB_PORT=20\n');
    const output = execFileSync(process.execPath, node, { env: environment({ A_PORT: '11' }), encoding: 'utf8' });
    expect(output).toBe('{"A_PORT":11,"B_PORT":20,"C_PORT":3}\n');
  });

  it('ends the process with exit code 1 and one line on stderr', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, node, {
      env: environment({ B_PORT: 'none' }),
      encoding: 'utf8',
    });
    expect({ status, stdout, stderr }).toEqual({
      status: 1,
      stdout: '',
      stderr: 'Invalid configuration: B_PORT is wrong (must be an integer from 0 to 65535)\n',
    });
  });
});
