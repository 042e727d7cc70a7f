/** What has to happen so that a process replicates exactly the databases that are wanted. Pure. */
import type { NamedDatabase } from "./names.ts";

/** A database with whatever settings it is to be replicated by; they are compared by value. */
export interface FleetDatabase extends NamedDatabase {
  settings: object;
}

/** "leaving": ships what is left, and is let go of then. "hurried": the rest may wait for the next time. */
export type Membership = "here" | "leaving" | "hurried";

export type FleetStep<D extends FleetDatabase> =
  | { kind: "adopt"; database: D }
  /** The same database with other settings. */
  | { kind: "adjust"; database: D }
  | { kind: "release"; path: string }
  /** It is wanted again, and cannot come back before it has left. */
  | { kind: "hurry"; path: string };

/**
 * Releases come first. A database whose path or name somebody still has, who is leaving, is adopted by a later plan. So is
 * one that gets another name: it leaves, and comes back.
 */
export function planFleet<D extends FleetDatabase>(
  current: readonly { database: D; membership: Membership }[],
  wanted: readonly D[],
): FleetStep<D>[] {
  const wantedAt = new Map(wanted.map((database) => [database.path, database]));
  const steps: FleetStep<D>[] = [];
  for (const { database, membership } of current) {
    const next = wantedAt.get(database.path);
    const stays = next !== undefined && next.name === database.name;
    if (membership === "here" && !stays) steps.push({ kind: "release", path: database.path });
    if (membership === "leaving" && stays) steps.push({ kind: "hurry", path: database.path });
    if (membership === "here" && stays && !Bun.deepEquals(next.settings, database.settings)) {
      steps.push({ kind: "adjust", database: next });
    }
  }
  const takenPaths = new Set(current.map(({ database }) => database.path));
  const takenNames = new Set(current.map(({ database }) => database.name));
  for (const database of wanted) {
    if (!takenPaths.has(database.path) && !takenNames.has(database.name)) steps.push({ kind: "adopt", database });
  }
  return steps;
}
