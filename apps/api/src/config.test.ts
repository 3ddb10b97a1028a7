import { readConfig } from '@oncebox/service';
import { expect, it } from 'vitest';
import { config } from './config.ts';

it('needs a database and nothing else', () => {
  expect(() => readConfig(config, {})).toThrow(/^Invalid configuration: API_DATABASE_URL is missing \([^;]*\)$/);
  expect(readConfig(config, { API_DATABASE_URL: 'mysql://api:api@127.0.0.1:13306/shop' })).toMatchObject({
    API_PORT: 3000,
    API_OPS_PORT: 3100,
    API_IDEMPOTENCY_HOURS: 24,
  });
});
