/** Takes what a replicator needs while its database is open: the pin, the lock and the local state. All of it, or nothing. */
import { layoutRules } from "../chain/layout-rules.ts";
import { LtxError } from "../errors.ts";
import { PinnedDatabase } from "../sqlite/database.ts";
import { LocalState, stateFolderOf } from "./local-state.ts";
import { acquireLock, type HeldLock } from "./lock.ts";
import type { ReplicatorSetup } from "./replicator-setup.ts";

export interface Acquired {
  database: PinnedDatabase;
  state: LocalState;
  lock: HeldLock;
}

/**
 * Opens and pins the database, and repairs its local state. `lock` is the one that is held already; if its file was
 * removed, another is taken in its place. An outbox that is damaged is told to `onDamage` and given up: what waits in it was
 * never acknowledged, and the database still holds it. Throws E_LOCKED, E_DATABASE, E_DISK, E_INTEGRITY or E_LTX: nothing new
 * is held then.
 */
export function acquire(
  { path, name, destination, layout, stateFolder, policy }: ReplicatorSetup,
  lock: HeldLock | null,
  onDamage: (error: LtxError) => void,
): Acquired {
  const cleanUp: (() => void)[] = [];
  try {
    // The database first: one that is refused gets no state folder.
    const database = PinnedDatabase.open(path, { enableWal: policy.enableWal });
    cleanUp.push(() => database.close());
    // Beside the database, wherever the state is: two state directories must not mean two writers.
    const kept = lock?.isInPlace() === true ? lock : null;
    const held = kept ?? acquireLock(stateFolderOf(path, undefined), path);
    if (kept === null) cleanUp.push(() => held.release());
    const state = new LocalState(stateFolder, destination.url, name, layoutRules(layout, destination.capabilities));
    cleanUp.unshift(() => state.close());
    recover(state, database, onDamage);
    if (kept === null) lock?.release();
    return { database, state, lock: held };
  } catch (error) {
    for (const undo of cleanUp) undo();
    throw error;
  }
}

// --- internal ---

function recover(state: LocalState, database: PinnedDatabase, onDamage: (error: LtxError) => void): void {
  try {
    state.recover(database);
  } catch (error) {
    if (!(error instanceof LtxError)) throw error;
    onDamage(error);
    state.startOver();
  }
}
