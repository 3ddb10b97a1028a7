import { connect } from 'amqplib';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { z } from 'zod';
import { report, settings } from './parent.ts';

/** The relay that most people write first: read all that is pending, publish one by one, await each confirm, update each row. */

const { amqpUrl, databaseUrl } = settings(z.object({ amqpUrl: z.string(), databaseUrl: z.string() }));

const database = await createConnection({ uri: databaseUrl });
const connection = await connect(amqpUrl, { noDelay: true });
const channel = await connection.createConfirmChannel();

const start = performance.now();
const [rows] = await database.query<RowDataPacket[]>("SELECT * FROM outbox WHERE state = 'pending' ORDER BY seq");
for (const { seq, id, type, payload, exchange, routing_key: key } of rows) {
  channel.publish(exchange, key, Buffer.from(payload), {
    messageId: id,
    type,
    contentType: 'application/json',
    persistent: true,
    mandatory: true,
  });
  await channel.waitForConfirms();
  await database.execute("UPDATE outbox SET state = 'published', published_at = UTC_TIMESTAMP(6) WHERE seq = ?", [seq]);
}
const seconds = (performance.now() - start) / 1_000;

await connection.close();
await database.end();
report({ rate: rows.length / seconds });
