/**
 * Runs scans of whole databases: a few at a time in the process, and out of the way of checkpoints. A scan that finds one
 * waiting ends, lets the pin go until the checkpoint is done, and begins anew.
 */
import type { Gate } from "../destination/limit.ts";
import { logEvent } from "../log.ts";
import type { PinnedDatabase } from "../sqlite/database.ts";
import { GaveWay, type ScanOptions } from "./full-scan.ts";
import type { LocalState } from "./local-state.ts";
import type { OpenDatabase } from "./open-database.ts";
import type { Position } from "./position.ts";
import type { LiveScanOutcome } from "./scans.ts";

export interface ScanSetup {
  name: string;
  /** Shared by the process: how many whole databases are read at once. */
  scans: Gate;
  onScanProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export type LiveScan = (
  database: PinnedDatabase,
  state: LocalState,
  position: Position,
  options: ScanOptions,
) => Promise<LiveScanOutcome>;

/** What a scan needs to know of the captures that go on beside it. */
export interface CaptureControl {
  isLive(): boolean;
  /** Captures what is committed. May begin a resync, and then captures are not live any more. */
  captureRest(open: OpenDatabase): void;
}

export class ScanRunner {
  readonly #setup: ScanSetup;
  readonly #captures: CaptureControl;

  constructor(setup: ScanSetup, captures: CaptureControl) {
    this.#setup = setup;
    this.#captures = captures;
  }

  /** Runs `scan` while nothing is captured, and then `onDone`, before any other scan begins. */
  async exclusive(
    open: OpenDatabase,
    scan: (options: ScanOptions) => Promise<unknown>,
    onDone: () => void,
  ): Promise<void> {
    const { signal } = open.stop;
    // The scan takes the pin anew at its own time. Until its turn comes there is nothing to keep in the WAL.
    if (open.isPinned) open.database.unpin();
    await this.#setup.scans.run(async () => {
      for (let restarts = 0; ; restarts++) {
        signal.throwIfAborted();
        try {
          await open.reading(() => scan(this.#options(open, restarts)));
          break;
        } catch (error) {
          if (!(error instanceof GaveWay)) throw error;
          await this.#giveWay(open);
        }
      }
      signal.throwIfAborted();
      open.notePin();
      onDone();
    }, signal);
  }

  /** Runs `scan` beside the captures. Null if there is one under way already, or captures have stopped. */
  async whileLive(open: OpenDatabase, scan: LiveScan): Promise<LiveScanOutcome | null> {
    if (open.scanQueued) return null;
    open.scanQueued = true;
    try {
      return await this.#setup.scans.run(() => this.#scanLive(open, scan), open.stop.signal);
    } finally {
      open.scanQueued = false;
    }
  }

  async #scanLive(open: OpenDatabase, scan: LiveScan): Promise<LiveScanOutcome | null> {
    const { database, state, stop } = open;
    for (let restarts = 0; ; restarts++) {
      stop.signal.throwIfAborted();
      if (!this.#captures.isLive()) return null;
      if (open.yieldedAtMs !== null) open.takePinBack();
      open.scanning = true;
      try {
        return await open.reading(() => scan(database, state, state.position!, this.#options(open, restarts)));
      } catch (error) {
        if (!(error instanceof GaveWay)) throw error;
      } finally {
        open.scanning = false;
        if (this.#captures.isLive()) open.notePin();
      }
      if (!this.#captures.isLive()) return null;
      // What was committed since the pin was taken must be captured before it is let go.
      this.#captures.captureRest(open);
      if (this.#captures.isLive()) await this.#giveWay(open);
    }
  }

  #options(open: OpenDatabase, restarts: number): ScanOptions {
    return { signal: open.stop.signal, onProgress: this.#setup.onScanProgress, givesWay: restarts < RESTARTS };
  }

  async #giveWay(open: OpenDatabase): Promise<void> {
    logEvent("debug", "scan gives way to a checkpoint", { database: this.#setup.name });
    await open.yieldPin();
  }
}

// --- internal ---

/** A scan begins anew this often; then the checkpoint waits, or the scan would never end. */
const RESTARTS = 3;
