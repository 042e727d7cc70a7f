/** Applies retention to one database at a destination. */
import type { Destination } from "../destination/destination.ts";
import { WalsyncError } from "../errors.ts";
import { type Pruning, planPruning, prune } from "../upkeep/prune.ts";
import type { RetentionPolicy } from "../upkeep/retention.ts";

export interface CompactOptions {
  policy: RetentionPolicy;
  nowMs: number;
  /**
   * "never": only tell what would be deleted. "ours": delete in walsync's layout, and leave what another tool prunes.
   * "required": throw E_CONFIG for such a one.
   */
  delete: "never" | "ours" | "required";
  signal: AbortSignal;
}

/** Throws as `planPruning`, E_UNREACHABLE and E_REFUSED. What was deleted before that is gone, and nothing listed is broken. */
export async function compactDatabase(
  destination: Destination,
  name: string,
  { policy, nowMs, delete: mode, signal }: CompactOptions,
): Promise<{ pruning: Pruning; isDeleted: boolean }> {
  const pruning = await planPruning(destination, name, policy, nowMs, signal);
  if (mode === "required") requireOurLayout(pruning);
  const isDeleted = mode !== "never" && pruning.layout === "walsync";
  if (isDeleted) await prune(destination, pruning, signal);
  return { pruning, isDeleted };
}

// --- internal ---

/**
 * Litestream judges its position by the files that are there, and runs its own retention: whatever else deletes files below a
 * running one may leave it with a gap that it does not notice.
 */
function requireOurLayout({ name, layout }: Pruning): void {
  if (layout === "walsync") return;
  throw new WalsyncError("E_CONFIG", `${name}: expected the walsync layout to delete files in, found ${layout}`, {
    hint: "Let the tool that writes it prune it: snapshot.retention in litestream.yml. Without --force this shows what there is.",
  });
}
