import { describe, expect, it } from 'vitest';
import { connectionOptions, parseDatabaseUrl } from './pool.ts';

describe('parseDatabaseUrl', () => {
  it('reads every part, decoded', () => {
    expect(parseDatabaseUrl('mysql://ap%40i:p%2Fw@db.example:3307/shop')).toEqual({
      host: 'db.example',
      port: 3307,
      user: 'ap@i',
      password: 'p/w',
      schema: 'shop',
      tls: false,
    });
  });

  it('knows the standard port and an administrator, who names no schema', () => {
    expect(parseDatabaseUrl('mysql://root@127.0.0.1')).toMatchObject({ port: 3306, schema: '' });
  });

  it.each(['mysqls://u:p@h/s', 'mysql://u:p@h/s?tls=true'])('asks for TLS with a verified certificate: %s', (url) => {
    expect(connectionOptions(url)).toMatchObject({ ssl: { rejectUnauthorized: true } });
  });

  it.each([
    '',
    'shop',
    'postgres://u:hunter2@h/s',
    'mysql://',
    'mysql://u:hunter2%@h/s',
    'mysql://u%zz:hunter2@h/s',
    'mysql://u:hunter2@h/100%',
  ])('refuses %j without quoting it', (url) => {
    expect(() => parseDatabaseUrl(url)).toThrow(expect.objectContaining({ code: 'ONCEBOX_INVALID_URL' }));
    expect(() => parseDatabaseUrl(url)).not.toThrow(/hunter2/);
  });
});
