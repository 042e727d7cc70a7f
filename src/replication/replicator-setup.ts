/** What the replicator of one database is given. */
import type { Destination } from "../destination/destination.ts";
import type { Layout } from "../destination/layout.ts";
import type { Gate } from "../destination/limit.ts";
import type { ReplicationPolicy } from "./capture.ts";
import type { Patience } from "./delivery.ts";
import type { DamageListener } from "./faults.ts";
import type { DatabaseListener } from "./journal.ts";
import type { UploadProgress } from "./shipper.ts";

export interface ReplicatorSetup {
  /** The database file. */
  path: string;
  /** What it is called at the destination. */
  name: string;
  destination: Destination;
  /** How its files are laid out there. */
  layout: Layout;
  stateFolder: string;
  policy: ReplicationPolicy;
  /**
   * The file may go for good, as those do that a directory or a glob found: then what is captured is shipped, and nothing is
   * wrong. Otherwise a file that is gone is a fault until it is back.
   */
  mayVanish?: boolean | undefined;
  /** True when the destination has proven to be there, false when it refused. Captures go on without, once a chain has begun. */
  ready: Promise<boolean>;
  patience: Patience;
  /** Shared by the process: how many whole databases are read at once. */
  scans: Gate;
  /** Shared by the process: how many that have nothing to ship make first contact at once. Without, all do. */
  contacts?: Gate | undefined;
  onScanProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  onUploadProgress?: UploadProgress | undefined;
  /** Told what happens. Must not throw. */
  onEvent?: DatabaseListener | undefined;
  /** Told when something is found damaged. walsync goes on, and makes the chain whole by itself. */
  onDamage?: DamageListener | undefined;
}
