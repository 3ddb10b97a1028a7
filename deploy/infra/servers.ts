/** A database server and a broker that answer, and who may administer them. */
export interface Servers {
  /** An administrator's, without a schema: `mysql://root:…@127.0.0.1:13306`. */
  readonly databaseUrl: string;
  /** An administrator's, on the default vhost. */
  readonly amqpUrl: string;
  /** `http://user:password@host:port` of RabbitMQ's management API. */
  readonly managementUrl: string;
  readonly kind: 'mysql' | 'mariadb';
}

export interface Ports {
  readonly database: number;
  readonly amqp: number;
  readonly management: number;
  /** Erlang's own two: between nodes, and the daemon that tells their ports. Nobody else needs them. */
  readonly distribution: number;
  readonly epmd: number;
}

/**
 * Where `make infras` puts the servers; docker-compose.yml and .env.example say the same. Not the standard ports, which
 * a developer's machine often has taken, and below Linux's ephemeral range, where a client that reconnects to a port
 * nobody listens on can end up connected to itself.
 */
export const HOST_PORTS: Ports = {
  database: 13306,
  amqp: 13672,
  management: 13673,
  distribution: 13674,
  epmd: 13675,
};

/** For development and tests, on the loopback interface only. */
export const ADMINISTRATOR = { database: 'root', broker: 'oncebox', password: 'oncebox' } as const;

export function serversAt(host: string, ports: Pick<Ports, 'database' | 'amqp' | 'management'>, kind: Servers['kind']) {
  const { database, broker, password } = ADMINISTRATOR;
  return {
    databaseUrl: `mysql://${database}:${password}@${host}:${ports.database}`,
    amqpUrl: `amqp://${broker}:${password}@${host}:${ports.amqp}`,
    managementUrl: `http://${broker}:${password}@${host}:${ports.management}`,
    kind,
  } satisfies Servers;
}
