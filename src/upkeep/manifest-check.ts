/** The manifest against the listing, and the one thing about it that may be mended: entries of files that are not there. */
import { type Chain, type NamedFile, readChains } from "../chain/chain.ts";
import { editManifest, type Manifest, readManifest } from "../chain/manifest.ts";
import type { Destination } from "../destination/destination.ts";
import { folderOf, manifestKey } from "../destination/layout.ts";
import { type Finding, finding } from "./findings.ts";

/** `manifest` was read before the chain was listed. */
export async function manifestFindings(
  destination: Destination,
  chain: Chain,
  manifest: Manifest | null,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const key = manifestKey(chain.name);
  if (manifest === null) {
    return [finding(key, "manifest-missing", "expected a manifest, found none. The next run of watch writes it")];
  }
  const findings: Finding[] = [];
  if (manifest.name !== chain.name) {
    findings.push(finding(key, "manifest-differs", `expected name ${chain.name}, found ${manifest.name}`));
  }
  if (manifest.files.length === 0) {
    findings.push(finding(key, "manifest-missing", `expected ${chain.files.length} files in it, found none`));
    return findings;
  }
  for (const orphan of await findOrphans(destination, chain.name, manifest, keysOf(chain.files), signal)) {
    const message = `listed in the manifest, and not there. verify --fix removes the entry`;
    findings.push(finding(`${folderOf(chain.name)}${orphan}`, "manifest-orphan", message));
  }
  const listed = new Set(manifest.files.map((entry) => entry.key));
  const missing = chain.files.filter(
    (file) =>
      !listed.has(file.key.slice(folderOf(chain.name).length)) &&
      file.modifiedAt.getTime() < manifest.updatedAtMs - MANIFEST_SLACK_MS,
  );
  if (missing.length > 0) {
    const message = `${missing.length} older files are not in it, the first is ${missing[0]!.key}`;
    findings.push(finding(key, "manifest-behind", message));
  }
  return findings;
}

/** Removes the entries of files that are not there, and nothing else. Returns their keys. Throws DestinationError. */
export async function removeOrphans(destination: Destination, name: string, signal?: AbortSignal): Promise<string[]> {
  let orphans: string[] = [];
  const isChanged = await editManifest(
    destination,
    name,
    async (manifest) => {
      if (manifest === null) return null;
      const [chain] = await readChains(destination, folderOf(name), name, signal);
      orphans = await findOrphans(destination, name, manifest, keysOf(chain?.files ?? []), signal);
      const files = manifest.files.filter((entry) => !orphans.includes(entry.key));
      return orphans.length === 0 ? null : { ...manifest, files, updatedAtMs: Date.now() };
    },
    signal,
  );
  return isChanged ? orphans.map((key) => `${folderOf(name)}${key}`) : [];
}

// --- internal ---

/** A running watch writes the manifest at most once a minute, and clocks differ. */
const MANIFEST_SLACK_MS = 5 * 60_000;

function keysOf(files: readonly NamedFile[]): Set<string> {
  return new Set(files.map((file) => file.key));
}

/** Entries whose file is neither `known` nor there when it is asked for. */
async function findOrphans(
  destination: Destination,
  name: string,
  manifest: Manifest,
  known: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const orphans: string[] = [];
  for (const { key } of manifest.files) {
    const full = `${folderOf(name)}${key}`;
    if (!known.has(full) && (await destination.head(full, { signal })) === null) orphans.push(key);
  }
  if (orphans.length === 0) return orphans;
  // Pruned between the reading of the manifest and the listing: not there, and not in the manifest of now either.
  const now = await readManifest(destination, name, signal);
  const entries = new Set(now?.manifest.files.map((entry) => entry.key));
  return orphans.filter((key) => entries.has(key));
}
