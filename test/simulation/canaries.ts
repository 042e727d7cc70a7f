/**
 * Deliberate bugs, one for each law that the simulation watches over: it must find every one of them. Each is a change of
 * the source text, made in a copy of the repository; a change that no longer applies is an error.
 */
export interface Canary {
  name: string;
  /** One that finds it. When the simulation has changed, a later one will; put that here then, to save time. */
  seed: number;
  file: string;
  /** Occurs exactly once in the file. */
  from: string;
  to: string;
}

export const CANARIES: readonly Canary[] = [
  {
    name: "a restarted WAL is trusted without counting its commits",
    seed: 7,
    file: "src/replication/plan.ts",
    from: 'if (plan.kind === "restarted" && scan.commitCount !== plan.expectedCommits) return "wal-restarted";',
    to: "",
  },
  {
    name: "an empty WAL is trusted without counting commits",
    seed: 23,
    file: "src/replication/plan.ts",
    from: 'return expectedCommits === 0 ? { kind: "idle" } : { kind: "resync", reason: otherwise };',
    to: 'return { kind: "idle" };',
  },
  {
    name: "the count of commits is trusted although the WAL index was made anew",
    seed: 24,
    file: "src/replication/position.ts",
    from: "return { ...position, captured: { ...position.captured, changeCount: null } };",
    to: "return { ...position, captured: { ...position.captured, changeCount: 0 } };",
  },
  {
    name: "a file leaves the outbox although its upload failed",
    seed: 12,
    file: "src/replication/shipper.ts",
    from: "if (!this.#goesOn(error, ++failures)) return;",
    to: "this.#outbox.remove(file); failures++;",
  },
  {
    name: "a crash forgets what was staged",
    seed: 1,
    file: "src/replication/local-state.ts",
    from: "if (!claimsTxid(file) || file.maxTxid <= this.position.captured.txid) continue;",
    to: "continue;",
  },
  {
    name: "a position from before an await is written back",
    seed: 1948,
    file: "src/replication/delivery.ts",
    from: "this.#state.position!.manifestTxid = reached ?? shippedTxid;",
    to: "this.#state.position = position; position.manifestTxid = reached ?? shippedTxid;",
  },
  {
    name: "an increment is uploaded before the one it follows on from",
    seed: 1,
    file: "src/replication/shipper.ts",
    from: "const file = this.#outbox.files.find(ofLane);",
    to: "const file = this.#outbox.files.findLast(ofLane);",
  },
  {
    name: "a comparison misses changed pages",
    seed: 1,
    file: "src/replication/full-scan.ts",
    from: "if (known?.matches(pgno, sum.hi, sum.lo) !== true) staging.encoder.encodePage(pgno, page, sum);",
    to: "if (known === null || pgno === 1) staging.encoder.encodePage(pgno, page, sum);",
  },
  {
    name: "a snapshot leaves out what is only in the WAL",
    seed: 1,
    file: "src/sqlite/page-source.ts",
    from: "if (overlay !== null && overlay.pages.pgnos[next] === pgno) {",
    to: "if (false as boolean && overlay !== null && overlay.pages.pgnos[next] === pgno) {",
  },
  {
    name: "first contact does not ask where the chain ends",
    seed: 9,
    file: "src/replication/contact.ts",
    from: 'if (remote.txid < shippedTxid) return { kind: "snapshot", reason: "files-missing" };',
    to: "",
  },
  {
    name: "a sleeping database does not notice what is committed",
    seed: 38,
    file: "src/sqlite/sleeping-database.ts",
    from: "return head === null || this.#head === null || !sameContent(head, this.#head);",
    to: "return false;",
  },
  {
    name: "one of which nothing is held does not notice what is committed",
    seed: 34,
    file: "src/sqlite/sleeping-database.ts",
    from: "return this.walMark() !== this.#walMark || this.fingerprint() !== this.#fingerprint;",
    to: "return false;",
  },
  {
    name: "a file that was written to while it slept is taken for the one that was left",
    seed: 47,
    file: "src/sqlite/sleeping-database.ts",
    from: "const isUntouched = this.#fingerprint !== null && this.#fingerprint === database.fingerprint();",
    to: "const isUntouched = true;",
  },
];
