import { describe, expect, it } from 'vitest';
import { UsageError } from './command.ts';
import { parseService } from './config.ts';

describe('parseService', () => {
  it.each([
    ['BILLING_DATABASE_URL', { variable: 'BILLING_DATABASE_URL' }],
    ['API_DATABASE_URL:migrations/shop', { variable: 'API_DATABASE_URL', folder: 'migrations/shop' }],
    ['A:C:\\migrations', { variable: 'A', folder: 'C:\\migrations' }],
  ])('reads %s', (text, service) => {
    expect(parseService(text)).toEqual(service);
  });

  it.each(['', 'A:', 'A B', 'mysql://api:secret@localhost/shop'])('refuses %j and does not repeat it', (text) => {
    expect(() => parseService(text)).toThrow(UsageError);
    expect(() => parseService(text)).not.toThrow(/secret/);
  });
});
