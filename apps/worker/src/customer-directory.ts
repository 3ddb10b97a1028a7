import { CustomerCreated, CustomerUpdated } from '@oncebox/contracts';
import { defineConsumer, on } from '@oncebox/inbox';
import type { Transaction } from '@oncebox/mysql';

interface Customer {
  readonly customerId: string;
  readonly name: string;
  readonly email: string;
  readonly version: number;
}

/** A read model of the customers. Messages may come late or out of order, after retries for one, so an older version changes nothing. */
export const customerDirectory = defineConsumer({
  name: 'customer-directory',
  handlers: [
    on(CustomerCreated, { replays: true, handle: (tx, { payload }) => upsertIfNewer(tx, payload) }),
    on(CustomerUpdated, { replays: true, handle: (tx, { payload }) => upsertIfNewer(tx, payload) }),
  ],
});

/**
 * One statement, because two workers may hold two versions of one customer at the same time. `version` is assigned last: the
 * assignments run from left to right, and those before it compare with the stored version. VALUES() rather than MySQL's row
 * alias, which MariaDB does not have.
 */
async function upsertIfNewer(tx: Transaction, { customerId, name, email, version }: Customer): Promise<void> {
  await tx.execute(
    `INSERT INTO customer_directory (customer_id, name, email, version) VALUES (?, ?, ?, ?)
     ON DUPLICATE KEY UPDATE
       name = IF(VALUES(version) > version, VALUES(name), name),
       email = IF(VALUES(version) > version, VALUES(email), email),
       updated_at = IF(VALUES(version) > version, UTC_TIMESTAMP(6), updated_at),
       version = GREATEST(VALUES(version), version)`,
    [customerId, name, email, version],
  );
}
