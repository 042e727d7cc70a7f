/** The way back: which moments of a database can be had, and the command that restores the chosen one. */
import { formatBytes } from "../../quantities.ts";
import { POINTS_PATH, type PointsAnswer, type Refusal, type RestorePoint, type WatchFacts } from "../protocol.ts";
import { type Moment, restoreCommand, verifyCommand } from "../restore-command.ts";
import { copyText } from "./clipboard.ts";
import { element, setText } from "./dom.ts";
import { type Span, Timeline } from "./timeline.ts";
import { fullTime, localInput, roughDuration, utcTime } from "./times.ts";

type Chosen = { kind: "newest" } | { kind: "point"; point: RestorePoint } | { kind: "time"; atMs: number };

export class RestorePanel {
  readonly node: HTMLElement;
  readonly #name: string;
  readonly #watch: WatchFacts;
  readonly #chain = element("p", { class: "chain" });
  readonly #gap = element("p", { class: "notice trouble", hidden: true });
  readonly #message = element("p", { class: "notice", role: "status" });
  readonly #lookup = element("div", { class: "lookup", hidden: true });
  readonly #timeline: Timeline;
  readonly #spans = element("fieldset", { class: "segments" }, element("legend", { class: "hidden" }, "Time shown"));
  readonly #thinned = element("p", { class: "hint" });
  readonly #moment = element("p", { class: "moment", "aria-live": "polite" });
  readonly #time = element("input", { type: "datetime-local", step: 1, id: "moment-time" });
  readonly #code = element("code");
  readonly #copy = element("button", { type: "button", class: "primary" }, "Copy command");
  #answer: PointsAnswer | null = null;
  #spanMs: number | null = null;
  #span: Span | null = null;
  #chosen: Chosen = { kind: "newest" };
  #reading = 0;
  #readAtMs = 0;
  #readTxid = 0;

