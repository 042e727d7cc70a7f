/** What a litestream.yml says that walsync.toml does not, and what to do about it. */

/** How much it matters, worst first. */
export type NoteKind =
  /** walsync does not do it. */
  | "unsupported"
  /** Something has to be done by hand. */
  | "action"
  /** walsync does it in another way, or by itself. */
  | "different";

export interface Note {
  /** Of litestream.yml, from 1. */
  line: number;
  /** Dotted: "dbs[0].replica.part-size". */
  key: string;
  kind: NoteKind;
  message: string;
}

export type KeyNotes = Readonly<Record<string, readonly [NoteKind, string]>>;

/** Keys of the file itself. */
export const GLOBAL_NOTES: KeyNotes = {
  socket: ["different", "a running watch always answers walsync status and walsync sync, on a socket of its own user"],
  "l0-retention-check-interval": ["different", "merged files are looked after as they are made"],
  "verify-compaction": ["different", "what replaces other files is always checked before they are removed"],
  "heartbeat-url": ["unsupported", "no URL is called: let a monitor ask /healthz of the metrics address"],
  "heartbeat-interval": ["unsupported", "see heartbeat-url"],
  "shutdown-sync-interval": ["different", "what is left at the end is shipped at once"],
  "mcp-addr": ["unsupported", "there is no MCP server"],
};

/** Keys of a database. */
export const DATABASE_NOTES: KeyNotes = {
  "meta-path": [
    "different",
    "walsync keeps its own state in .<file>-walsync beside the database, or below sync.state_dir",
  ],
  "meta-dir": [
    "different",
    "walsync keeps its own state in .<file>-walsync beside each database, or below sync.state_dir",
  ],
  "monitor-interval": ["different", "walsync is woken by each write, and asks for no interval"],
  "busy-timeout": ["different", "walsync writes nothing into the database, and never waits for its lock"],
  "max-checkpoint-page-count": ["different", "a WAL of four times min_checkpoint_pages is restarted"],
  "truncate-page-n": ["different", "a WAL of four times min_checkpoint_pages is restarted"],
  "max-sync-wal-bytes": ["different", "memory does not depend on how much is captured at once"],
};

const OTHER_STORAGE = ["unsupported", "is about a kind of storage that walsync does not know"] as const;

/** Keys of a replica, which may also stand at the top of the file. */
export const REPLICA_NOTES: KeyNotes = {
  name: ["different", "replicas have no names: there is one for each database"],
  "max-sync-ltx-files": ["different", "uploads are bounded by --max-outbox and by requests at once"],
  "auto-recover": ["different", "after a doubt walsync compares the whole database, and ships what differs"],
  "sign-payload": ["different", "walsync signs as AWS asks for"],
  "require-content-md5": ["different", "walsync sends the checksums that AWS asks for"],
  "part-size": ["different", "large files are uploaded in parts of a fixed size"],
  concurrency: ["different", "requests at once are bounded for the whole process"],
  "retention-check-interval": ["different", "retention runs after each snapshot"],
  "skip-verify": [
    "unsupported",
    "certificates are always checked: give an authority of your own with NODE_EXTRA_CA_CERTS=FILE",
  ],
  "account-name": OTHER_STORAGE,
  "account-key": OTHER_STORAGE,
  "sas-token": OTHER_STORAGE,
  host: OTHER_STORAGE,
  user: OTHER_STORAGE,
  password: OTHER_STORAGE,
  "key-path": OTHER_STORAGE,
  "concurrent-writes": OTHER_STORAGE,
  "host-key": OTHER_STORAGE,
  "webdav-url": OTHER_STORAGE,
  "webdav-username": OTHER_STORAGE,
  "webdav-password": OTHER_STORAGE,
  jwt: OTHER_STORAGE,
  seed: OTHER_STORAGE,
  creds: OTHER_STORAGE,
  nkey: OTHER_STORAGE,
  username: OTHER_STORAGE,
  token: OTHER_STORAGE,
  tls: OTHER_STORAGE,
  "root-cas": OTHER_STORAGE,
  "client-cert": OTHER_STORAGE,
  "client-key": OTHER_STORAGE,
  "max-reconnects": OTHER_STORAGE,
  "reconnect-wait": OTHER_STORAGE,
  timeout: OTHER_STORAGE,
};
