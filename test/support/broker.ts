import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inject } from 'vitest';
import { removeNative } from '../../deploy/infra/native.ts';
import { stop } from '../../deploy/infra/process.ts';
import { rabbitmq, startRabbitmq } from '../../deploy/infra/rabbitmq.ts';
import { serversAt } from '../../deploy/infra/servers.ts';
import { guard } from './guard.ts';
import { startProxy } from './proxy.ts';
import { freePorts, NATIVE, rabbitmqContainer, TEST_RUN } from './servers.ts';
import { createVhost } from './vhost.ts';

/** A broker of one test's own, which it may stop: the one that the tests share must stay up. Data outlives a stop. */
export interface Broker {
  readonly amqpUrl: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Whether it blocks whoever publishes, as it does when its memory runs out. */
  alarm(isOn: boolean): Promise<void>;
  /** The largest message that it takes on channels which are opened from now on. */
  limitMessages(bytes: number): Promise<void>;
  remove(): Promise<void>;
}

/** rabbitmqctl's arguments. With a limit of nothing, whatever it uses is too much; 0.4 is the default. */
const limitMemory = (isAlarmed: boolean): string[] => ['set_vm_memory_high_watermark', isAlarmed ? '0' : '0.4'];

/** RabbitMQ 3.10 reads the setting for each channel; 4.3 keeps a copy of it from its start. */
const limitBytes = (bytes: number): string[] => [
  'eval',
  `application:set_env(rabbit, max_message_size, ${bytes}), persistent_term:put(max_message_size, ${bytes}).`,
];

/** Of the same kind as the shared servers. A given one cannot be stopped, so there a proxy refuses in its stead. */
export async function createBroker(): Promise<Broker> {
  const source = inject('source');
  if (source === 'given') return behindProxy();
  return source === 'docker' ? inDocker() : natively();
}

async function natively(): Promise<Broker> {
  const dir = join(NATIVE, `${process.pid}-broker`);
  mkdirSync(dir, { recursive: true });
  guard('native', dir);
  const ports = await freePorts();
  const start = () => startRabbitmq(dir, ports, () => undefined);
  await start();
  const { amqpUrl } = serversAt('127.0.0.1', ports, 'mariadb');
  const environment = {
    ...process.env,
    HOME: join(dir, 'rabbitmq'), // Erlang's cookie
    RABBITMQ_NODENAME: `oncebox-${ports.amqp}@localhost`,
    RABBITMQ_CONF_ENV_FILE: join(dir, 'no-such-file'),
    ERL_EPMD_PORT: String(ports.epmd),
  };
  const control = async (command: string[]): Promise<void> => {
    await promisify(execFile)('/usr/lib/rabbitmq/bin/rabbitmqctl', command, { env: environment });
  };
  return {
    amqpUrl,
    start,
    stop: () => stop(rabbitmq(dir)),
    alarm: (isOn) => control(limitMemory(isOn)),
    limitMessages: (bytes) => control(limitBytes(bytes)),
    remove: () => removeNative(dir),
  };
}

async function inDocker(): Promise<Broker> {
  const run = `${process.pid}-broker-${Date.now()}`;
  guard('docker', `${TEST_RUN}=${run}`);
  const ports = await freePorts();
  const container = await rabbitmqContainer(ports, { [TEST_RUN]: run }).start();
  const control = async (command: string[]): Promise<void> => {
    const { exitCode, output } = await container.exec(['rabbitmqctl', ...command]);
    if (exitCode !== 0) throw new Error(`rabbitmqctl: ${output}`);
  };
  return {
    amqpUrl: serversAt(container.getHost(), ports, 'mysql').amqpUrl,
    start: () => container.restart(),
    stop: async () => void (await container.stop({ remove: false })),
    alarm: (isOn) => control(limitMemory(isOn)),
    limitMessages: (bytes) => control(limitBytes(bytes)),
    remove: async () => void (await container.stop()),
  };
}

async function behindProxy(): Promise<Broker> {
  const vhost = await createVhost(inject('servers'));
  const proxy = await startProxy(vhost.amqpUrl);
  const refuse = () => Promise.reject(new Error('A given broker serves others, too: its limits are not changed'));
  const { url: amqpUrl, pass: start, refuse: stop } = proxy;
  return { amqpUrl, start, stop, alarm: refuse, limitMessages: refuse, remove: vhost.drop };
}
