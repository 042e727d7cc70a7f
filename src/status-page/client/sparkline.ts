/** A lag over the last minutes as a small line. */
import { HISTORY_SAMPLES } from "../protocol.ts";
import { drawn } from "./dom.ts";

export interface Sparkline {
  node: SVGSVGElement;
  /** Lags in seconds, oldest first. */
  show(samples: readonly number[]): void;
}

/** `width` and `height` in pixels of its own drawing; it stretches to where it is put. */
export function sparkline(width: number, height: number): Sparkline {
  const area = drawn("path", { class: "area" });
  const line = drawn("path", { class: "line", "vector-effect": "non-scaling-stroke" });
  const base = drawn("path", { class: "base", d: `M0 ${height}H${width}`, "vector-effect": "non-scaling-stroke" });
  const node = drawn(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    area,
    base,
    line,
  );
  let shown = "";
  return {
    node,
    show(samples) {
      const path = pathOf(samples, width, height);
      if (path === shown) return;
      shown = path;
      line.setAttribute("d", path);
      const startX = xOf(0, samples.length, width);
      area.setAttribute("d", path === "" ? "" : `${path}V${height}H${startX.toFixed(1)}Z`);
    },
  };
}

// --- internal ---

/** A lag below that is drawn low, however steady it is: it is what the sync interval makes. */
const SCALE_MIN_SECONDS = 2;
const INSET = 1.5;

/** The newest sample is at the right edge; before the page was opened there is nothing. */
function xOf(i: number, length: number, width: number): number {
  return ((HISTORY_SAMPLES - length + i) / (HISTORY_SAMPLES - 1)) * width;
}

function pathOf(samples: readonly number[], width: number, height: number): string {
  if (samples.length === 0) return "";
  const top = Math.max(SCALE_MIN_SECONDS, ...samples);
  const yOf = (seconds: number): number => height - INSET - (seconds / top) * (height - 2 * INSET);
  // One sample is a short dash.
  const points = samples.length === 1 ? [samples[0]!, samples[0]!] : samples;
  return points
    .map((seconds, i) => `${i === 0 ? "M" : "L"}${xOf(i, points.length, width).toFixed(1)} ${yOf(seconds).toFixed(1)}`)
    .join("");
}
