/** The proof of one database at a destination, and the one thing about it that may be mended. */
import type { Destination } from "../destination/destination.ts";
import { WalsyncError } from "../errors.ts";
import type { Finding } from "../upkeep/findings.ts";
import { removeOrphans } from "../upkeep/manifest-check.ts";
import { type VerifyReport, verifyDatabase } from "../upkeep/verify.ts";

export interface ProofOptions {
  /** Reads headers, trailers and metadata only. */
  quick: boolean;
  /** Removes manifest entries of files that are not there. */
  fix: boolean;
  signal: AbortSignal;
  /** Bytes of all files; with `quick` the number of files. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Throws E_NOT_FOUND if there is nothing of `name`, E_UNREACHABLE, E_REFUSED. What is wrong with its files is a finding. */
export async function proveDatabase(
  destination: Destination,
  name: string,
  { quick, fix, signal, onProgress }: ProofOptions,
): Promise<VerifyReport> {
  const options = { quick, signal, onProgress };
  const report = await verifyDatabase(destination, name, options).catch(async (error) => {
    // Encrypted, and nobody said so: what can be seen of it is looked at.
    if (!(error instanceof WalsyncError) || error.code !== "E_IDENTITY" || destination.stored) throw error;
    const { sealed } = await import("../destination/encrypted.ts");
    return await verifyDatabase(sealed(destination), name, options);
  });
  if (!fix || !report.findings.some(isOrphan)) return report;
  const removed = new Set(await removeOrphans(destination, name, signal));
  const findings = report.findings.map(
    (finding): Finding =>
      isOrphan(finding) && removed.has(finding.key)
        ? { ...finding, severity: "note", message: "was listed in the manifest, and not there: the entry is removed" }
        : finding,
  );
  return { ...report, findings };
}

/** True if everything can be restored as it is listed. */
export function isProven({ findings }: VerifyReport): boolean {
  return findings.every(({ severity }) => severity !== "error");
}

// --- internal ---

const isOrphan = ({ code }: Finding): boolean => code === "manifest-orphan";
