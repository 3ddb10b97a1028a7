import { readConfig } from '@oncebox/service';
import { describe, expect, it } from 'vitest';
import { workerConfig } from './config.ts';

const needed = { WORKER_DATABASE_URL: 'mysql://w:w@db/fulfilment', AMQP_URL: 'amqp://broker' };

describe('workerConfig', () => {
  it('leaves attempts and deadline to each consumer, and keeps processed ids for a week and handled dead letters for a month', () => {
    const config = readConfig(workerConfig, needed);
    expect(config.WORKER_RETRY_DELAYS_MS).toBeUndefined();
    expect(config).toMatchObject({
      WORKER_DEADLINE_MS: 0,
      WORKER_RETENTION_HOURS: 168,
      WORKER_DEAD_LETTER_RETENTION_HOURS: 720,
    });
  });

  it('takes delays as a list', () => {
    expect(readConfig(workerConfig, { ...needed, WORKER_RETRY_DELAYS_MS: '100, 2000' }).WORKER_RETRY_DELAYS_MS).toEqual(
      [100, 2_000],
    );
  });

  it('takes 0 for dead letters that are kept for ever', () => {
    const config = readConfig(workerConfig, { ...needed, WORKER_DEAD_LETTER_RETENTION_HOURS: '0' });
    expect(config.WORKER_DEAD_LETTER_RETENTION_HOURS).toBe(0);
    for (const WORKER_DEAD_LETTER_RETENTION_HOURS of ['-1', '1.5', '90000']) {
      expect(() => readConfig(workerConfig, { ...needed, WORKER_DEAD_LETTER_RETENTION_HOURS })).toThrow(
        'WORKER_DEAD_LETTER_RETENTION_HOURS',
      );
    }
  });

  it.each(['soon', '1000,', '0', '-1', '1.5', '9999999999'])('refuses the delays %j', (WORKER_RETRY_DELAYS_MS) => {
    expect(() => readConfig(workerConfig, { ...needed, WORKER_RETRY_DELAYS_MS })).toThrow('WORKER_RETRY_DELAYS_MS');
  });
});
