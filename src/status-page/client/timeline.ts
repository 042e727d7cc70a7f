/** Restore points on a line of time. A slider for the keyboard and for screen readers; a click takes the nearest point. */
import type { RestorePoint } from "../protocol.ts";
import { drawn, element, setAttribute } from "./dom.ts";
import { fullTime } from "./times.ts";

const HEIGHT = 92;
const BASE = 62;
const INCREMENT_HEIGHT = 16;
const SNAPSHOT_HEIGHT = 30;
const LABEL_Y = BASE + 20;
const EDGE = 12;
const LABEL_WIDTH = 76;
/** Points that PageUp and PageDown pass over. */
const LEAP = 10;

export interface Span {
  fromMs: number;
  toMs: number;
}

export class Timeline {
  readonly node: HTMLElement;
  readonly #onSelect: (point: RestorePoint) => void;
  readonly #drawing = drawn("svg", { "aria-hidden": "true" });
  readonly #axis = drawn("g", { class: "axis" });
  readonly #increments = drawn("path", { class: "increments" });
  readonly #snapshots = drawn("path", { class: "snapshots" });
  readonly #hover = drawn("path", { class: "hover" });
  readonly #marker = drawn(
    "g",
    { class: "marker" },
    drawn("path", { d: `M0 12V${BASE}` }),
    drawn("circle", { r: 5, cy: 10 }),
  );
  #points: readonly RestorePoint[] = [];
  #span: Span = { fromMs: 0, toMs: 1 };
  #selected: RestorePoint | null = null;
  #width = 600;

  constructor(onSelect: (point: RestorePoint) => void) {
    this.#onSelect = onSelect;
    this.#drawing.append(this.#axis, this.#increments, this.#snapshots, this.#hover, this.#marker);
    this.node = element("div", { class: "timeline", role: "slider", tabindex: 0, "aria-label": "Restore point" });
    this.node.append(this.#drawing);
    this.node.addEventListener("keydown", (event) => this.#onKey(event));
    this.node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.node.setPointerCapture(event.pointerId);
      this.#pick(event);
    });
    this.node.addEventListener("pointermove", (event) => {
      if (this.node.hasPointerCapture(event.pointerId)) this.#pick(event);
      else this.#hint(event);
    });
    this.node.addEventListener("pointerleave", () => this.#hover.setAttribute("d", ""));
    new ResizeObserver(([entry]) => {
      this.#width = Math.max(200, entry!.contentRect.width);
      this.#draw();
    }).observe(this.node);
  }

  /** `selected` need not be one of the points, and is marked where it is. */
  show(points: readonly RestorePoint[], span: Span, selected: RestorePoint | null): void {
    this.#points = points;
    this.#span = span;
    this.#selected = selected;
    this.#draw();
  }

  #draw(): void {
    setAttribute(this.#drawing, "viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    const path = (points: readonly RestorePoint[], height: number): string =>
      points.map(({ at }) => `M${this.#xOf(at).toFixed(1)} ${BASE}v${-height}`).join("");
    this.#increments.setAttribute(
      "d",
      path(
        this.#points.filter(({ snapshot }) => !snapshot),
        INCREMENT_HEIGHT,
      ),
    );
    this.#snapshots.setAttribute(
      "d",
      path(
        this.#points.filter(({ snapshot }) => snapshot),
        SNAPSHOT_HEIGHT,
      ),
    );
    this.#drawAxis();
    const at = this.#selected?.at;
    const isShown = at !== undefined && at >= this.#span.fromMs && at <= this.#span.toMs;
    setAttribute(this.#marker, "visibility", isShown ? "visible" : "hidden");
    if (isShown) this.#marker.setAttribute("transform", `translate(${this.#xOf(at).toFixed(1)} 0)`);
    this.#describe();
  }

  #drawAxis(): void {
    const { fromMs, toMs } = this.#span;
    const parts: SVGElement[] = [drawn("path", { class: "base", d: `M0 ${BASE}H${this.#width}` })];
    for (const { atMs, text } of ticksOf(this.#span, Math.max(2, Math.floor(this.#width / LABEL_WIDTH)))) {
      if (atMs < fromMs || atMs > toMs) continue;
      const x = this.#xOf(atMs);
      parts.push(drawn("path", { d: `M${x.toFixed(1)} ${BASE}v5` }));
      if (x < LABEL_WIDTH / 3 || x > this.#width - LABEL_WIDTH / 3) continue;
      parts.push(drawn("text", { x: x.toFixed(1), y: LABEL_Y, "text-anchor": "middle" }, text));
    }
    this.#axis.replaceChildren(...parts);
  }

  #describe(): void {
    const i = this.#selected === null ? -1 : indexNear(this.#points, this.#selected.at);
    const point = this.#selected;
    setAttribute(this.node, "aria-valuemin", "1");
    setAttribute(this.node, "aria-valuemax", String(Math.max(1, this.#points.length)));
    setAttribute(this.node, "aria-valuenow", String(i + 1 || 1));
    const text = point === null ? "none chosen" : `${fullTime(point.at)}, transaction ${point.txid}`;
    setAttribute(this.node, "aria-valuetext", point?.snapshot ? `${text}, a snapshot` : text);
  }

  #xOf(atMs: number): number {
    const { fromMs, toMs } = this.#span;
    return EDGE + ((atMs - fromMs) / Math.max(1, toMs - fromMs)) * (this.#width - 2 * EDGE);
  }

  #nearest(event: PointerEvent): RestorePoint | undefined {
    const { left, width } = this.node.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * this.#width;
    const { fromMs, toMs } = this.#span;
    return this.#points[indexNear(this.#points, fromMs + ((x - EDGE) / (this.#width - 2 * EDGE)) * (toMs - fromMs))];
  }

  #pick(event: PointerEvent): void {
    const point = this.#nearest(event);
    if (point !== undefined) this.#onSelect(point);
  }

  #hint(event: PointerEvent): void {
    const point = this.#nearest(event);
    if (point !== undefined) this.#hover.setAttribute("d", `M${this.#xOf(point.at).toFixed(1)} 18V${BASE}`);
  }

  #onKey(event: KeyboardEvent): void {
    const last = this.#points.length - 1;
    const now = this.#selected === null ? last : indexNear(this.#points, this.#selected.at);
    const to: Record<string, number> = {
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      PageDown: now - LEAP,
      PageUp: now + LEAP,
      Home: 0,
      End: last,
    };
    const target = to[event.key];
    if (target === undefined || last < 0) return;
    event.preventDefault();
    this.#onSelect(this.#points[Math.min(last, Math.max(0, target))]!);
  }
}

