// Colours of common things, at the brightness of a place in a photo; and names of places.
import { blend } from "./pixels.js";

// Only the chroma of these colours counts, since the photo has its own luma.
const COLOURS = {
  skin: "#d3a183", "light hair": "#bd9a63", "brown hair": "#60452f", wood: "#8f6741", brick: "#a55a42", red: "#b02a30", rose: "#d792a4",
  orange: "#d9832e", straw: "#cdb374", yellow: "#e3cb45", olive: "#75743f", grass: "#73933f", leaves: "#44693a",
  teal: "#3d7c76", sky: "#8fb3d9", "blue cloth": "#38508f", violet: "#77538c", gray: "#808080",
};

const channels = (color) => [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
const luma = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b;
export const hex = (rgb) => `#${[...rgb].slice(0, 3).map((level) => Math.round(level).toString(16).padStart(2, "0")).join("")}`;

// The named colours at a luma of 0 to 255, those of similar brightness first: [{name, color}].
export function likely(y) {
  return Object.entries(COLOURS)
    .map(([name, color]) => ({ name, far: name === "gray" ? 999 : Math.abs(luma(channels(color)) - y), color: atLuma(channels(color), y) }))
    .sort((one, other) => one.far - other.far);
}

// A colour moved to another luma. Keeps its chroma as far as the gamut allows.
function atLuma(rgb, y) {
  const moved = rgb.map((level) => level - luma(rgb) + y);
  const scale = Math.min(1, ...moved.map((level) => (level > 255 ? (255 - y) / (level - y) : level < 0 ? y / (y - level) : 1)));
  const pixel = Uint8ClampedArray.of(...moved.map((level) => y + scale * (level - y)), 255);
  blend(pixel, 1);
  return hex(pixel);
}

// "upper left", for screen readers.
export function placeName(x, y) {
  const row = y < 1 / 3 ? "upper" : y < 2 / 3 ? "" : "lower";
  const column = x < 1 / 3 ? "left" : x < 2 / 3 ? "" : "right";
  return [row, column].filter(Boolean).join(" ") || "middle";
}
