import { createPool, grantUsers, type Pool } from '@oncebox/mysql';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { createSchemas, type TestSchemas } from '../support/schemas.ts';

const { databaseUrl } = inject('servers');
const CUSTOMER = `INSERT INTO customers (id, email, name) VALUES (UUID(), CONCAT(UUID(), '@example.com'), 'A')`;
const MESSAGE = `INSERT INTO outbox (id, aggregatetype, aggregateid, type, version, payload) VALUES (UUID(), 'customer', '1', 'X', 1, '{}')`;
const EMAIL = `INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES ('1', UUID(), 'a', 'b', 'c')`;

let schemas: TestSchemas;
let admin: Pool;
let api: Pool;
let worker: Pool;
let relays: Pool[];

beforeAll(async () => {
  schemas = await createSchemas({ databaseUrl });
  const pool = (url: string) => createPool(url, { connections: 1 });
  admin = pool(schemas.shop.adminUrl);
  api = pool(schemas.shop.url);
  worker = pool(schemas.fulfilment.url);
  relays = schemas.relayUrls.split(',').map(pool);
});
afterAll(async () => {
  await Promise.all([admin, api, worker, ...relays].map((pool) => pool.end()));
  await schemas.drop();
});

/** 1142: not on this table; 1044: not in this schema at all. */
const denied = (query: Promise<unknown>) =>
  expect(query).rejects.toMatchObject({ errno: expect.toSatisfy((errno) => errno === 1142 || errno === 1044) });

describe('the user of a service', () => {
  it('reads and writes its own tables', async () => {
    await api.query(CUSTOMER);
    await api.query("UPDATE customers SET name = 'B'");
    await api.query('SELECT * FROM customers FOR UPDATE');
    await api.query('DELETE FROM customers');
    await worker.query(EMAIL);
    await worker.query('DELETE FROM emails');
  });

  it('adds to its outbox and reads it, and can neither change nor take back what it has promised', async () => {
    await api.query(MESSAGE);
    await api.query('SELECT * FROM outbox');
    await denied(api.query("UPDATE outbox SET state = 'published', published_at = created_at"));
    await denied(api.query('DELETE FROM outbox'));
    await denied(api.query('SELECT * FROM outbox_partition FOR UPDATE'));
    await denied(api.query('DELETE FROM outbox_waiting'));
  });

  it('records what it has processed, and lets go of what is old', async () => {
    await worker.query("INSERT INTO processed_messages (consumer, message_id) VALUES ('c', '1')");
    await denied(worker.query("UPDATE processed_messages SET consumer = 'd'"));
    await worker.query('DELETE FROM processed_messages');
  });

  it('sees nothing of other schemas', async () => {
    const { shop, fulfilment } = schemas;
    await denied(worker.query('SELECT * FROM ??.customers', [shop.name]));
    await denied(worker.query('INSERT INTO ??.processed_messages (consumer, message_id) VALUES (1, 1)', [shop.name]));
    await denied(api.query('SELECT * FROM ??.emails', [fulfilment.name]));
    await denied(api.query('SELECT * FROM mysql.user'));
  });

  it('cannot change the schema or the ledger of migrations', async () => {
    await denied(api.query('ALTER TABLE customers ADD COLUMN x INT'));
    await denied(api.query('CREATE TABLE x (id INT)'));
    await denied(api.query('DROP TABLE outbox'));
    await denied(api.query('TRUNCATE TABLE customers'));
    await denied(api.query('DELETE FROM schema_migrations'));
  });

  it('gets nothing in a schema whose name an underscore of its own would match as a pattern', async () => {
    const twin = schemas.shop.name.replace('_', 'x');
    await admin.query('CREATE DATABASE ??', [twin]);
    await admin.query('CREATE TABLE ??.outbox (id INT)', [twin]);
    await denied(api.query('SELECT * FROM ??.outbox', [twin]));
    await admin.query('DROP DATABASE ??', [twin]);
  });
});

describe('the user of a relay', () => {
  it('claims, settles and removes messages in each schema that it drains', async () => {
    for (const relay of relays) {
      await relay.query('SELECT partition_id FROM outbox_partition FOR UPDATE SKIP LOCKED');
      await relay.query('SELECT * FROM outbox FOR UPDATE');
      await relay.query("INSERT INTO outbox_waiting VALUES (1, 1, 'a', 'b', NULL)");
      await relay.query('UPDATE outbox_waiting SET due_at = UTC_TIMESTAMP(6)');
      await relay.query('DELETE FROM outbox_waiting');
      await relay.query("UPDATE outbox SET state = 'published', published_at = UTC_TIMESTAMP(6)");
      await relay.query('DELETE FROM outbox');
    }
  });

  it('cannot read what the services keep, write messages of its own, or lose a partition', async () => {
    const [shop, fulfilment] = relays;
    await denied(shop?.query('SELECT * FROM customers') ?? Promise.resolve());
    await denied(fulfilment?.query('SELECT * FROM emails') ?? Promise.resolve());
    await denied(shop?.query('SELECT * FROM processed_messages') ?? Promise.resolve());
    await denied(shop?.query(MESSAGE) ?? Promise.resolve());
    await denied(shop?.query('DELETE FROM outbox_partition') ?? Promise.resolve());
    await denied(shop?.query('ALTER TABLE outbox ADD COLUMN x INT') ?? Promise.resolve());
  });
});

describe('grantUsers', () => {
  const grant = (serviceUrl: string, onProgress?: (line: string) => void) =>
    grantUsers(databaseUrl, {
      serviceUrl,
      relayUrls: [],
      ownTables: true,
      ...(onProgress === undefined ? {} : { onProgress }),
    });
  const canConnect = async (url: string): Promise<void> => {
    const pool = createPool(url, { connections: 1 });
    await pool.query('SELECT 1').finally(() => pool.end());
  };

  it('lets a rotated password take effect, whatever characters it has, and ends the old one', async () => {
    const rotated = new URL(schemas.fulfilment.url);
    rotated.password = encodeURIComponent(`it's "a" \\ %@:/ ünusual; --`);
    await grant(rotated.href);
    await canConnect(rotated.href);
    await expect(canConnect(schemas.fulfilment.url)).rejects.toMatchObject({ cause: { errno: 1045 } });
    await grant(schemas.fulfilment.url);
    await canConnect(schemas.fulfilment.url);
  });

  it('reaches a table that was added since', async () => {
    await admin.query('CREATE TABLE added (id INT)');
    await denied(api.query('SELECT * FROM added'));
    await grant(schemas.shop.url);
    await api.query('SELECT * FROM added');
    await admin.query('DROP TABLE added');
  });

  it('leaves the administrator alone', async () => {
    const lines: string[] = [];
    await grant(schemas.shop.adminUrl, (line) => lines.push(line));
    expect(lines).toEqual([expect.stringContaining('the administrator; nothing to grant')]);
  });

  it('refuses a URL without a password, and never shows one', async () => {
    const open = new URL(schemas.shop.url);
    open.password = '';
    await expect(grant(open.href)).rejects.toMatchObject({ code: 'ONCEBOX_INVALID_URL' });

    const tooLong = new URL(schemas.shop.url);
    tooLong.username = 'u'.repeat(200);
    tooLong.password = 'confidential';
    const failure: unknown = await grant(tooLong.href).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'ONCEBOX_GRANT_FAILED' });
    expect(failure).not.toHaveProperty('cause');
    expect(String(failure)).not.toContain('confidential');
  });
});