// --- internal ---

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  ...[1, 2, 5, 10, 15, 30].map((seconds) => seconds * 1000),
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12].map((hours) => hours * HOUR),
  ...[1, 2, 7, 14, 30, 90, 365].map((days) => days * DAY),
];
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const yearFormat = new Intl.DateTimeFormat("en-GB", { month: "short", year: "numeric" });
const timeFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const secondFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** At most so many round times in the zone of whoever looks. */
function ticksOf({ fromMs, toMs }: Span, most: number): { atMs: number; text: string }[] {
  const step = STEPS.find((one) => (toMs - fromMs) / one <= most) ?? 365 * DAY;
  const zoneMs = new Date(toMs).getTimezoneOffset() * MINUTE;
  const ticks: { atMs: number; text: string }[] = [];
  for (let atMs = Math.ceil((fromMs - zoneMs) / step) * step + zoneMs; atMs <= toMs; atMs += step) {
    ticks.push({ atMs, text: labelOf(atMs, step) });
  }
  return ticks;
}

function labelOf(atMs: number, step: number): string {
  if (step >= 90 * DAY) return yearFormat.format(atMs);
  const date = new Date(atMs);
  const isMidnight = date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0;
  if (step >= DAY || isMidnight) return dayFormat.format(atMs);
  return step < MINUTE ? secondFormat.format(atMs) : timeFormat.format(atMs);
}

/** Place of the point nearest to this time; -1 if there is none. */
function indexNear(points: readonly RestorePoint[], atMs: number): number {
  let best = -1;
  for (const [i, point] of points.entries()) {
    if (best === -1 || Math.abs(point.at - atMs) <= Math.abs(points[best]!.at - atMs)) best = i;
  }
  return best;
}
