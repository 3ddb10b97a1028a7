import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { pause } from './pause.ts';
import type { Stage } from './stage.ts';

/** What happens to servers, accounts and connections, one after another. */

/** From its beginning until everything answers again, in milliseconds since 1970. */
export interface Outage {
  readonly from: number;
  readonly to: number;
}

type Inflict = (stage: Stage, random: () => number, last: () => Promise<unknown>) => Promise<void>;

/** Those that stop everybody's work for a while. */
const OUTAGES: Readonly<Record<string, Inflict>> = {
  'database stopped': ({ restart }) => restart('database', 'stopped'),
  'database killed': ({ restart }) => restart('database', 'killed'),
  'broker stopped': ({ restart }) => restart('broker', 'stopped'),
  'broker killed': ({ restart }) => restart('broker', 'killed'),
  'account locked': (stage, random, last) =>
    onAccount(stage, random, last, ["ALTER USER ?@'%' ACCOUNT LOCK"], ["ALTER USER ?@'%' ACCOUNT UNLOCK"]),
  'password changed': (stage, random, last) =>
    onAccount(stage, random, last, ["ALTER USER ?@'%' IDENTIFIED BY 'another'"], ["ALTER USER ?@'%' IDENTIFIED BY ?"]),
  'one connection each': (stage, random, last) =>
    onAccount(
      stage,
      random,
      last,
      ["ALTER USER ?@'%' WITH MAX_USER_CONNECTIONS 1"],
      ["ALTER USER ?@'%' WITH MAX_USER_CONNECTIONS 0"],
    ),
  'read-only': async ({ servers }, _random, last) => {
    await asAdministrator(servers.databaseUrl, (database) => database.query('SET GLOBAL read_only = 1'));
    await last();
    await asAdministrator(servers.databaseUrl, (database) => database.query('SET GLOBAL read_only = 0'));
  },
};
/** Nobody is excused for these: whoever meets a silent connection opens another one. */
const SILENCES: Readonly<Record<string, (stage: Stage) => void>> = {
  'database silent': ({ passages }) => passages.database.silence(),
  'broker silent': ({ passages }) => passages.broker.silence(),
};
export const OUTAGE_KINDS = [...Object.keys(OUTAGES), ...Object.keys(SILENCES)];

export interface Outages {
  readonly stage: Stage;
  readonly random: () => number;
  /** Ends it, once what was broken is mended. */
  readonly signal: AbortSignal;
  readonly onFault: (fault: string) => void;
}

/** @returns when nobody could work. */
export async function inflictOutages({ stage, random, signal, onFault }: Outages): Promise<readonly Outage[]> {
  const outages: Outage[] = [];
  while (await pause(5_000 + random() * 10_000, signal)) {
    const kind = String(OUTAGE_KINDS[Math.floor(random() * OUTAGE_KINDS.length)]);
    const [choice, seconds] = [random(), 1 + random() * 9];
    onFault(kind);
    const from = Date.now();
    SILENCES[kind]?.(stage);
    await OUTAGES[kind]?.(
      stage,
      () => choice,
      () => pause(seconds * 1_000, signal),
    );
    if (kind in OUTAGES) outages.push({ from, to: Date.now() });
  }
  return outages;
}

/**
 * One service's user, or the relays', is changed and its connections are closed, as when somebody
 * rotates or revokes it.
 */
async function onAccount(
  { servers, users }: Stage,
  random: () => number,
  last: () => Promise<unknown>,
  [change = '']: readonly string[],
  [mend = '']: readonly string[],
): Promise<void> {
  const account = users[Math.floor(random() * users.length)];
  if (account === undefined) return;
  await asAdministrator(servers.databaseUrl, async (database) => {
    await database.query(change, [account.user]);
    const [sessions] = await database.query<RowDataPacket[]>(
      'SELECT id FROM information_schema.processlist WHERE user = ?',
      [account.user],
    );
    for (const { id } of sessions) {
      await database.query('KILL ?', [id]).catch(() => undefined); // it has gone by itself
    }
  });
  await last();
  await asAdministrator(servers.databaseUrl, (database) => database.query(mend, [account.user, account.password]));
}

async function asAdministrator(url: string, act: (database: Connection) => Promise<unknown>): Promise<void> {
  const database = await createConnection({ uri: url });
  try {
    await act(database);
  } finally {
    await database.end();
  }
}
