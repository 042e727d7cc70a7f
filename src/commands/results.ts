/** What each command prints with --json: the tables behind docs/JSON.md. */
import {
  amount,
  choice,
  count,
  flag,
  list,
  object,
  orNull,
  partial,
  type ResultSchema,
  text,
  time,
  txid,
} from "../cli/result-schema.ts";
import { camelCase, type SettingDef, type SettingTable } from "../config.ts";

const name = text("name at the destination");
const seconds = (description: string) => orNull(amount(description));
const CHECK_FIELDS = {
  result: choice(["ok", "untrue", "error", "timeout"], "untrue: looked at, and not as it must be"),
  found: text("what; empty if it is ok"),
};

const FAULT_FIELDS = {
  code: text("stable code of an error"),
  message: text("for people"),
  hint: orNull(text("what to do")),
};

export const SNAPSHOT_RESULT = object({ name, txid: txid("transaction that the snapshot is of") });

export const RESTORE_RESULT = object({
  name,
  output: text("the file that was written"),
  txid: txid("transaction that was restored"),
  time: time("when it was captured"),
  files: count("files that it was put together from"),
  bytes: count("size of the database"),
});

export const LIST_RESULT = object({
  databases: list(
    object({
      name,
      layout: choice(["walsync", "litestream"], "how its files are named"),
      txid: txid("newest restore point"),
      snapshots: count("files with a whole database"),
      increments: count("files with what changed"),
      bytes: count("size of all files"),
      oldest: orNull(time("first restore point; null if there is no snapshot, or if damage hides it")),
      newest: orNull(time("last restore point; null if damage hides it")),
      error: orNull(object(FAULT_FIELDS, "what is damaged: exit status 5")),
    }),
  ),
});

export const REPLICATE_RESULT = object({
  name,
  local: text("the copy"),
  txid: txid("transaction that the copy is at"),
  time: time("when that was captured"),
  reason: choice(["current", "increments", "bootstrap"], "what was done"),
  files: count("files that were read"),
});

export const STATUS_RESULT = object({
  watches: list(
    object({
      pid: count("process id"),
      version: text("of walsync"),
      started_at: time("start of the process"),
      destination: text("URL"),
      databases: list(
        object({
          name,
          path: text("the database file"),
          state: choice(
            ["live", "scanning", "waiting", "failed", "vanished", "fenced", "closed"],
            "failed and fenced: see error; waiting: for the destination or for the file; scanning: is read whole; vanished: the file is gone, and the rest is shipped",
          ),
          txid: txid("newest transaction that is captured; 0 before the first"),
          shipped_txid: txid("newest that the destination acknowledged; 0 before the first"),
          lag_seconds: amount("age of the oldest file that is captured and not acknowledged"),
          lag_transactions: count("transactions that wait"),
          size_bytes: count("size of the database, as it was captured last; 0 before the first"),
          outbox_bytes: count("size of the files that wait"),
          wal_bytes: count("size of the -wal file"),
          shipped_at: orNull(time("when the destination last acknowledged a file; null if not since the start")),
          shipped_increments: count("increments that were acknowledged since the start"),
          error: orNull(text("what keeps it from being replicated")),
          drill: orNull(
            object({
              at: time("end of the last restore drill of this watch"),
              error: orNull(text("why it failed")),
              rto_seconds: seconds("what the restore took"),
              rpo_seconds: seconds("what would have been lost"),
            }),
          ),
        }),
      ),
    }),
  ),
});

export const SYNC_RESULT = object({
  databases: list(object({ name, txid: txid("captured, with --wait shipped, up to here") })),
});

const MONTHLY_COST = {
  databases: count("that it is about"),
  writes: count("PUT and LIST requests"),
  reads: count("GET requests"),
  dollars: amount("without storage"),
};

export function explainResult(settings: SettingTable): ResultSchema {
  return object({
    config: orNull(text("the configuration file; null if there is none")),
    destination: object({
      url: text("where the files go"),
      endpoint: orNull(text("server; null for a directory")),
      region: orNull(text("null for a directory")),
      credentials: orNull(text("how requests are signed, without the secret; null if there are none")),
    }),
    settings: partial(
      Object.fromEntries(Object.entries(settings).map(([key, def]) => [camelCase(key), settingSchema(def)])),
      "as the flags of watch are called; durations in milliseconds, sizes in bytes; absent if not set",
    ),
    encryption: orNull(
      object(
        {
          recipients: count("for whom files are encrypted"),
          identity: flag("what is shipped can be read here: it is merged, and can be drilled"),
        },
        "null if files are in the clear",
      ),
    ),
    databases: list(
      object({
        name,
        path: text("the database file"),
        journal_mode: choice(["wal", "not wal", "not SQLite", "missing"], "as its first bytes say"),
        bytes: count("size of the file"),
        drill: orNull(
          object(
            {
              interval_seconds: amount("time between two"),
              assertions: count("queries that must find nothing but what is true"),
              max_rto_seconds: seconds("a restore that takes longer is a failure; null for never"),
              max_rpo_seconds: seconds("so is a loss of older transactions; null for never"),
            },
            "restore drills of the watch; null for none",
          ),
        ),
      }),
    ),
    monthly_costs: object({
      busy: object(MONTHLY_COST),
      minute: object(MONTHLY_COST),
      measured: orNull(object({ ...MONTHLY_COST, seconds: count("for which the running watches measured") })),
    }),
    risks: list(text("one sentence"), "what is risky about this configuration"),
  });
}

