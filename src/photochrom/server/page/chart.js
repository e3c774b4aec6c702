// Small charts as SVG, which follows light and dark and prints well. Labels hold their figures, for screen readers.
import { h, svg } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 240;
const MARGIN = { left: 52, right: 12, top: 20, bottom: 30 };
const LETTER = 8; // the width of a letter, at most

// lines: [{name, points: [[x, y], ...]}]; marks: [{x, name}] where a stage begins.
export function chart(title, lines, marks = []) {
  const points = lines.flatMap((line) => line.points);
  const [left, right] = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
  const logarithmic = isLogarithmic(points);
  const scale = logarithmic ? Math.log10 : (y) => y;
  const ys = points.map(([, y]) => scale(y));
  const [low, high] = padded(Math.min(...ys), Math.max(...ys));
  const atX = (x) => MARGIN.left + ((x - left) / (right - left || 1)) * (WIDTH - MARGIN.left - MARGIN.right);
  const atY = (y) => HEIGHT - MARGIN.bottom - ((scale(y) - low) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(title, lines) });
  for (const y of ticks(low, high, logarithmic)) {
    picture.append(svg("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: atY(y), y2: atY(y) }));
    picture.append(svg("text", { x: MARGIN.left - 6, y: atY(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const x of wholeTicks(left, right)) {
    picture.append(svg("text", { x: atX(x), y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, String(x)));
  }
  let free = WIDTH; // left of here, a name hides no other
  for (const mark of marks.filter(({ x }) => x > left && x < right).toReversed()) {
    picture.append(svg("line", { class: "mark", x1: atX(mark.x), x2: atX(mark.x), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    const width = LETTER * mark.name.length;
    const start = Math.min(atX(mark.x) + 4, WIDTH - width);
    if (start + width > free) continue;
    picture.append(svg("text", { class: "stage", x: start, y: MARGIN.top - 5 }, mark.name));
    free = start - LETTER;
  }
  lines.forEach((line, number) => {
    for (const part of unbroken(line.points)) picture.append(svg("polyline", { class: `line series-${number}`, points: part.map(([x, y]) => `${atX(x)},${atY(y)}`).join(" ") }));
    for (const [x, y] of line.points) {
      const title = svg("title", {}, `${line.name}, epoch ${x}: ${short(y)}`);
      picture.append(svg("circle", { class: `dot series-${number}`, cx: atX(x), cy: atY(y), r: line.points.length > 40 ? 1.5 : 3 }, title));
    }
  });
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title), legend(lines)), picture);
}

// Values with their intervals, one a row, and a value to compare them with. rows: [{name, value, low, high}].
export function dots(title, rows, against) {
  const ends = [...rows.flatMap(({ low, high }) => [low, high]), ...(against ? [against.value] : [])];
  const [low, high] = padded(Math.min(...ends), Math.max(...ends));
  const left = 130;
  const height = 24 + 26 * rows.length + 18;
  const atX = (value) => left + ((value - low) / (high - low)) * (WIDTH - left - 14);
  const said = rows.map((row) => `${row.name} ${short(row.value)}, from ${short(row.low)} to ${short(row.high)}`).join("; ");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", class: "glance", "aria-label": `${title}: ${said}${against ? `; ${against.name} ${short(against.value)}` : ""}` });
  if (against) {
    const x = atX(against.value);
    picture.append(svg("line", { class: "mark", x1: x, x2: x, y1: 18, y2: height - 20 }));
    picture.append(svg("text", { x, y: 13, "text-anchor": x > WIDTH - 80 ? "end" : "middle" }, `${against.name} ${short(against.value)}`));
  }
  for (const value of ticks(low, high, false)) picture.append(svg("text", { x: atX(value), y: height - 3, "text-anchor": "middle" }, short(value)));
  rows.forEach((row, number) => {
    const y = 34 + 26 * number;
    picture.append(svg("text", { class: "name", x: 0, y: y + 4 }, row.name.length > 18 ? `${row.name.slice(0, 17)}…` : row.name));
    picture.append(svg("rect", { x: atX(row.low), y: y - 2, width: Math.max(1, atX(row.high) - atX(row.low)), height: 4, rx: 2 }));
    picture.append(svg("circle", { cx: atX(row.value), cy: y, r: 5.5 }, svg("title", {}, `${short(row.value)}, ${short(row.low)} to ${short(row.high)}`)));
  });
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title)), picture);
}

// The runs of epochs that have a value: a loss that only some stages have is not drawn through the others.
const unbroken = (points) => points.reduce((parts, point, n) => {
  if (n > 0 && point[0] === points[n - 1][0] + 1) parts.at(-1).push(point);
  else parts.push([point]);
  return parts;
}, []);

const isLogarithmic = (points) => {
  const ys = points.map(([, y]) => y);
  return Math.min(...ys) > 0 && Math.max(...ys) > 8 * Math.min(...ys);
};

const padded = (low, high) => (low === high ? [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)] : [low - 0.05 * (high - low), high + 0.05 * (high - low)]);

function ticks(low, high, logarithmic) {
  if (logarithmic) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power += 1) for (const step of [1, 2, 5]) found.push(step * 10 ** power);
    const inside = found.filter((y) => Math.log10(y) >= low && Math.log10(y) <= high);
    return inside.length > 7 ? inside.filter((y) => /^1/.test(y.toExponential())) : inside;
  }
  const step = niceStep((high - low) / 4);
  return Array.from({ length: 12 }, (_, n) => (Math.ceil(low / step) + n) * step).filter((y) => y <= high);
}

function wholeTicks(left, right) {
  const step = Math.max(1, niceStep((right - left) / 6));
  const found = [];
  for (let x = Math.ceil(left / step) * step; x <= right; x += step) found.push(x);
  return found.length ? found : [left];
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= rough);
}

export const short = (y) => (y === 0 ? "0" : Math.abs(y) >= 0.001 && Math.abs(y) < 10000 ? String(Number(y.toPrecision(4))) : y.toExponential(1));

const legend = (lines) => lines.length > 1 && h("span", { class: "legend" }, lines.map((line, number) => h("span", {}, h("i", { class: `series-${number}`, "aria-hidden": "true" }), line.name)));

const described = (title, lines) => `${title}: ${lines.map(({ name, points }) => {
  const [x, y] = points[points.length - 1];
  return `${name} ${short(points[0][1])} at epoch ${points[0][0]}, ${short(y)} at epoch ${x}`;
}).join("; ")}`;
