/** The list of databases: rows that are kept and updated in place, so that focus and selection stay where they are. */

import { printable } from "../../printable.ts";
import { formatBytes } from "../../quantities.ts";
import type { DatabaseRow } from "../protocol.ts";
import { element, setAttribute, setText } from "./dom.ts";
import type { KnownDatabase, Model } from "./model.ts";
import { type Sparkline, sparkline } from "./sparkline.ts";
import { ago, lagText } from "./times.ts";

const SPARK_WIDTH = 120;
const SPARK_HEIGHT = 26;
const count = new Intl.NumberFormat("en");

export class List {
  readonly #body: HTMLTableSectionElement;
  readonly #onOpen: (name: string) => void;
  #rows = new Map<string, Row>();

  /** Fills the body of `table`. */
  constructor(table: HTMLTableElement, onOpen: (name: string) => void) {
    // Laid out as a grid, it would be no table to some screen readers.
    setAttribute(table, "role", "table");
    for (const group of table.querySelectorAll("thead, tbody")) setAttribute(group, "role", "rowgroup");
    for (const row of table.querySelectorAll("tr")) setAttribute(row, "role", "row");
    for (const head of table.querySelectorAll("th")) setAttribute(head, "role", "columnheader");
    const body = table.tBodies[0]!;
    this.#body = body;
    this.#onOpen = onOpen;
    body.addEventListener("keydown", (event) => this.#move(event));
  }

  show(model: Model): void {
    const rows = new Map<string, Row>();
    for (const name of model.shown?.names ?? []) {
      const database = model.databases.get(name);
      if (database === undefined) continue;
      const row = this.#rows.get(name) ?? new Row(name, this.#onOpen);
      row.show(database, model.nowMs);
      rows.set(name, row);
    }
    for (const [name, row] of this.#rows) if (!rows.has(name)) row.node.remove();
    let place = this.#body.firstElementChild;
    for (const { node } of rows.values()) {
      // Only what stands elsewhere is moved: moving takes the focus away.
      if (node === place) place = place.nextElementSibling;
      else this.#body.insertBefore(node, place);
    }
    this.#rows = rows;
  }

  /** Arrow keys go from row to row. */
  #move(event: KeyboardEvent): void {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0 || !(event.target instanceof HTMLButtonElement)) return;
    const buttons = [...this.#body.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  }
}

/** How a state is called. */
export function stateText({ state, trouble }: Pick<DatabaseRow, "state" | "trouble">): string {
  if (trouble?.kind === "lag") return "Lagging";
  // Open, and yet nothing is captured: no room on the disk or in the outbox.
  if (trouble?.kind === "failed") return state === "live" ? "Paused" : "Failed";
  return STATE_TEXT[state];
}

// --- internal ---

const STATE_TEXT: Record<DatabaseRow["state"], string> = {
  live: "Live",
  scanning: "Scanning",
  waiting: "Waiting",
  failed: "Failed",
  vanished: "Vanished",
  fenced: "Fenced",
  closed: "Closed",
};

class Row {
  readonly node: HTMLTableRowElement;
  readonly #about = element("span", { class: "about" });
  readonly #state = element("span", { class: "state" });
  readonly #spark: Sparkline = sparkline(SPARK_WIDTH, SPARK_HEIGHT);
  readonly #lag = element("span", { class: "value" });
  readonly #txid = cell("number txid", "Transaction");
  readonly #size = cell("number size", "Size");
  readonly #waiting = cell("number waiting", "Waiting");
  readonly #shipped = cell("number shipped", "Shipped");

  constructor(name: string, onOpen: (name: string) => void) {
    const button = element("button", { type: "button", class: "name" }, element("bdi", {}, printable(name)));
    button.addEventListener("click", () => onOpen(name));
    const head = element("th", { role: "rowheader", scope: "row", class: "head" }, button, this.#about);
    const state = element("td", { role: "cell", class: "status" }, this.#state);
    const lag = element("td", { role: "cell", class: "lag" }, this.#spark.node, this.#lag);
    this.node = element("tr", { role: "row" }, head, state, lag, this.#txid, this.#size, this.#waiting, this.#shipped);
  }

  show({ row, history }: KnownDatabase, nowMs: number): void {
    setAttribute(this.node, "data-condition", row.condition);
    const about = row.trouble?.message ?? row.error ?? row.path;
    setText(this.#about, about);
    setAttribute(this.#about, "title", about);
    setText(this.#state, stateText(row));
    this.#spark.show(history);
    setText(this.#lag, lagText(row.lag_seconds));
    setText(this.#txid, row.txid === 0 ? "–" : count.format(row.txid));
    setText(this.#size, row.size_bytes === 0 ? "–" : formatBytes(row.size_bytes));
    setText(this.#waiting, row.outbox_bytes === 0 ? "–" : formatBytes(row.outbox_bytes));
    setText(this.#shipped, row.shipped_at === null ? "–" : ago(Date.parse(row.shipped_at), nowMs));
  }
}

/** `label`: what the column says, where there is no room for columns. */
function cell(kind: string, label: string): HTMLTableCellElement {
  return element("td", { role: "cell", class: kind, "data-label": label });
}
