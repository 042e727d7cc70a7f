/** One database, looked at closely: what it does, and its way back. */

import { printable } from "../../printable.ts";
import { formatBytes } from "../../quantities.ts";
import type { WatchFacts } from "../protocol.ts";
import { element, setAttribute, setText } from "./dom.ts";
import { stateText } from "./list.ts";
import type { KnownDatabase } from "./model.ts";
import { RestorePanel } from "./restore-panel.ts";
import { sparkline } from "./sparkline.ts";
import { ago, lagText } from "./times.ts";

export class Detail {
  readonly name: string;
  readonly #state = element("span", { class: "state" });
  readonly #path = element("p", { class: "path" });
  readonly #trouble = element("div", { class: "notice trouble", role: "status", hidden: true });
  #shownTrouble = "";
  readonly #facts = new Map<string, HTMLElement>();
  readonly #spark = sparkline(600, 56);
  readonly #peak = element("span", { class: "peak" });
  readonly #restore: RestorePanel;
  readonly #node: HTMLElement;

  /** Fills `dialog`. */
  constructor(dialog: HTMLDialogElement, name: string, watch: WatchFacts) {
    this.name = name;
    this.#restore = new RestorePanel(name, watch);
    const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "✕");
    close.addEventListener("click", () => dialog.close());
    const title = element("h2", { id: "detail-name" }, element("bdi", {}, printable(name)));
    const facts = element("dl", { class: "facts" });
    for (const label of FACTS) {
      const value = element("dd");
      this.#facts.set(label, value);
      facts.append(element("div", {}, element("dt", {}, label), value));
    }
    this.#node = element(
      "div",
      { class: "sheet" },
      element("header", {}, element("div", { class: "title" }, title, this.#state), close),
      this.#path,
      this.#trouble,
      this.#restore.node,
      element(
        "section",
        { class: "now", "aria-labelledby": "now-title" },
        element("h3", { id: "now-title" }, "Replication"),
        element("figure", {}, this.#spark.node, element("figcaption", {}, "Lag, last 2 minutes", this.#peak)),
        facts,
      ),
    );
    dialog.replaceChildren(this.#node);
  }

  show(database: KnownDatabase | undefined, nowMs: number): void {
    if (database === undefined) {
      setText(this.#path, "This watch has no database of this name.");
      return;
    }
    const { row, history } = database;
    setAttribute(this.#node, "data-condition", row.condition);
    setText(this.#state, stateText(row));
    setText(this.#path, row.path);
    this.#showTrouble(row);
    this.#spark.show(history);
    const longest = Math.max(...history);
    setText(this.#peak, longest === 0 ? "" : `longest ${lagText(longest)}`);
    const facts: Record<(typeof FACTS)[number], string> = {
      "Database size": row.size_bytes === 0 ? "–" : formatBytes(row.size_bytes),
      "WAL size": formatBytes(row.wal_bytes),
      Lag: lagText(row.lag_seconds),
      "Waiting to be shipped": row.outbox_bytes === 0 ? "nothing" : formatBytes(row.outbox_bytes),
      "Captured up to": row.txid === 0 ? "–" : `transaction ${count.format(row.txid)}`,
      "Shipped up to": row.shipped_txid === 0 ? "–" : `transaction ${count.format(row.shipped_txid)}`,
      "Last shipped": row.shipped_at === null ? "not since the start" : ago(Date.parse(row.shipped_at), nowMs),
      "Increments since the start": count.format(row.shipped_increments),
      "Last restore drill": drillText(row.drill, nowMs),
    };
    for (const label of FACTS) setText(this.#facts.get(label)!, facts[label]);
    this.#facts.get("Last restore drill")!.parentElement!.hidden = row.drill === null;
    this.#restore.shipped(row.shipped_txid);
  }

  #showTrouble({ trouble, error }: KnownDatabase["row"]): void {
    const text = trouble?.message ?? error;
    this.#trouble.hidden = text === null;
    const parts = [trouble?.code ?? null, text, trouble?.hint ?? null];
    const shown = parts.filter((part) => part !== null).join("\n");
    if (this.#shownTrouble === shown) return;
    this.#shownTrouble = shown;
    const kinds = ["code", "what", "todo"];
    this.#trouble.replaceChildren(
      ...parts.flatMap((part, i) => (part === null ? [] : [element("p", { class: kinds[i]! }, printable(part))])),
    );
  }
}

// --- internal ---

const FACTS = [
  "Database size",
  "WAL size",
  "Lag",
  "Waiting to be shipped",
  "Captured up to",
  "Shipped up to",
  "Last shipped",
  "Increments since the start",
  "Last restore drill",
] as const;
const count = new Intl.NumberFormat("en");

/** Why one failed is in `walsync status`, and in the log. */
function drillText(drill: KnownDatabase["row"]["drill"], nowMs: number): string {
  if (drill === null) return "";
  return `${drill.error === null ? "went well" : "failed"} ${ago(Date.parse(drill.at), nowMs)}`;
}
