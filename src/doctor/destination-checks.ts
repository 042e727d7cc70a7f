/**
 * What is checked of a destination: everything that walsync asks of one, with a few small objects below a folder of their
 * own that no database is called. They are removed again, whatever happens.
 */
import type { AgeKeys } from "../destination/age-keys.ts";
import type { Destination, ObjectBody } from "../destination/destination.ts";
import { type Check, failed, ok, skipped, type Verdict, warning } from "./check.ts";
import { decodeSample, makeSample } from "./ltx-sample.ts";

export class DestinationToCheck {
  readonly destination: Destination;
  /** Begins an upload in parts and gives it up; null where there is no such thing. */
  readonly probeMultipart: ((key: string) => Promise<void>) | null;
  readonly signal: AbortSignal;
  /** What LTX files are encrypted with. */
  readonly keys: AgeKeys | "none" | "faulty";
  /** Key of the object that most checks are about, and of the LTX file. */
  readonly key: string;
  readonly ltxKey: string;
  /** Of the first version of the object. */
  etag = "";
  /** Objects may have been written that are not removed yet. */
  isDirty = false;

  constructor(
    destination: Destination,
    probeMultipart: DestinationToCheck["probeMultipart"],
    signal: AbortSignal,
    keys: DestinationToCheck["keys"] = "none",
  ) {
    const folder = `.walsync-doctor-${crypto.randomUUID()}`;
    this.destination = destination;
    this.probeMultipart = probeMultipart;
    this.signal = signal;
    this.keys = keys;
    this.key = `${folder}/probe`;
    this.ltxKey = `${folder}/ltx`;
  }

  /** Removes every object that the checks may have left. Not under their signal, which may be the reason. */
  async clean(): Promise<void> {
    if (!this.isDirty) return;
    await this.destination.remove([this.key, this.ltxKey], { signal: AbortSignal.timeout(CLEAN_WITHIN_MS) });
    this.isDirty = false;
  }
}

export const DESTINATION_CHECKS: readonly Check<DestinationToCheck>[] = [
  { check: "list", run: checkList },
  { check: "write", needs: ["list"], run: checkWrite },
  { check: "conditional write", needs: ["write"], run: checkAbsent },
  { check: "read", needs: ["write"], run: checkRead },
  { check: "ranged read", needs: ["read"], run: checkRange },
  { check: "list after write", needs: ["write"], run: checkListed },
  { check: "metadata", needs: ["write"], run: checkMetadata },
  { check: "conditional replace", needs: ["write"], run: checkReplace },
  { check: "upload in parts", needs: ["write"], run: checkMultipart },
  { check: "LTX round trip", needs: ["write"], run: checkRoundTrip },
  { check: "delete", needs: ["write"], run: checkDelete },
];

// --- internal ---

const CLEAN_WITHIN_MS = 10_000;
const FIRST = Buffer.from("walsync doctor was here\n");
const SECOND = Buffer.from("walsync doctor was here again\n");
const RANGE = { first: 8, last: 13 };
const METADATA = { probe: "doctor" };
const CONDITIONS_HINT =
  "The server ignores conditions: two writers could mix their files. Use a server that knows If-None-Match and If-Match.";
const BYTES_HINT = "What comes back is not what was written. Look for a proxy or a cache in between.";

async function checkList({ destination, signal }: DestinationToCheck): Promise<Verdict> {
  await destination.prepare({ signal });
  for await (const _ of destination.list("", { signal })) break;
  return ok("it answers");
}

async function checkWrite(probe: DestinationToCheck): Promise<Verdict> {
  const { destination, key, signal } = probe;
  const options = { condition: "absent", metadata: METADATA, signal } as const;
  probe.isDirty = true;
  const result = await destination.write(key, { kind: "bytes", bytes: FIRST }, options);
  if (result.kind === "refused") return failed("a key that is not there counts as one that is", CONDITIONS_HINT);
  probe.etag = result.etag;
  return ok("an object that was not there (If-None-Match)");
}

async function checkAbsent({ destination, key, signal }: DestinationToCheck): Promise<Verdict> {
  const result = await destination.write(key, { kind: "bytes", bytes: SECOND }, { condition: "absent", signal });
  return result.kind === "refused"
    ? ok("an object that is there is not overwritten")
    : failed("an object that was there was overwritten", CONDITIONS_HINT);
}

async function checkRead({ destination, key, signal }: DestinationToCheck): Promise<Verdict> {
  const bytes = await bytesOf(await destination.read(key, { signal }));
  return bytes !== null && (FIRST.equals(bytes) || SECOND.equals(bytes))
    ? ok("the same bytes")
    : failed("other bytes than were written", BYTES_HINT);
}

