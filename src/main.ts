/** Entry of the program: the list of commands. What happens around them is in `cli/app.ts`. */
import { type App, exitOnStrayErrors, runApp } from "./cli/app.ts";
import { CHECK_ARGUMENT } from "./drill/check.ts";

// Literal imports, so that the bundler sees them; functions, so that --help does not pay for the AWS SDK.
export const app: App = {
  description: "Continuous replication of live SQLite databases to S3-compatible storage, and restore to any moment",
  commands: {
    watch: {
      summary: "replicate live databases continuously",
      load: () => import("./commands/watch.ts").then((module) => module.default),
    },
    snapshot: {
      summary: "ship a snapshot of one database",
      load: () => import("./commands/snapshot.ts").then((module) => module.default),
    },
    restore: {
      summary: "restore a database to its newest state or to any moment before",
      load: () => import("./commands/restore.ts").then((module) => module.default),
    },
    list: {
      summary: "list databases, and from when to when each can be restored",
      load: () => import("./commands/list.ts").then((module) => module.default),
    },
    replicate: {
      summary: "keep a local read copy of a database current",
      load: () => import("./commands/replicate.ts").then((module) => module.default),
    },
    status: {
      summary: "show what the running watches are doing",
      load: () => import("./commands/status.ts").then((module) => module.default),
    },
    sync: {
      summary: "make a running watch capture and ship now",
      load: () => import("./commands/sync.ts").then((module) => module.default),
    },
    explain: {
      summary: "say what watch would do, what it costs, and what is risky",
      load: () => import("./commands/explain.ts").then((module) => module.default),
    },
    migrate: {
      summary: "take over from Litestream: its configuration, and copies of its replicas",
      load: () => import("./commands/migrate.ts").then((module) => module.default),
    },
    compact: {
      summary: "delete old snapshots and increments by a policy",
      load: () => import("./commands/compact.ts").then((module) => module.default),
    },
    verify: {
      summary: "prove that what is at the destination can be restored",
      load: () => import("./commands/verify.ts").then((module) => module.default),
    },
    drill: {
      summary: "restore for practice, check what came back, and measure it",
      load: () => import("./commands/drill.ts").then((module) => module.default),
    },
    doctor: {
      summary: "check this host, databases and a destination, and say what to do",
      load: () => import("./commands/doctor.ts").then((module) => module.default),
    },
    completion: {
      summary: "print a script that completes commands and flags in a shell",
      load: () => import("./commands/completion.ts").then((module) => module.completionOf(app)),
    },
  },
};

// Not where the documents are written from this table.
if (import.meta.main) {
  exitOnStrayErrors();
  // The child of a drill that looks at what was restored: no command of anybody else's.
  if (process.argv[2] === CHECK_ARGUMENT) {
    (await import("./drill/check-child.ts")).answerChecks();
    process.exit(0);
  }
  // Exits even if a connection or timer is still open: the work is done, and everything printed is written already.
  process.exit(await runApp(app, process.argv.slice(2)));
}
