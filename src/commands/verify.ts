/** `walsync verify`: proves that what is at a destination can be restored. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { requireNamesOrAll, someNames } from "../cli/names.ts";
import type { Destination } from "../destination/destination.ts";
import { requireListedName } from "../destination/layout.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
import { namesAt } from "../engine/list.ts";
import { isProven, proveDatabase } from "../engine/verify.ts";
import { WalsyncError } from "../errors.ts";
import { print, printJson, progress } from "../log.ts";
import { formatBytes } from "../quantities.ts";
import type { VerifyReport } from "../upkeep/verify.ts";
import { VERIFY_RESULT } from "./results.ts";

export default defineWalsyncCommand({
  meta: { name: "verify", description: "Prove that every file of a database is whole and that they follow on" },
  positionals: { name: { description: "name of the database, as walsync list shows it" } },
  flags: {
    ...DESTINATION_FLAGS,
    ...ENCRYPTION_FLAGS,
    all: { type: "boolean", description: "every database below the destination" },
    quick: { type: "boolean", description: "read the ends of each file only: what it holds is not proven" },
    fix: { type: "boolean", description: "remove manifest entries of files that are not there, and nothing else" },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  examples: [
    ["walsync verify app -b s3://backups/prod", "Read and prove every byte of one database"],
    ["walsync verify --all --quick -b s3://backups/prod", "Whether the files of all of them follow on"],
    ["walsync verify app -b s3://backups/prod --fix", "Clear entries of missing files from its manifest"],
  ],
  result: VERIFY_RESULT,
  async run({ flags, positionals, env, signal }) {
    const { name } = positionals;
    requireNamesOrAll("verify", "a name", name !== undefined, flags.all);
    if (name !== undefined) requireListedName(name);
    const destination = await destinationOf(flags, env, signal);
    try {
      const names = await namesAt(destination, name, signal);
      const reports: VerifyReport[] = [];
      for (const each of names) {
        const report = await verifyOne(destination, each, flags, signal);
        reports.push(report);
        if (!flags.json) printReport(report, flags.quick);
      }
      if (flags.json) printJson({ databases: reports.map(toJson) });
      else if (names.length === 0) print(`${destination.url}: no databases`);
      const faults = reports.filter((report) => !isProven(report));
      if (faults.length > 0) throw notOk(faults);
    } finally {
      destination.close();
    }
  },
});

async function verifyOne(
  destination: Destination,
  name: string,
  { quick, fix }: { quick: boolean; fix: boolean },
  signal: AbortSignal,
): Promise<VerifyReport> {
  let shown: ReturnType<typeof progress> | undefined;
  const onProgress = (done: number, total: number): void => {
    shown ??= progress(`verify ${name}`, total);
    shown.update(done);
  };
  try {
    return await proveDatabase(destination, name, { quick, fix, signal, ...(quick ? {} : { onProgress }) });
  } finally {
    shown?.end();
  }
}

function toJson(report: VerifyReport) {
  const { name, layout, files, bytes, points, proven, findings } = report;
  return { name, layout, ok: isProven(report), files, bytes, points, proven, findings };
}

function printReport(report: VerifyReport, quick: boolean): void {
  const { name, files, bytes, points, proven, findings } = report;
  for (const { severity, key, code, message } of findings) {
    // Most messages begin with the file that they are about.
    const found = message.startsWith(`${key}: `) ? message.slice(key.length + 2) : message;
    print(`${severity} ${key} ${code}: ${found}`);
  }
  const extent = `${files} ${files === 1 ? "file" : "files"}, ${formatBytes(bytes)}`;
  const proof = quick
    ? `${points} restore ${points === 1 ? "point" : "points"}, contents not read`
    : `${proven} of ${points} restore ${points === 1 ? "point" : "points"} proven`;
  print(`${name}: ${isProven(report) ? "ok" : "NOT ok"}, ${extent}, ${proof}`);
}

function notOk(reports: readonly VerifyReport[]): WalsyncError {
  const findings = reports.flatMap((report) => report.findings).filter(({ severity }) => severity === "error");
  const names = someNames(reports.map(({ name }) => name));
  const isOnlyManifest = findings.every(({ code }) => code === "manifest-orphan");
  const count = findings.length === 1 ? "1 error" : `${findings.length} errors`;
  return new WalsyncError("E_INTEGRITY", `${names}: expected everything in order, found ${count}`, {
    hint: isOnlyManifest
      ? "Only the index is wrong. Clear it with: walsync verify --fix"
      : "A running watch ships a new snapshot when it finds files missing; walsync snapshot does so now.",
  });
}
