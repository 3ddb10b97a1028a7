import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Channel, type ChannelModel, connect } from 'amqplib';
import type { Servers } from '../../deploy/infra/servers.ts';

export interface Rights {
  readonly configure: string;
  readonly write: string;
  readonly read: string;
}

/** What routing keys a user may publish and bind with at a topic exchange. */
export interface TopicRights {
  readonly exchange: string;
  readonly write: string;
  readonly read: string;
}

/** A virtual host of its own for one test file: files run side by side on one broker and must not meet. */
export interface Vhost {
  readonly amqpUrl: string;
  /** The URL of a new user who may do this much here; `amqpUrl` is that of one who may do everything. */
  userWith(rights: Rights, more?: { readonly topics?: TopicRights; readonly maxChannels?: number }): Promise<string>;
  /** A new channel on a connection of the test's own, to declare, bind, publish and read with. */
  channel(): Promise<Channel>;
  /** Messages that are ready in the queue; 0 while it does not exist. By AMQP, because the management API's numbers are seconds old. */
  depth(queue: string): Promise<number>;
  /** The keys that a queue is bound for, sorted; the first is always the default exchange's. */
  bindings(queue: string): Promise<unknown[]>;
  /** Waits until the management API knows connections of this name, then has the broker close them, as an operator would. */
  closeConnections(name: string): Promise<void>;
  /** Deletes all that it has, as when the broker's disk is gone. Connections break and come back to an empty one; channels of this stay dead. */
  reset(): Promise<void>;
  drop(): Promise<void>;
}

export async function createVhost({ amqpUrl, managementUrl }: Servers): Promise<Vhost> {
  const name = `test-${randomUUID()}`;
  const management = new URL(managementUrl);
  const authorization = `Basic ${Buffer.from(`${management.username}:${management.password}`).toString('base64')}`;
  const api = async (method: string, path: string, body?: object): Promise<unknown> => {
    const response = await fetch(new URL(`/api/${path}`, `http://${management.host}`), {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok && response.status !== 404) throw new Error(`${method} ${path}: ${response.status}`);
    return method === 'GET' && response.ok ? response.json() : undefined;
  };

  const url = new URL(amqpUrl);
  url.pathname = `/${name}`;
  const create = async (): Promise<ChannelModel> => {
    await api('PUT', `vhosts/${name}`);
    await api('PUT', `permissions/${name}/${url.username}`, { configure: '.*', write: '.*', read: '.*' });
    const opened = await connect(url.href, { clientProperties: { connection_name: 'test itself' } });
    opened.on('error', () => undefined); // the vhost is deleted under it in the end
    return opened;
  };
  let connection = await create();

  const channel = async (): Promise<Channel> => {
    const opened = await connection.createChannel();
    opened.on('error', () => undefined); // the call that caused it rejects
    return opened;
  };

  const users: string[] = [];

  return {
    amqpUrl: url.href,
    async userWith(rights, { topics, maxChannels } = {}) {
      const user = new URL(url);
      user.username = user.password = `user-${randomUUID()}`;
      users.push(user.username);
      await api('PUT', `users/${user.username}`, { password: user.password, tags: '' });
      await api('PUT', `permissions/${name}/${user.username}`, rights);
      if (topics !== undefined) await api('PUT', `topic-permissions/${name}/${user.username}`, topics);
      if (maxChannels !== undefined) {
        await api('PUT', `user-limits/${user.username}/max-channels`, { value: maxChannels });
      }
      return user.href;
    },
    channel,
    async depth(queue) {
      const probe = await channel();
      try {
        const { messageCount } = await probe.checkQueue(queue);
        await probe.close();
        return messageCount;
      } catch (error) {
        if (error instanceof Error && Reflect.get(error, 'code') === 404) return 0; // it closed the channel, too
        throw error;
      }
    },
    async bindings(queue) {
      const listed = await api('GET', `queues/${name}/${queue}/bindings`);
      if (!Array.isArray(listed)) return [];
      return listed.map(({ source, routing_key }) => (source === '' ? '' : routing_key)).sort();
    },
    async closeConnections(connectionName) {
      const deadline = Date.now() + 30_000;
      for (;;) {
        const listed = await api('GET', `vhosts/${name}/connections`);
        const found = Array.isArray(listed) ? listed.filter((each) => nameOf(each) === connectionName) : [];
        for (const each of found) await api('DELETE', `connections/${encodeURIComponent(each.name)}`);
        if (found.length > 0) return;
        if (Date.now() > deadline) throw new Error(`The broker lists no connection named ${connectionName}`);
        await sleep(100);
      }
    },
    async reset() {
      await connection.close();
      await api('DELETE', `vhosts/${name}`);
      connection = await create();
    },
    async drop() {
      await connection.close();
      await api('DELETE', `vhosts/${name}`);
      for (const user of users) await api('DELETE', `users/${user}`);
    },
  };
}

const nameOf = (listed: { client_properties?: { connection_name?: unknown } }): unknown =>
  listed.client_properties?.connection_name;
