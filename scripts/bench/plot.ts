/** A plot of lines over two logarithmic axes, as SVG. Pure. */

export interface Line {
  name: string;
  color: string;
  /** Each with the range of its rounds. x and y are above 0. */
  points: readonly { x: number; y: number; low: number; high: number }[];
}

export interface Panel {
  title: string;
  xTitle: string;
  lines: readonly Line[];
  /** What y may not fall below: an idle processor has no logarithm. */
  yMin: number;
}

/** Panels side by side, in one SVG that needs no fonts or styles of anybody. */
export function renderPlot(panels: readonly Panel[]): string {
  const width = panels.length * PANEL_WIDTH;
  const body = panels.map((panel, i) => `<g transform="translate(${i * PANEL_WIDTH} 0)">${renderPanel(panel)}</g>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" ` +
      `font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#24292f" role="img">`,
    `<title>${panels.map(({ title }) => title).join("; ")}</title>`,
    `<rect width="${width}" height="${HEIGHT}" fill="#ffffff"/>`,
    ...body,
    "</svg>\n",
  ].join("\n");
}

// --- internal ---

const PANEL_WIDTH = 480;
const HEIGHT = 360;
const MARGIN = { left: 64, right: 24, top: 56, bottom: 52 };
const GRID = "#d8dee4";

interface Axis {
  /** Exponents of ten at both ends. */
  from: number;
  to: number;
  /** Pixels at both ends. */
  start: number;
  end: number;
}

function renderPanel({ title, xTitle, lines, yMin }: Panel): string {
  const points = lines.flatMap((line) => line.points);
  const x = axisOver(
    points.map((point) => point.x),
    MARGIN.left,
    PANEL_WIDTH - MARGIN.right,
  );
  const y = axisOver(
    points.flatMap(({ low, high }) => [Math.max(low, yMin), Math.max(high, yMin)]),
    HEIGHT - MARGIN.bottom,
    MARGIN.top,
  );
  return [
    `<text x="${MARGIN.left}" y="20" font-weight="bold">${escapeXml(title)}</text>`,
    ...decades(x).map((value) => renderXTick(x, y, value)),
    ...decades(y).map((value) => renderYTick(x, y, value)),
    `<text x="${(x.start + x.end) / 2}" y="${HEIGHT - 12}" text-anchor="middle">${escapeXml(xTitle)}</text>`,
    ...lines.map((line, i) => renderLine(line, i, x, y, yMin)),
  ].join("\n");
}

function renderXTick(x: Axis, y: Axis, value: number): string {
  const at = round(place(x, value));
  return (
    `<line x1="${at}" y1="${y.start}" x2="${at}" y2="${y.end}" stroke="${GRID}"/>` +
    `<text x="${at}" y="${y.start + 18}" text-anchor="middle">${formatTick(value)}</text>`
  );
}

function renderYTick(x: Axis, y: Axis, value: number): string {
  const at = round(place(y, value));
  return (
    `<line x1="${x.start}" y1="${at}" x2="${x.end}" y2="${at}" stroke="${GRID}"/>` +
    `<text x="${x.start - 8}" y="${at + 4}" text-anchor="end">${formatTick(value)}</text>`
  );
}

function renderLine({ name, color, points }: Line, index: number, x: Axis, y: Axis, yMin: number): string {
  const at = points.map((point) => ({
    x: round(place(x, point.x)),
    y: round(place(y, Math.max(point.y, yMin))),
    low: round(place(y, Math.max(point.low, yMin))),
    high: round(place(y, Math.max(point.high, yMin))),
  }));
  const legendX = MARGIN.left + index * 120;
  return [
    `<polyline points="${at.map((point) => `${point.x},${point.y}`).join(" ")}" fill="none" stroke="${color}" stroke-width="2"/>`,
    ...at.map(({ x, low, high }) => `<line x1="${x}" y1="${low}" x2="${x}" y2="${high}" stroke="${color}"/>`),
    ...at.map((point) => `<circle cx="${point.x}" cy="${point.y}" r="3.5" fill="${color}"/>`),
    `<line x1="${legendX}" y1="37" x2="${legendX + 20}" y2="37" stroke="${color}" stroke-width="2"/>`,
    `<text x="${legendX + 26}" y="41">${escapeXml(name)}</text>`,
  ].join("\n");
}

/** From the power of ten at or below the least value to that at or above the largest. */
function axisOver(values: readonly number[], start: number, end: number): Axis {
  const from = Math.floor(Math.log10(Math.min(...values)) + EPSILON);
  const to = Math.max(from + 1, Math.ceil(Math.log10(Math.max(...values)) - EPSILON));
  return { from, to, start, end };
}

/** log10(1000) is a little less than 3. */
const EPSILON = 1e-9;

function decades({ from, to }: Axis): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
}

function place({ from, to, start, end }: Axis, value: number): number {
  return start + ((Math.log10(value) - from) / (to - from)) * (end - start);
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}

function formatTick(value: number): string {
  return value >= 1 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(1)));
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
