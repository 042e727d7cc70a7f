/** The status page: takes updates, shows them, and asks for the part of the list that whoever looks wants to see. */
import type { Filter, Order, Query } from "../protocol.ts";
import { Connection, type LinkState } from "./connection.ts";
import { Detail } from "./detail.ts";
import { byId, element, setText } from "./dom.ts";
import { List } from "./list.ts";
import { Model } from "./model.ts";
import { Summary } from "./summary.ts";

const SEARCH_PAUSE_MS = 150;
const count = new Intl.NumberFormat("en");

const model = new Model();
const summary = new Summary();
const table = byId("table", HTMLTableElement);
const list = new List(table, openDetail);
const search = byId("search", HTMLInputElement);
const order = byId("order", HTMLSelectElement);
const empty = byId("empty", HTMLDivElement);
const pages = byId("pages", HTMLElement);
const previous = byId("previous", HTMLButtonElement);
const next = byId("next", HTMLButtonElement);
const dialog = byId("detail", HTMLDialogElement);
const link = byId("link", HTMLParagraphElement);
const linkText = byId("link-text", HTMLSpanElement);
const lost = byId("lost", HTMLParagraphElement);

const query: Query = { search: "", filter: "all", order: "attention", page: 0, open: nameInAddress() };
let detail: Detail | null = null;
let linkState: LinkState = { kind: "connecting" };
let searchTimer: ReturnType<typeof setTimeout> | undefined;

const connection = new Connection(query, {
  onUpdate(update) {
    // The page of another version may not understand it.
    if (model.take(update, query.open)) location.reload();
    render();
  },
  onState(state) {
    linkState = state;
    renderLink();
  },
});

search.addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(() => ask({ search: search.value.trim(), page: 0 }), SEARCH_PAUSE_MS);
});
order.addEventListener("change", () => ask({ order: order.value as Order, page: 0 }));
for (const input of document.querySelectorAll<HTMLInputElement>("input[name=filter]")) {
  input.addEventListener("change", () => ask({ filter: input.value as Filter, page: 0 }));
}
previous.addEventListener("click", () => turnTo((model.shown?.page ?? 0) - 1));
next.addEventListener("click", () => turnTo((model.shown?.page ?? 0) + 1));
document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key !== "/" || isTyping || dialog.open) return;
  event.preventDefault();
  search.focus();
});
dialog.addEventListener("close", () => {
  detail = null;
  dialog.replaceChildren();
  if (location.hash !== "") history.pushState(null, "", location.pathname);
  ask({ open: null });
});
// A click beside the sheet.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
addEventListener("popstate", () => followAddress());
setInterval(renderLink, 1000);

function ask(change: Partial<Query>): void {
  Object.assign(query, change);
  connection.ask(query);
}

function turnTo(page: number): void {
  if (page < 0 || page >= (model.shown?.pages ?? 1)) return;
  ask({ page });
  byId("databases", HTMLHeadingElement).scrollIntoView();
}

function openDetail(name: string): void {
  history.pushState(null, "", `#${new URLSearchParams({ database: name })}`);
  followAddress();
}

function nameInAddress(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get("database");
}

/** Back and forward, and an address that somebody sent. */
function followAddress(): void {
  const name = nameInAddress();
  if (name === null) dialog.close();
  else if (detail?.name !== name) {
    ask({ open: name });
    showDetail(name);
  }
}

function showDetail(name: string): void {
  if (model.watch === null) return;
  detail = new Detail(dialog, name, model.watch);
  detail.show(model.databases.get(name), model.nowMs);
  if (!dialog.open) dialog.showModal();
}

function render(): void {
  summary.show(model);
  list.show(model);
  renderPages();
  if (query.open === null) return;
  if (detail === null) showDetail(query.open);
  else detail.show(model.databases.get(query.open), model.nowMs);
}

function renderPages(): void {
  const { shown, totals } = model;
  if (shown === null || totals === null) return;
  table.hidden = shown.matches === 0;
  empty.hidden = shown.matches > 0;
  if (shown.matches === 0) renderEmpty(totals.databases);
  pages.hidden = shown.pages === 1;
  // A button that vanishes under the focus would lose it.
  previous.setAttribute("aria-disabled", String(shown.page === 0));
  next.setAttribute("aria-disabled", String(shown.page === shown.pages - 1));
  const last = shown.first + shown.names.length;
  setText(
    byId("range", HTMLSpanElement),
    `${count.format(shown.first + 1)}–${count.format(last)} of ${count.format(shown.matches)}`,
  );
}

function renderEmpty(databases: number): void {
  const key = `${databases === 0} ${query.search} ${query.filter}`;
  if (empty.dataset.key === key) return;
  empty.dataset.key = key;
  const [title, text] = emptyText(databases);
  empty.replaceChildren(element("p", { class: "title" }, title), element("p", {}, text));
  if (databases === 0 || query.search === "") return;
  const clear = element("button", { type: "button", class: "quiet" }, "Clear search");
  clear.addEventListener("click", () => {
    search.value = "";
    search.focus();
    ask({ search: "", page: 0 });
  });
  empty.append(clear);
}

function emptyText(databases: number): [title: string, text: string] {
  if (databases === 0) return ["Nothing to replicate yet", "Databases appear here as soon as the watch finds them."];
  if (query.search !== "") return [`Nothing matches “${query.search}”`, "Names and paths are searched."];
  return ["Nothing needs attention", "Every database is live, and what is committed is shipped in time."];
}

function renderLink(): void {
  link.dataset.state = linkState.kind;
  document.body.classList.toggle("stale", linkState.kind === "lost");
  lost.hidden = linkState.kind !== "lost" && linkState.kind !== "crowded";
  setText(linkText, LINK_TEXT[linkState.kind]);
  if (linkState.kind === "crowded")
    setText(lost, "As many pages are open as this watch keeps up to date. Close one; this one tries again.");
  if (linkState.kind === "lost") setText(lost, lostText(linkState.sinceMs));
}

function lostText(sinceMs: number): string {
  const time = new Date(sinceMs).toLocaleTimeString("en-GB");
  const known = model.totals === null ? "" : ` What is shown is as of ${time}.`;
  return `The watch does not answer: it has stopped, or the connection is lost.${known} Trying again …`;
}

const LINK_TEXT: Record<LinkState["kind"], string> = {
  connecting: "Connecting",
  live: "Live",
  lost: "Disconnected",
  crowded: "Waiting",
};
