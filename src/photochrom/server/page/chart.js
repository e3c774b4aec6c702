// A small line chart: SVG, so that it follows light and dark, can be printed, and has a table beside it for those who
// do not see it.
import { h, svg } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 240;
const MARGIN = { left: 52, right: 12, top: 18, bottom: 30 };

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
  for (const mark of marks) {
    picture.append(svg("line", { class: "mark", x1: atX(mark.x), x2: atX(mark.x), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    picture.append(svg("text", { x: atX(mark.x) + 4, y: MARGIN.top + 10 }, mark.name));
  }
  lines.forEach((line, number) => {
    picture.append(svg("polyline", { class: `line series-${number}`, points: line.points.map(([x, y]) => `${atX(x)},${atY(y)}`).join(" ") }));
    for (const [x, y] of line.points) {
      const title = svg("title", {}, `${line.name}, epoch ${x}: ${short(y)}`);
      picture.append(svg("circle", { class: `dot series-${number}`, cx: atX(x), cy: atY(y), r: line.points.length > 40 ? 1.5 : 3 }, title));
    }
  });
  return h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title), legend(lines)), picture);
}

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
