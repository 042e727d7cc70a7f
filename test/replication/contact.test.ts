// Goal: no writer mints a txid that exists already, and none goes on with a chain that is not its own. The rows are those
// of docs/ARCHITECTURE.md, "First contact".
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { planContact, type RemoteEnd } from "../../src/replication/contact.ts";
import type { Position } from "../../src/replication/position.ts";

const checksumAt = (txid: bigint) => (1n << 63n) | txid;

function position(shippedTxid: bigint, capturedTxid: bigint): Position {
  const captured = {
    txid: capturedTxid,
    checksum: checksumAt(capturedTxid),
    commit: 1,
    pageSize: 4096,
    timestampMs: 0,
    cursor: null,
    changeCount: null,
  };
  return {
    destination: "",
    name: "app",
    lineage: "",
    shippedTxid,
    snapshotTxid: 1n,
    snapshotAtMs: 0,
    snapshotPageSize: 4096,
    owedTxid: 0n,
    validatedAtMs: 0,
    manifestTxid: 0n,
    file: null,
    captured,
  };
}

function remote(txid: bigint, changes: Partial<RemoteEnd> = {}): RemoteEnd {
  return {
    txid,
    checksum: checksumAt(txid),
    timestampMs: 0,
    pageSize: 4096,
    snapshotTxid: 1n,
    snapshotAtMs: 0,
    whole: true,
    ...changes,
  };
}

describe("first contact", () => {
  test.each<[string, Position | null, RemoteEnd | null, string]>([
    ["nothing here, nothing there", null, null, "begin"],
    ["nothing here, a chain there", null, remote(7n), "take-over"],
    ["nothing here, a chain with a gap there", null, remote(7n, { whole: false }), "take-over"],
    ["a first snapshot was staged, nothing there yet", position(0n, 1n), null, "continue"],
    ["it ends where we are", position(7n, 7n), remote(7n), "continue"],
    ["it ends at what was shipped", position(5n, 9n), remote(5n), "continue"],
    ["it ends between shipped and captured: answers were lost", position(5n, 9n), remote(7n), "continue"],
    ["it ends at what was captured", position(5n, 9n), remote(9n), "continue"],
    ["it ends before what was shipped", position(5n, 9n), remote(4n), "snapshot files-missing"],
    ["everything is gone", position(5n, 9n), null, "snapshot files-missing"],
    ["it has a gap", position(5n, 9n), remote(5n, { whole: false }), "snapshot chain-gap"],
    ["it reaches further than we do", position(5n, 9n), remote(10n), "fenced"],
    ["it ends where we are with another content", position(7n, 7n), remote(7n, { checksum: 1n }), "fenced"],
    ["it ends at what was captured with another content", position(5n, 9n), remote(9n, { checksum: 1n }), "fenced"],
    ["it ends at what was shipped with another content", position(5n, 9n), remote(5n, { checksum: 1n }), "fenced"],
  ])("%s", (_, here, there, expected) => {
    const plan = planContact(here, here === null ? null : checksumAt(here.shippedTxid), there);
    expect(plan.kind === "snapshot" ? `snapshot ${plan.reason}` : plan.kind).toBe(expected);
  });

  test("never lets a writer go on that is behind the chain's end", () => {
    const txid = fc.bigInt({ min: 1n, max: 12n });
    fc.assert(
      fc.property(txid, fc.bigInt(0n, 5n), txid, fc.boolean(), fc.boolean(), (shipped, ahead, there, whole, same) => {
        const here = position(shipped, shipped + ahead);
        const end = remote(there, { whole, checksum: same ? checksumAt(there) : 1n });
        const plan = planContact(here, checksumAt(here.shippedTxid), end);
        if (there > here.captured.txid) expect(plan.kind).toBe("fenced");
        if (plan.kind === "continue") {
          expect(there).toBeGreaterThanOrEqual(here.shippedTxid);
          expect(there).toBeLessThanOrEqual(here.captured.txid);
        }
        expect(["begin", "take-over"]).not.toContain(plan.kind);
      }),
    );
  });
});
