import { type Pool, transaction } from '@oncebox/mysql';
import { lock, type SagaKey } from './store.ts';

export type SagaErasure = 'erased' | 'running';

/**
 * Deletes a saga that has ended, with its history. One that has not ended is left alone: it would
 * neither go on nor be undone.
 */
export async function eraseSaga(pool: Pool, key: SagaKey): Promise<SagaErasure> {
  return await transaction(pool, async (tx) => {
    // The lock lets an answer that is just coming in have its turn first.
    const found = await lock(tx, key);
    if (found === undefined) return 'erased';
    const { state } = found.position;
    if (state === 'running' || state === 'stuck') return 'running';
    await tx.execute('DELETE FROM sagas WHERE name = ? AND id = ?', [key.name, key.id]);
    return 'erased';
  });
}