async function checkRange({ destination, key, signal }: DestinationToCheck): Promise<Verdict> {
  const bytes = await bytesOf(await destination.read(key, { range: RANGE, signal }));
  return bytes !== null && FIRST.subarray(RANGE.first, RANGE.last + 1).equals(bytes)
    ? ok("a part of an object")
    : failed("another part than was asked for", "The server ignores ranges, which walsync needs.");
}

async function checkListed({ destination, key, signal }: DestinationToCheck): Promise<Verdict> {
  return (await isListed(destination, key, signal))
    ? ok("a new object is listed at once")
    : failed("a new object is not listed", "walsync needs a server whose lists show what was written before.");
}

async function checkMetadata({ destination, key, signal }: DestinationToCheck): Promise<Verdict> {
  if (!destination.capabilities.metadata) return skipped("a directory keeps none; the manifest has the checksums");
  const head = await destination.head(key, { signal });
  return head?.metadata.probe === METADATA.probe
    ? ok("kept with the object")
    : warning("not kept", "A restore cannot check the SHA-256 of files; their own checksums are checked all the same.");
}

async function checkReplace({ destination, key, etag, signal }: DestinationToCheck): Promise<Verdict> {
  const replace = () => destination.write(key, { kind: "bytes", bytes: SECOND }, { condition: { etag }, signal });
  if ((await replace()).kind === "refused")
    return failed("an unchanged object is not replaced (If-Match)", CONDITIONS_HINT);
  return (await replace()).kind === "refused"
    ? ok("an object is replaced only if it is unchanged (If-Match)")
    : failed("an object that had changed was replaced", CONDITIONS_HINT);
}

async function checkMultipart({ probeMultipart, key }: DestinationToCheck): Promise<Verdict> {
  if (probeMultipart === null) return skipped("a directory has no such thing");
  await probeMultipart(key);
  return ok("begun, and given up");
}

async function checkRoundTrip({ destination, keys, ltxKey, signal }: DestinationToCheck): Promise<Verdict> {
  if (keys === "faulty") return skipped("needs: keys");
  const { database, file } = makeSample();
  const isEncrypted = keys !== "none" && keys.recipients.length > 0;
  const place = isEncrypted ? await encryptedPlace(destination, keys, ltxKey) : destination;
  const source = { kind: "bytes", bytes: file } as const;
  const written = await place.write(ltxKey, source, { condition: "absent", signal });
  if (isEncrypted && keys.decrypter === null) {
    // As far as that goes without an identity: it is an encrypted file, and the one that was sent.
    const head = await place.head(ltxKey, { signal });
    const bytes = await bytesOf(await destination.read(ltxKey, { signal }));
    const sha256 = bytes === null ? null : new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    return written.kind === "written" && head?.sizeBytes === file.length && sha256 === written.storedSha256
      ? ok("a database is encrypted, written, and the same object; without an identity it cannot be read")
      : failed("another object than was written", BYTES_HINT);
  }
  const bytes = await bytesOf(await place.read(ltxKey, { signal }));
  return bytes !== null && Buffer.compare(decodeSample(bytes), database) === 0
    ? ok(`a database is ${isEncrypted ? "encrypted, " : ""}written, read and the same`)
    : failed("another database than was written", BYTES_HINT);
}

/** Encrypts what is under `ltxKey`. */
async function encryptedPlace(destination: Destination, keys: AgeKeys, ltxKey: string): Promise<Destination> {
  const { EncryptedDestination } = await import("../destination/encrypted.ts");
  return new EncryptedDestination(destination, keys, (key) => key === ltxKey);
}

async function checkDelete(probe: DestinationToCheck): Promise<Verdict> {
  const { destination, key, signal } = probe;
  await probe.clean();
  return (await isListed(destination, key, signal))
    ? failed(`${key} is still listed`, "Allow this access key to delete objects, and remove what is left.")
    : ok("nothing is left");
}

async function isListed(destination: Destination, key: string, signal: AbortSignal): Promise<boolean> {
  const folder = key.slice(0, key.lastIndexOf("/") + 1);
  for await (const found of destination.list(folder, { signal })) if (found.key === key) return true;
  return false;
}

async function bytesOf(body: ObjectBody | null): Promise<Uint8Array | null> {
  if (body === null) return null;
  const chunks: Uint8Array[] = [];
  for await (const chunk of body.chunks) chunks.push(chunk.slice());
  return Buffer.concat(chunks);
}
