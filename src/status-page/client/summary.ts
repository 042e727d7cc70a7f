/** The head of the page: is everything well, in one sentence, and the sums. */
import { formatBytes, formatDuration } from "../../quantities.ts";
import type { Totals } from "../protocol.ts";
import { byId, element, setText } from "./dom.ts";
import type { Model } from "./model.ts";
import { ago, roughDuration } from "./times.ts";

const count = new Intl.NumberFormat("en");

export class Summary {
  readonly #main = byId("main", HTMLElement);
  readonly #headline = byId("headline", HTMLHeadingElement);
  readonly #subline = byId("subline", HTMLParagraphElement);
  readonly #host = byId("host", HTMLSpanElement);
  readonly #footer = byId("footer", HTMLElement);
  readonly #values = new Map<string, HTMLElement>();
  readonly #notes = new Map<string, HTMLElement>();

  constructor() {
    const tiles = byId("tiles", HTMLDListElement);
    for (const label of TILES) {
      const value = element("dd", { class: "value" }, "–");
      const note = element("dd", { class: "note" });
      this.#values.set(label, value);
      this.#notes.set(label, note);
      tiles.append(element("div", {}, element("dt", {}, label), value, note));
    }
  }

  show({ totals, watch, nowMs }: Model): void {
    if (totals === null || watch === null) return;
    this.#main.dataset.health = totals.trouble > 0 ? "trouble" : totals.busy > 0 ? "busy" : "ok";
    setText(this.#headline, headlineOf(totals));
    document.title = totals.trouble > 0 ? `(${totals.trouble}) walsync` : "walsync";
    setText(this.#subline, `to ${watch.destination}`);
    setText(this.#host, watch.host);
    const running = roughDuration(Math.max(0, nowMs - Date.parse(watch.started_at)));
    setText(this.#footer, `walsync ${watch.version} · process ${watch.pid} · running for ${running}`);
    this.#tile(
      "Longest lag",
      totals.lag_seconds === 0 ? "none" : formatDuration(totals.lag_seconds * 1000),
      totals.lag_name ?? "",
    );
    this.#tile("Waiting", totals.outbox_bytes === 0 ? "nothing" : formatBytes(totals.outbox_bytes), "to be shipped");
    this.#tile(
      "Last shipped",
      totals.shipped_at === null ? "–" : ago(Date.parse(totals.shipped_at), nowMs),
      "acknowledged",
    );
    this.#tile("Size", formatBytes(totals.size_bytes), "of all databases");
  }

  #tile(label: (typeof TILES)[number], value: string, note: string): void {
    setText(this.#values.get(label)!, value);
    setText(this.#notes.get(label)!, note);
  }
}

// --- internal ---

const TILES = ["Longest lag", "Waiting", "Last shipped", "Size"] as const;

function headlineOf({ databases, busy, trouble }: Totals): string {
  const all = count.format(databases);
  if (databases === 0) return "No database yet";
  if (trouble === 1)
    return databases === 1 ? "The database needs attention" : `One of ${all} databases needs attention`;
  if (trouble > 0) return `${count.format(trouble)} of ${all} databases need attention`;
  if (busy > 0)
    return `${count.format(busy)} of ${all} ${databases === 1 ? "database is" : "databases are"} not replicated yet`;
  if (databases === 1) return "The database is replicated";
  return `All ${all} databases are replicated`;
}