export const MIGRATE_RESULT = partial({
  files: list(
    object({
      path: orNull(text("the walsync.toml that was written; null without -o")),
      toml: text("what is in it"),
      command: text("how its process is started"),
      destination: text("s3.bucket of it"),
      databases: count("[[databases]] entries"),
    }),
    "of a litestream.yml: one for each destination",
  ),
  notes: list(
    object({
      line: count("of litestream.yml"),
      key: text("dotted: dbs[0].replica.part-size"),
      kind: choice(["unsupported", "action", "different"], "action: something is to be done by hand"),
      message: text("what, and why"),
    }),
    "what has no counterpart",
  ),
  converted: object(
    {
      name,
      from: choice(["walsync", "litestream"], "layout of the source"),
      to: text("URL of the destination of the copy"),
      as: text("name of the copy"),
      layout: choice(["walsync", "litestream"], "of the copy"),
      txid: txid("newest transaction"),
      points: count("restore points, all verified"),
      files: object({ copied: count("files that were sent"), existing: count("files that were there already") }),
      bytes: count("size of all of them"),
      skipped: list(
        object({
          key: text("file of the source"),
          reason: choice(
            ["unreachable", "superseded", "same-range"],
            "unreachable: no restore point needs it; superseded and same-range: another file does the same",
          ),
        }),
      ),
    },
    "with --convert",
  ),
});

export const COMPACT_RESULT = object({
  deleted: flag("with --force: it was done; else it is what would be"),
  databases: list(
    object({
      name,
      snapshots: list(
        object({
          key: text("file at the destination"),
          txid: txid("transaction that it is of"),
          time: time("when it was taken"),
          bytes: count("size of the file"),
          keep: flag("it stays"),
          reason: orNull(text("what it is kept for; null if it is not")),
        }),
      ),
      increments: object({ kept: count("files"), deleted: count("files") }),
      deleted: object({ files: count("snapshots and increments"), bytes: count("their size") }),
    }),
  ),
});

export const VERIFY_RESULT = object({
  databases: list(
    object({
      name,
      layout: choice(["walsync", "litestream"], "how its files are named"),
      ok: flag("no finding is an error"),
      files: count("files that were looked at"),
      bytes: count("their size"),
      points: count("restore points"),
      proven: count("restore points whose state was proven; 0 with --quick"),
      findings: list(
        object({
          key: text("the file, or the name if it is about all of them"),
          code: text("stable, such as chain-gap"),
          message: text("for people"),
          severity: choice(["error", "warning", "note"], "error: exit status 5"),
        }),
      ),
    }),
  ),
});

export const DRILL_RESULT = object({
  destination: text("URL"),
  point_in_time: orNull(text("the moment that was restored; null for the newest")),
  started_at: time("of the first drill"),
  version: text("of walsync"),
  ok: flag("no database has a fault"),
  databases: list(
    object({
      name,
      ok: flag("it has no fault"),
      rto_seconds: seconds("what the restore took, up to a file that is proven and on the disk; null without one"),
      rpo_seconds: seconds("age of the oldest transaction that a loss of this host would have cost"),
      restored: orNull(
        object({
          txid: txid("transaction that was restored"),
          time: time("when it was captured"),
          files: count("files that it was put together from"),
          fetched_bytes: count("their size"),
          bytes: count("size of the database"),
        }),
      ),
      newest: orNull(
        object({
          txid: txid("newest restore point"),
          time: time("when it was captured"),
          age_seconds: amount("how old it was at the start of the drill"),
        }),
      ),
      missing_transactions: orNull(
        txid("that the watch of this host has captured and the destination does not have; null without such a watch"),
      ),
      integrity: orNull(object(CHECK_FIELDS)),
      assertions: list(object({ sql: text("the query"), ...CHECK_FIELDS })),
      faults: list(object(FAULT_FIELDS)),
    }),
  ),
});

export const DOCTOR_RESULT = object({
  checks: list(
    object({
      subject: text("host, the path of a database, or the URL of a destination"),
      check: text("what was checked"),
      result: choice(
        ["ok", "warning", "failed", "skipped"],
        "failed: exit status 7 for the host and databases, else 2 for keys, else 3 for the destination",
      ),
      message: text("what was found"),
      hint: orNull(text("what to do; null if it is in order")),
    }),
  ),
});

// --- internal ---

function settingSchema(def: SettingDef): ResultSchema {
  switch (def.type) {
    case "boolean":
      return flag(def.description);
    case "durations":
      return list(count(""), def.description);
    case "texts":
      return list(text(""), def.description);
    case "choice":
      return choice(def.choices, def.description);
    case "string":
      return text(def.description);
    default:
      return count(def.description);
  }
}
