/** The half of `walsync migrate` that copies a replica from one layout to the other. */
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Destination } from "../destination/destination.ts";
import { requireName } from "../destination/layout.ts";
import { asDiskError } from "../durable.ts";
import { logEvent, print, printJson, progress } from "../log.ts";
import { formatBytes } from "../quantities.ts";
import { convertReplica } from "../upkeep/convert.ts";

export interface MigrateConvertOptions {
  name: string;
  /** Of the copy. */
  as: string;
  json: boolean;
  signal: AbortSignal;
}

/** Throws E_USAGE for what is no name, and what `convertReplica` throws. */
export async function migrateConvert(
  source: Destination,
  target: Destination,
  { name, as, json, signal }: MigrateConvertOptions,
): Promise<void> {
  requireName(name);
  requireName(as);
  const folder = makeTempFolder();
  let shown: ReturnType<typeof progress> | undefined;
  let label = "";
  const show = (of: string) => (done: number, total: number) => {
    if (label !== of) {
      shown?.end();
      shown = progress(of, total);
      label = of;
    }
    shown?.update(done);
  };
  try {
    const report = await convertReplica(source, name, target, {
      name: as,
      folder,
      signal,
      onProgress: show(`convert ${name}`),
      onProof: show(`verify ${as}`),
    });
    const { from, layout, txid, points, copied, existing, bytes } = report;
    const skipped = report.skipped.map(({ file, reason }) => ({ key: file.key, reason }));
    if (json) {
      const files = { copied, existing };
      printJson({ converted: { name, from, to: target.url, as, layout, txid, points, files, bytes, skipped } });
      return;
    }
    for (const { key, reason } of skipped) logEvent("info", "file is not copied", { key, reason });
    const files = `${copied} ${copied === 1 ? "file" : "files"} copied, ${existing} there already`;
    print(`${as}: ${files}, ${formatBytes(bytes)} in the ${layout} layout at ${target.url}`);
    print(`${as}: verified, ${points} restore points up to txid ${txid}`);
  } finally {
    shown?.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

const PREFIX = "walsync-convert-";

/** For its owner alone. Removes what copies that were killed have left. */
function makeTempFolder(): string {
  const parent = tmpdir();
  try {
    for (const name of readdirSync(parent)) {
      const pid = /^walsync-convert-(\d+)-/.exec(name)?.[1];
      const path = join(parent, name);
      if (pid === undefined || isRunning(Number(pid)) || statSync(path).uid !== process.getuid?.()) continue;
      rmSync(path, { recursive: true, force: true });
    }
    return mkdtempSync(join(parent, `${PREFIX}${process.pid}-`));
  } catch (error) {
    throw asDiskError(parent, error);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // One that may not be asked is there.
    return (error as { code?: string }).code === "EPERM";
  }
}
