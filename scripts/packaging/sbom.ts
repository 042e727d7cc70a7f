/** The bill of materials of a release: CycloneDX 1.6 JSON, made of bun.lock. Spec: https://cyclonedx.org/docs/1.6/json/ */
import { type LockedPackage, type Lockfile, lockedPackage, productionPackages, productionRoots } from "./lockfile.ts";

export interface SbomSource {
  lock: Lockfile;
  /** The program itself. */
  program: { name: string; version: string; license: string; description: string };
  /** Packages of the Buns that became a part of the binaries. */
  runtimes: readonly string[];
  /** SPDX expression of an installed package, by its place in bun.lock. */
  licenseOf: (place: string) => string;
  /** Seconds since 1970. */
  timestamp: number;
}

/** What the binaries are made of: every production dependency, and Bun. The same source gives the same text. */
export function sbomOf({ lock, program, runtimes, licenseOf, timestamp }: SbomSource): string {
  const root = `pkg:generic/${program.name}@${program.version}`;
  // One package may lie at several places of the tree.
  const packages = [...new Map(productionPackages(lock).map((locked) => [purlOf(locked), locked])).values()];
  const buns = runtimes.map((place) => lockedPackage(lock, place));
  const refOf = (place: string) => purlOf(lockedPackage(lock, place));
  const document = {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      timestamp: new Date(timestamp * 1000).toISOString(),
      component: {
        type: "application",
        "bom-ref": root,
        name: program.name,
        version: program.version,
        description: program.description,
        licenses: [{ expression: program.license }],
        purl: root,
      },
    },
    components: [
      ...packages.map((locked) => componentOf(locked, licenseOf(locked.place))),
      // Bun comes as one package for each machine; all have the licence of the package that chooses among them.
      ...buns.map((locked) => componentOf(locked, licenseOf("bun"))),
    ],
    dependencies: [
      { ref: root, dependsOn: [...productionRoots(lock), ...runtimes].map(refOf).sort() },
      ...packages.map((locked) => ({ ref: purlOf(locked), dependsOn: locked.dependsOn.map(refOf).sort() })),
      ...buns.map((locked) => ({ ref: purlOf(locked), dependsOn: [] })),
    ],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

// --- internal ---

function componentOf(locked: LockedPackage, license: string): object {
  const purl = purlOf(locked);
  return {
    type: "library",
    "bom-ref": purl,
    name: locked.name,
    version: locked.version,
    licenses: [{ expression: license }],
    hashes: [
      { alg: "SHA-512", content: Buffer.from(locked.integrity.slice("sha512-".length), "base64").toString("hex") },
    ],
    purl,
  };
}

/** Spec: https://github.com/package-url/purl-spec. The "@" of a scope is escaped. */
function purlOf({ name, version }: LockedPackage): string {
  return `pkg:npm/${name.replace("@", "%40")}@${version}`;
}
