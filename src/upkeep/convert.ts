/**
 * Copies a replica from one layout to the other: every file is read, proven and encoded anew, with the checksums that the
 * other layout wants, and verified at the end.
 * Promise: what can be restored of the source can be restored of the copy, with the same txids and times. The source is only
 * read. A copy that was interrupted goes on: what is there already is compared, and not sent again.
 */
import { hashObject, readChain } from "../chain/chain.ts";
import { type LayoutRules, layoutRules } from "../chain/layout-rules.ts";
import { editManifest, emptyManifest, newLineage, readManifest, withEntries } from "../chain/manifest.ts";
import type { Destination } from "../destination/destination.ts";
import { type Layout, parseKey } from "../destination/layout.ts";
import { WalsyncError } from "../errors.ts";
import type { Txid } from "../ltx/txid.ts";
import { type CopyOptions, ReplicaCopy } from "./convert-copy.ts";
import { type ConversionPlan, planConversion } from "./convert-plan.ts";
import { verifyDatabase } from "./verify.ts";

export interface ConvertReport {
  /** Of the source, and of the copy. */
  from: Layout;
  layout: Layout;
  /** The newest transaction, and how many can be restored. */
  txid: Txid;
  points: number;
  /** Files that were sent, and those that were there. */
  copied: number;
  existing: number;
  /** Bytes of all of them. */
  bytes: number;
  skipped: ConversionPlan["skipped"];
}

/**
 * Throws E_OUTPUT_EXISTS if the copy's name holds anything else, E_NOT_FOUND,
 * E_CHAIN_GAP, E_LTX or E_INTEGRITY for what is wrong with the source, E_DISK, DestinationError.
 */
export async function convertReplica(
  source: Destination,
  sourceName: string,
  target: Destination,
  options: CopyOptions,
): Promise<ConvertReport> {
  const { name, signal } = options;
  const chain = await readChain(source, sourceName, signal);
  const layout = chain.layout === "walsync" ? "litestream" : "walsync";
  const rules = layoutRules(layout, target.capabilities);
  const plan = planConversion(chain, { name, rules });
  await target.prepare({ signal });
  const present = await presentKeys(target, name, rules, plan, signal);
  const copy = new ReplicaCopy(source, target, rules, present, options);
  await copy.run(chain, plan);
  if (rules.hasManifest) await writeManifest(target, name, copy, signal);
  await proveCopy(target, rules, copy, options);
  const { copied, existing, bytes } = copy;
  const { txid, points, skipped } = plan;
  return { from: chain.layout, layout, txid, points: points.length, copied, existing, bytes, skipped };
}

// --- internal ---

/** Keys of the copy that are there already. Throws E_OUTPUT_EXISTS if anything else has the name. */
async function presentKeys(
  target: Destination,
  name: string,
  rules: LayoutRules,
  { steps }: ConversionPlan,
  signal: AbortSignal,
): Promise<Set<string>> {
  const planned = new Set(steps.flatMap(({ targets }) => targets.map(({ key }) => key)));
  const present = new Set<string>();
  for await (const { key } of target.list(`${name}/`, { signal })) {
    const parsed = parseKey(key);
    if (parsed === null || parsed.name !== name) continue;
    if (planned.has(key)) present.add(key);
    else if (parsed.is !== "manifest" || !rules.hasManifest) throw foreign(target, key);
  }
  const manifest = rules.hasManifest ? ((await readManifest(target, name, signal))?.manifest ?? null) : null;
  const other = manifest?.files.find((entry) => !planned.has(`${name}/${entry.key}`));
  if (other !== undefined) throw foreign(target, `${name}/${other.key}`);
  return present;
}

async function writeManifest(
  target: Destination,
  name: string,
  { entries, pageSize }: ReplicaCopy,
  signal: AbortSignal,
): Promise<void> {
  await editManifest(
    target,
    name,
    (found) => {
      const manifest = found ?? emptyManifest({ name, lineage: newLineage(), pageSize });
      return withEntries({ ...manifest, pageSize }, entries, Date.now());
    },
    signal,
  );
}

/** Reads the whole copy again. Throws E_INTEGRITY if it is not what was encoded. */
async function proveCopy(
  target: Destination,
  rules: LayoutRules,
  { entries }: ReplicaCopy,
  { name, signal, onProof }: CopyOptions,
): Promise<void> {
  const { findings } = await verifyDatabase(target, name, { quick: false, signal, onProgress: onProof });
  const fault = findings.find(({ severity }) => severity === "error");
  if (fault !== undefined) throw notProven(fault.key, fault.message);
  // Elsewhere it was compared just now, with metadata or with the manifest.
  if (target.capabilities.metadata || rules.hasManifest) return;
  for (const { key, minTxid, maxTxid, sha256 } of entries) {
    const file = { key: `${name}/${key}`, minTxid, maxTxid };
    const found = await hashObject(target, file, signal);
    if (found !== sha256) throw notProven(file.key, `expected sha256 ${sha256}, found ${found}`);
  }
}

function foreign(target: Destination, key: string): WalsyncError {
  return new WalsyncError("E_OUTPUT_EXISTS", `${target.url}: expected nothing but this copy, found ${key}`, {
    hint: "Give the copy another name with --as, or another place with --to. A source that changes cannot be copied on.",
  });
}

function notProven(key: string, fault: string): WalsyncError {
  return new WalsyncError("E_INTEGRITY", `${key}: expected a copy that verifies, found: ${fault}`, {
    hint: "The source is as it was. Remove the copy and run the command again.",
  });
}
