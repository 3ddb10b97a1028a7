import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { onTestFinished } from 'vitest';
import type { TestSchema } from './schemas.ts';

export interface Backup {
  /**
   * Makes the schema what it was, with the counters of its AUTO_INCREMENT columns. Nobody may be
   * using it.
   */
  restore(): Promise<void>;
}

/** A copy of every table of a schema, as a dump has it; to be taken while nobody writes. */
export async function backUp({ name, adminUrl }: TestSchema): Promise<Backup> {
  const copy = `${name}_backup_${Date.now()}`;
  const connection = await createConnection({ uri: adminUrl, multipleStatements: false });
  onTestFinished(async () => {
    await connection.query('DROP DATABASE IF EXISTS ??', [copy]);
    await connection.end();
  });
  const [tables] = await connection.query<(RowDataPacket & { name: string; columns: string })[]>(
    `SELECT c.TABLE_NAME AS name, GROUP_CONCAT(CONCAT('\`', c.COLUMN_NAME, '\`') ORDER BY c.ORDINAL_POSITION) AS columns
       FROM information_schema.COLUMNS AS c WHERE c.TABLE_SCHEMA = ? AND c.EXTRA NOT LIKE '%STORED%' GROUP BY c.TABLE_NAME`,
    [name],
  );
  await connection.query('CREATE DATABASE ??', [copy]);
  await connection.query('SET foreign_key_checks = 0');
  const fill = async (to: string, from: string): Promise<void> => {
    for (const { name: table, columns } of tables) {
      await connection.query('DELETE FROM ??.??', [to, table]);
      await connection.query(`INSERT INTO ??.?? (${columns}) SELECT ${columns} FROM ??.??`, [to, table, from, table]);
    }
  };
  for (const { name: table } of tables) {
    await connection.query('CREATE TABLE ??.?? LIKE ??.??', [copy, table, name, table]);
  }
  await fill(copy, name);
  return {
    async restore() {
      await fill(name, copy);
      // Down to what follows the highest that is there.
      for (const { name: table } of tables)
        await connection.query('ALTER TABLE ??.?? AUTO_INCREMENT = 1', [name, table]);
    },
  };
}
