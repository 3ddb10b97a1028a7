import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import {
  killRemains,
  launch,
  type OnProgress,
  requireFreePort,
  runningPid,
  type ServerProcess,
  untilReady,
} from './process.ts';
import { ADMINISTRATOR, type Ports } from './servers.ts';

export const rabbitmq = (dir: string): ServerProcess => ({ dir, name: 'rabbitmq' });
export const epmd = (dir: string): ServerProcess => ({ dir, name: 'epmd' });

/** Brings up a private RabbitMQ under `dir`; one that runs there already is kept. */
export async function startRabbitmq(dir: string, ports: Ports, onProgress: OnProgress): Promise<void> {
  const server = rabbitmq(dir);
  const home = join(dir, 'rabbitmq');
  // A broker killed during its first boot can lack its user for ever, so files count only once it has answered.
  const complete = join(home, 'complete');
  if (runningPid(server) === undefined) {
    await killRemains(server); // a broker that misses its epmd starts another, which survives it and keeps the port
    for (const port of [ports.amqp, ports.management, ports.distribution]) {
      await requireFreePort('RabbitMQ', port);
    }
    if (!existsSync(complete)) rmSync(home, { recursive: true, force: true });
    mkdirSync(home, { recursive: true });
    await startEpmd(dir, ports.epmd);
    onProgress(`starting RabbitMQ on 127.0.0.1:${ports.amqp}`);
    // The packaged wrapper in /usr/sbin drops root to the user `rabbitmq`, who may not write here; this one does not.
    await launch(server, ['/usr/lib/rabbitmq/bin/rabbitmq-server'], environment(home, ports));
  }
  await untilReady(server, () => answers(ports), 120_000);
  writeFileSync(complete, '');
}

/** Erlang would start one by itself, on all interfaces and recorded nowhere. */
async function startEpmd(dir: string, port: number): Promise<void> {
  const server = epmd(dir);
  if (runningPid(server) !== undefined) return;
  await requireFreePort('epmd', port);
  await launch(server, ['/usr/bin/epmd', '-port', String(port), '-address', '127.0.0.1'], process.env);
  await untilReady(server, () => listens(port), 10_000);
}

function environment(home: string, ports: Ports): NodeJS.ProcessEnv {
  const configuration = join(home, 'rabbitmq.conf');
  const plugins = join(home, 'enabled_plugins');
  const { broker: user, password } = ADMINISTRATOR;
  writeFileSync(
    configuration,
    [
      `listeners.tcp.1 = 127.0.0.1:${ports.amqp}`,
      'management.tcp.ip = 127.0.0.1',
      `management.tcp.port = ${ports.management}`,
      `default_user = ${user}`,
      `default_pass = ${password}`,
      '',
    ].join('\n'),
  );
  writeFileSync(plugins, '[rabbitmq_management].\n');
  return {
    ...process.env,
    HOME: home, // Erlang's cookie
    RABBITMQ_NODENAME: `oncebox-${ports.amqp}@localhost`,
    RABBITMQ_CONFIG_FILE: configuration,
    RABBITMQ_CONF_ENV_FILE: join(home, 'no-such-file'),
    RABBITMQ_MNESIA_BASE: join(home, 'mnesia'),
    RABBITMQ_LOG_BASE: join(home, 'log'),
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_FEATURE_FLAGS_FILE: join(home, 'feature_flags'),
    RABBITMQ_PID_FILE: join(home, 'rabbitmq.pid'),
    RABBITMQ_DIST_PORT: String(ports.distribution),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_PORT: String(ports.epmd),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // The start script then becomes the Erlang VM instead of waiting for it, so the pid in our file is the broker's.
    RUNNING_UNDER_SYSTEMD: 'true',
  };
}

/** The management API says so itself once the AMQP listener, which comes last, is up. */
async function answers(ports: Ports): Promise<boolean> {
  const { broker: user, password } = ADMINISTRATOR;
  const url = `http://127.0.0.1:${ports.management}/api/health/checks/port-listener/${ports.amqp}`;
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  try {
    const response = await fetch(url, { headers: { authorization }, signal: AbortSignal.timeout(2_000) });
    return response.ok;
  } catch {
    return false;
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
