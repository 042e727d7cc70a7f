/** What is checked of the host: limits of the kernel, whether it reports changes, and the clock. */
import { mkdtempSync, readFileSync, rmSync, statSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { readDescriptorLimit } from "../descriptor-limit.ts";
import { DESCRIPTORS_HINT, DESCRIPTORS_PER_DATABASE, DESCRIPTORS_PER_SLEEPER } from "../durable.ts";
import { errnoOf, messageOf } from "../errors.ts";
import { formatDuration } from "../quantities.ts";
import { type Check, failed, ok, skipped, type Verdict, warning } from "./check.ts";
import { existingAncestor } from "./folders.ts";

export interface HostToCheck {
  /** Absolute paths of the databases that it is to replicate, and of the state folder of each. May be empty. */
  databases: readonly { path: string; stateFolder: string }[];
  /** URL of the S3 server, whose clock counts; null if there is none. */
  server: string | null;
  signal: AbortSignal;
}

export const HOST_CHECKS: readonly Check<HostToCheck>[] = [
  { check: "open files", run: checkDescriptors },
  { check: "inotify", run: checkInotify },
  { check: "file events", run: checkFileEvents },
  { check: "clock", run: checkClock },
];

/** How far the clock is from the server's is nothing to worry about, to be looked at, or refused by S3. Pure. */
export function judgeClock(aheadMs: number): Verdict {
  const message =
    Math.abs(aheadMs) < DATE_STEP_MS
      ? "as the server's"
      : `${formatDuration(Math.abs(aheadMs))} ${aheadMs > 0 ? "ahead of" : "behind"} the server's`;
  const hint = "Set the clock of this machine, and let NTP keep it (timedatectl set-ntp true).";
  if (Math.abs(aheadMs) >= SKEW_REFUSED_MS) return failed(`${message}: S3 refuses every request`, hint);
  return Math.abs(aheadMs) > SKEW_WARNED_MS ? warning(message, hint) : ok(message);
}

/** Whether so many descriptors are enough for so many databases. Pure. */
export function judgeDescriptors(limit: number, databases: number): Verdict {
  const sleepers = Math.max(0, databases - PINNED);
  const needed =
    DESCRIPTORS_OF_PROCESS + (databases - sleepers) * DESCRIPTORS_PER_DATABASE + sleepers * DESCRIPTORS_PER_SLEEPER;
  const awake = Math.max(0, Math.floor((limit - DESCRIPTORS_OF_PROCESS) / DESCRIPTORS_PER_DATABASE));
  const rest = limit - DESCRIPTORS_OF_PROCESS - PINNED * DESCRIPTORS_PER_DATABASE;
  const most = awake <= PINNED ? awake : PINNED + Math.floor(rest / DESCRIPTORS_PER_SLEEPER);
  const message = `${limit} may be open: enough for ${most} databases`;
  if (limit < needed) return failed(`${message}, not for ${databases}`, DESCRIPTORS_HINT);
  return limit < 2 * needed && databases > 0
    ? warning(`${message}, little more than ${databases}`, DESCRIPTORS_HINT)
    : ok(message);
}

// --- internal ---

/** What a watch has open beside its databases: streams, sockets, requests under way and their files. */
const DESCRIPTORS_OF_PROCESS = 64;
/** How many databases have a connection, by the default of --max-pinned. */
const PINNED = 256;
const INOTIFY = "/proc/sys/fs/inotify";
const INOTIFY_HINT =
  "Raise them with sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512. Without, changes are noticed by polling.";
/** Other programs of the same user need some, too. */
const INSTANCES_WANTED = 16;
const EVENT_ATTEMPTS = 20;
const EVENT_WAIT_MS = 100;
const SERVER_ANSWER_MS = 10_000;
/** A Date header tells whole seconds. */
const DATE_STEP_MS = 2000;
const SKEW_WARNED_MS = 60_000;
/** Spec: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (RequestTimeTooSkewed) */
const SKEW_REFUSED_MS = 15 * 60_000;

function checkDescriptors({ databases }: HostToCheck): Verdict {
  const limit = readDescriptorLimit();
  if (limit === null) return skipped("cannot be asked on this system; see ulimit -n");
  return judgeDescriptors(Math.min(limit, Number.MAX_SAFE_INTEGER), databases.length);
}

/** One watch for each folder that has a database in it, and one instance for the process. */
function checkInotify({ databases }: HostToCheck): Verdict {
  const [watches, instances] = ["max_user_watches", "max_user_instances"].map((name) => {
    const text = readOrNull(`${INOTIFY}/${name}`);
    return text === null ? null : Number(text);
  });
  if (watches == null || instances == null) return skipped("not on this system");
  const folders = new Set(databases.map(({ path }) => dirname(path))).size;
  const message = `max_user_watches ${watches}, max_user_instances ${instances}, for ${folders} ${folders === 1 ? "folder" : "folders"}`;
  return watches < 2 * folders || instances < INSTANCES_WANTED ? warning(message, INOTIFY_HINT) : ok(message);
}

/** One try on each file system: whether events arrive is a matter of the file system. */
async function checkFileEvents({ databases, signal }: HostToCheck): Promise<Verdict> {
  const places = new Map<number, string>();
  for (const { stateFolder } of databases) {
    const folder = existingAncestor(dirname(stateFolder));
    places.set(statSync(folder).dev, folder);
  }
  const folders = places.size === 0 ? [tmpdir()] : [...places.values()];
  const faults: string[] = [];
  for (const folder of folders) {
    const fault = await faultOfEvents(folder, signal);
    if (fault !== null) faults.push(`${folder}: ${fault}`);
  }
  if (faults.length === 0) return ok(`they arrive in ${folders.join(", ")}`);
  const hint =
    "Network file systems report no changes: they are noticed by polling every ten seconds. On a local disk, raise the inotify limits.";
  return warning(faults.join("; "), hint);
}

/** Null if a change in a new folder below `parent` is reported. The folder is removed again. */
async function faultOfEvents(parent: string, signal: AbortSignal): Promise<string | null> {
  let folder: string | undefined;
  let watcher: ReturnType<typeof watch> | undefined;
  try {
    folder = mkdtempSync(join(parent, ".walsync-doctor-"));
    const event = Promise.withResolvers<string | null>();
    watcher = watch(folder, () => event.resolve(null));
    watcher.on("error", (error) => event.resolve(messageOf(error)));
    for (let attempt = 0; attempt < EVENT_ATTEMPTS; attempt++) {
      writeFileSync(join(folder, "probe"), String(attempt));
      const found = await Promise.race([event.promise, Bun.sleep(EVENT_WAIT_MS).then(() => undefined)]);
      if (found !== undefined) return found;
      signal.throwIfAborted();
    }
    return `no event within ${formatDuration(EVENT_ATTEMPTS * EVENT_WAIT_MS)}`;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return messageOf(error);
  } finally {
    watcher?.close();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

/** Any answer has the server's time in its head; no credentials are needed for that. */
async function checkClock({ server, signal }: HostToCheck): Promise<Verdict> {
  if (server === null) return skipped("no server to compare with");
  let date: number;
  const sentMs = Date.now();
  try {
    const response = await fetch(server, {
      method: "HEAD",
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(SERVER_ANSWER_MS)]),
    });
    date = Date.parse(response.headers.get("date") ?? "");
  } catch (error) {
    signal.throwIfAborted();
    return skipped(`the server does not answer: ${messageOf(error)}`);
  }
  if (Number.isNaN(date)) return skipped("the server does not tell its time");
  // The server looked at its clock somewhere between the two moments, and dropped what is less than a second.
  const middleMs = (sentMs + Date.now()) / 2;
  return judgeClock(Math.round(middleMs - (date + 500)));
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