  constructor(name: string, watch: WatchFacts) {
    this.#name = name;
    this.#watch = watch;
    this.#timeline = new Timeline((point) => this.#choose({ kind: "point", point }));
    const earlier = element("button", { type: "button", class: "quiet" }, "‹ Earlier");
    const later = element("button", { type: "button", class: "quiet" }, "Later ›");
    const newest = element("button", { type: "button", class: "quiet" }, "Newest state");
    earlier.addEventListener("click", () => this.#pan(-1));
    later.addEventListener("click", () => this.#pan(1));
    newest.addEventListener("click", () => this.#chooseNewest());
    this.#time.addEventListener("change", () => this.#chooseTime());
    this.#copy.addEventListener("click", () => void this.#copyCommand());
    this.#lookup.append(
      element("div", { class: "span" }, earlier, this.#spans, later),
      this.#timeline.node,
      this.#thinned,
      element("div", { class: "choose" }, element("label", { for: "moment-time" }, "Or a moment"), this.#time, newest),
    );
    const pre = element("pre", { tabindex: 0, role: "group", "aria-label": "Restore command" }, this.#code);
    this.node = element(
      "section",
      { class: "restore", "aria-labelledby": "restore-title" },
      element("h3", { id: "restore-title" }, "Restore"),
      this.#chain,
      this.#gap,
      this.#message,
      this.#lookup,
      this.#moment,
      element("div", { class: "command" }, pre, this.#copy),
      element(
        "p",
        { class: "hint" },
        "Writes a new file into the directory where it is run. The live database is not touched.",
      ),
    );
    this.#showMoment();
    void this.#read();
  }

  /** Something was shipped: asks again, once in a while. */
  shipped(txid: number): void {
    if (this.#answer === null || txid <= this.#readTxid || Date.now() - this.#readAtMs < READ_EVERY_MS) return;
    void this.#read();
  }

  async #read(): Promise<void> {
    const reading = ++this.#reading;
    this.#readAtMs = Date.now();
    this.node.setAttribute("aria-busy", "true");
    if (this.#answer === null) this.#say("Asking the destination …");
    const answer = await readPoints(this.#name, this.#span);
    // Another part of time was asked for meanwhile.
    if (reading !== this.#reading) return;
    this.node.removeAttribute("aria-busy");
    if ("message" in answer) {
      const retry = element("button", { type: "button", class: "quiet" }, "Try again");
      retry.addEventListener("click", () => void this.#read());
      this.#say(answer.code === "E_NOT_FOUND" ? NOTHING_YET : answer.message, answer.hint, retry);
      return;
    }
    const isFirst = this.#answer === null;
    this.#answer = answer;
    this.#readTxid = answer.newest?.txid ?? 0;
    this.#say(answer.count === 0 ? "No restore point yet: the first snapshot is not shipped." : "");
    this.#showChain(answer);
    this.#lookup.hidden = answer.count === 0;
    if (isFirst) this.#showSpans(answer);
    if (this.#chosen.kind === "newest") this.#chooseNewest();
    else this.#showPoints();
  }

  #say(text: string, hint: string | null = null, ...others: Node[]): void {
    this.#message.hidden = text === "";
    this.#message.replaceChildren(text === "" ? "" : [text, hint].filter((part) => part !== null).join(" "), ...others);
  }

  #showChain({ snapshots, increments, bytes, count, lost, layout, oldest, newest }: PointsAnswer): void {
    const strong = (text: string): HTMLElement => element("strong", {}, text);
    this.#chain.replaceChildren(
      strong(plural(count, "restore point")),
      oldest === null
        ? ""
        : ` over ${roughDuration(newest!.at - oldest.at)}, from ${plural(snapshots, "snapshot")} and `,
      oldest === null ? "" : `${plural(increments, "increment")}: `,
      strong(formatBytes(bytes)),
      ` at the destination${layout === "walsync" ? "" : `, in ${layout}'s layout`}. `,
      lost === 0 ? "The chain is unbroken." : "",
    );
    this.#gap.hidden = lost === 0;
    const command = element("code", {}, verifyCommand(this.#name, this.#watch.place).join(" "));
    this.#gap.replaceChildren(
      `The chain has a gap: ${plural(lost, "state")} cannot be restored, because files before are missing. See `,
      command,
    );
  }

  /** Only spans that are shorter than what there is. */
  #showSpans({ oldest, newest }: PointsAnswer): void {
    const extentMs = newest === null || oldest === null ? 0 : newest.at - oldest.at;
    const useful = SPANS.filter(([ms]) => ms < extentMs);
    const chosen = useful.length > 0 && extentMs > DAY_MS ? DAY_MS : null;
    for (const [ms, text] of [...useful, [null, "All"] as const]) {
      const input = element("input", { type: "radio", name: "span", value: ms ?? "all", checked: ms === chosen });
      input.addEventListener("change", () => this.#zoom(ms));
      this.#spans.append(element("label", {}, input, element("span", {}, text)));
    }
    if (chosen !== null) this.#zoom(chosen);
  }

  #zoom(spanMs: number | null): void {
    this.#spanMs = spanMs;
    const { newest } = this.#answer!;
    const marked = this.#marked();
    if (spanMs === null || newest === null || marked === null) this.#span = null;
    else {
      const toMs = Math.min(newest.at, marked.at + spanMs / 2);
      this.#span = { fromMs: toMs - spanMs, toMs };
    }
    void this.#read();
  }

  #pan(direction: number): void {
    const { oldest, newest } = this.#answer ?? {};
    if (this.#span === null || this.#spanMs === null || !oldest || !newest) return;
    const shifted = this.#span.toMs + (direction * this.#spanMs) / 2;
    const toMs = Math.min(newest.at, Math.max(oldest.at + this.#spanMs, shifted));
    this.#span = { fromMs: toMs - this.#spanMs, toMs };
    void this.#read();
  }

  #showPoints(): void {
    const answer = this.#answer;
    if (answer === null || answer.oldest === null || answer.newest === null) return;
    const { oldest, newest, points, in_range } = answer;
    this.#timeline.show(
      points,
      this.#span ?? { fromMs: oldest.at, toMs: Math.max(newest.at, oldest.at + 1) },
      this.#marked(),
    );
    this.#time.min = localInput(oldest.at);
    setText(this.#thinned, thinnedText(points.length, in_range));
  }

  /** Where the marker is. */
  #marked(): RestorePoint | null {
    const chosen = this.#chosen;
    if (chosen.kind === "point") return chosen.point;
    const newest = this.#answer?.newest ?? null;
    return chosen.kind === "newest" || newest === null ? newest : { ...newest, at: chosen.atMs, snapshot: false };
  }

  #choose(chosen: Chosen): void {
    this.#chosen = chosen;
    this.#showMoment();
    this.#showPoints();
  }

  /** Behind a gap a restore of the newest state is refused: then it is the last one before the gap, by its transaction. */
  #chooseNewest(): void {
    const { lost = 0, newest = null } = this.#answer ?? {};
    this.#choose(lost > 0 && newest !== null ? { kind: "point", point: newest } : { kind: "newest" });
  }

  #chooseTime(): void {
    const atMs = new Date(this.#time.value).getTime();
    const oldest = this.#answer?.oldest ?? null;
    const isTooEarly = oldest !== null && atMs < Math.floor(oldest.at / 1000) * 1000;
    this.#time.setCustomValidity(isTooEarly ? "Before the oldest restore point" : "");
    this.#time.reportValidity();
    if (Number.isFinite(atMs) && !isTooEarly) this.#choose({ kind: "time", atMs: Math.max(atMs, oldest?.at ?? atMs) });
  }

  #showMoment(): void {
    const chosen = this.#chosen;
    const strong = (text: string): HTMLElement => element("strong", {}, text);
    const note = (text: string): HTMLElement => element("span", { class: "hint" }, text);
    if (chosen.kind === "newest")
      this.#moment.replaceChildren(strong("The newest state"), note("whatever is shipped when it is run"));
    else if (chosen.kind === "time") {
      this.#moment.replaceChildren(
        strong(fullTime(chosen.atMs)),
        note(`the last restore point before ${utcTime(chosen.atMs)}`),
      );
    } else {
      const { txid, at, snapshot, rough } = chosen.point;
      const facts = [utcTime(at), `transaction ${txid}`, ...(snapshot ? ["snapshot"] : [])];
      this.#moment.replaceChildren(strong(`${rough ? "about " : ""}${fullTime(at)}`), note(facts.join(" · ")));
    }
    if (chosen.kind === "point") this.#time.value = localInput(chosen.point.at);
    // A word is broken between two lines only if it is longer than one.
    const words = restoreCommand(this.#name, this.#watch.place, momentOf(chosen));
    this.#code.replaceChildren(...words.flatMap((word, i) => [i === 0 ? "" : " ", element("span", {}, word)]));
    setText(this.#copy, "Copy command");
  }

  async #copyCommand(): Promise<void> {
    const copied = await copyText(this.#code.textContent, this.#code);
    setText(this.#copy, copied ? "Copied" : "Press Ctrl+C");
    setTimeout(() => setText(this.#copy, "Copy command"), COPIED_MS);
  }
}

// --- internal ---

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const SPANS = [
  [10 * MINUTE_MS, "10 min"],
  [HOUR_MS, "1 h"],
  [DAY_MS, "24 h"],
  [7 * DAY_MS, "7 d"],
  [30 * DAY_MS, "30 d"],
] as const;
const READ_EVERY_MS = 30_000;
const COPIED_MS = 2000;
const NOTHING_YET = "Nothing of this database is at the destination yet.";
const count = new Intl.NumberFormat("en");

function momentOf(chosen: Chosen): Moment {
  return chosen.kind === "point" ? { kind: "txid", txid: chosen.point.txid } : chosen;
}

function plural(value: number, what: string): string {
  return `${count.format(value)} ${what}${value === 1 ? "" : "s"}`;
}

function thinnedText(shown: number, inRange: number): string {
  if (inRange === 0) return "No restore point in this time: nothing changed.";
  if (shown < inRange)
    return `${count.format(shown)} of ${plural(inRange, "restore point")} are shown; a shorter time shows each. Tall: snapshots.`;
  return `${plural(inRange, "restore point")} in this time. Tall: snapshots.`;
}

async function readPoints(name: string, span: Span | null): Promise<PointsAnswer | Refusal> {
  const params = new URLSearchParams({ name });
  if (span !== null) {
    params.set("from", String(span.fromMs));
    params.set("to", String(span.toMs));
  }
  try {
    const response = await fetch(`${POINTS_PATH}?${params}`);
    return (await response.json()) as PointsAnswer | Refusal;
  } catch {
    return { code: "E_UNREACHABLE", message: "The watch does not answer.", hint: null };
  }
}
