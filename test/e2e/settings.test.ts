import { expect, test } from 'vitest';
import { start } from '../support/processes.ts';

const database = 'mysql://someone:secret@127.0.0.1:1/schema';
const broker = 'amqp://someone:secret@127.0.0.1:2';
const API = { API_DATABASE_URL: database, AMQP_URL: broker };
const RELAY = { RELAY_DATABASE_URLS: database, AMQP_URL: broker };
const WORKER = { WORKER_DATABASE_URL: database, AMQP_URL: broker };

/** The variables that the line must name, in this order. */
const wrong = [
  { app: 'api', given: {}, names: ['API_DATABASE_URL is missing'] },
  { app: 'api', given: { ...API, API_PORT: 'secret' }, names: ['API_PORT is wrong'] },
  { app: 'api', given: { ...API, LOG_LEVEL: 'secret' }, names: ['LOG_LEVEL is wrong'] },
  { app: 'relay', given: { ...RELAY, AMQP_URL: 'http://secret' }, names: ['AMQP_URL is wrong'] },
  { app: 'relay', given: { ...RELAY, RELAY_LANES: '0' }, names: ['RELAY_LANES is wrong'] },
  {
    app: 'relay',
    given: { RELAY_DATABASE_URLS: `${database},secret`, RELAY_POLL_MS: '-1' },
    names: ['RELAY_DATABASE_URLS is wrong', 'AMQP_URL is missing', 'RELAY_POLL_MS is wrong'],
  },
  { app: 'worker', given: { ...WORKER, WORKER_DATABASE_URL: 'secret' }, names: ['WORKER_DATABASE_URL is wrong'] },
  { app: 'worker', given: { ...WORKER, WORKER_PREFETCH: 'secret' }, names: ['WORKER_PREFETCH is wrong'] },
  {
    app: 'worker',
    given: { ...WORKER, OTEL_EXPORTER_OTLP_ENDPOINT: 'secret:4318', OTEL_TRACES_SAMPLER_ARG: 'secret' },
    names: ['OTEL_EXPORTER_OTLP_ENDPOINT is wrong', 'OTEL_TRACES_SAMPLER_ARG is wrong'],
  },
];

test.each(wrong)(
  '$app ends with 1 and one line, which says $names and quotes no value',
  async ({ app, given, names }) => {
    const program = start(`apps/${app}/src/main.ts`, given);
    expect(await program.exited).toBe(1);
    const complaints = names.map((name) => `${name} \\([^;]+\\)`).join('; ');
    const msg = expect.stringMatching(new RegExp(`^Invalid configuration: ${complaints}$`));
    expect(program.lines).toEqual([{ level: 'stderr', msg }]);
    expect(program.lines[0]?.msg).not.toContain('secret');
  },
);
