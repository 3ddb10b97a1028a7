import { deepStrictEqual } from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { HOST_PORTS, serversAt } from './infra/servers.ts';

/**
 * Posts 500 customers to a stack that `docker compose up --wait` has just brought up, with empty volumes, and waits until
 * each of them has had its one effect. Exit code 1 when it has not by the deadline, with what there is instead.
 */

const CUSTOMERS = 500;
const AT_ONCE = 25;
const DEADLINE_MS = 90_000;

const waiting = Array.from({ length: CUSTOMERS }, (_, index) => `customer-${index}@example.com`);
const created: string[] = [];

async function post(): Promise<void> {
  for (let email = waiting.pop(); email !== undefined; email = waiting.pop()) {
    const response = await fetch('http://127.0.0.1:3000/customers', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email, name: `Owner of ${email}` }),
    });
    const body = await response.text();
    const location = response.headers.get('location');
    if (response.status !== 201 || !location) throw new Error(`POST ${email}: ${response.status} ${body}`);
    created.push(location.slice(location.lastIndexOf('/') + 1));
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, post));
console.log(`${created.length} customers posted`);

const database = await createConnection({ uri: serversAt('127.0.0.1', HOST_PORTS, 'mysql').databaseUrl });

async function number(sql: string): Promise<number> {
  const [[row]] = await database.query<RowDataPacket[]>(`SELECT (${sql}) AS n`);
  return Number(row?.['n']);
}

const counts = async () => ({
  emails: await number('SELECT COUNT(*) FROM fulfilment.emails'),
  messages: await number('SELECT COUNT(DISTINCT message_id) FROM fulfilment.emails'),
  directory: await number('SELECT COUNT(*) FROM fulfilment.customer_directory'),
  published: await number("SELECT COUNT(*) FROM shop.outbox WHERE state = 'published'"),
  others: await number("SELECT COUNT(*) FROM shop.outbox WHERE state <> 'published'"),
});
const wanted = { emails: CUSTOMERS, messages: CUSTOMERS, directory: CUSTOMERS, published: CUSTOMERS, others: 0 };

const deadline = Date.now() + DEADLINE_MS;
let found = await counts();
while (JSON.stringify(found) !== JSON.stringify(wanted) && Date.now() < deadline) {
  await sleep(200);
  found = await counts();
}
deepStrictEqual(found, wanted, 'not every customer has had one effect');
const [rows] = await database.query<RowDataPacket[]>('SELECT customer_id FROM fulfilment.emails');
const welcomed = rows.map((row) => String(row['customer_id']));
deepStrictEqual(welcomed.sort(), created.sort(), 'the customers with an e-mail are not those that the api told of');
await database.end();
console.log('every customer has one e-mail; every outbox row is published', found);
