// What the page itself does to pixels: strength, small pictures, the map of guesses, downloads.

const LIVE = 1.5e6; // pixels to blend while a slider moves

const toUrl = async (canvas, type, quality) => URL.createObjectURL(await toBlob(canvas, type, quality));

async function toBlob(canvas, type, quality) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, quality));
  if (!blob) throw new Error("This picture is too large for the browser: take strength 1 and PNG, which the server has made.");
  return blob;
}

// Multiplies chroma in place. A colour that would leave the gamut moves towards gray; luma stays.
export function blend(pixels, strength) {
  for (let i = 0; i < pixels.length; i += 4) {
    const y = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    const [r, g, b] = [pixels[i] - y, pixels[i + 1] - y, pixels[i + 2] - y];
    const [high, low] = [Math.max(r, g, b), Math.min(r, g, b)];
    const s = high > 0.01 ? Math.min(strength, (255 - y) / high, y / -low) : strength;
    pixels[i] = y + s * r;
    pixels[i + 1] = y + s * g;
    pixels[i + 2] = y + s * b;
  }
}

// Draws an image or bitmap into a canvas at some strength. live: small enough to follow a slider.
export function draw(canvas, image, strength, live = false, most = live ? LIVE : Infinity) {
  const [width, height] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
  const scale = Math.min(1, Math.sqrt(most / (width * height)));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (strength === 1) return canvas;
  const found = context.getImageData(0, 0, canvas.width, canvas.height);
  blend(found.data, strength);
  context.putImageData(found, 0, 0);
  return canvas;
}

// The address of a small JPEG of a picture. Throws if the browser cannot read the file.
export async function thumbnail(blob, strength = 1, height = 240) {
  const bitmap = await createImageBitmap(blob, { resizeHeight: height, resizeQuality: "medium" });
  try {
    return await toUrl(draw(document.createElement("canvas"), bitmap, strength), "image/jpeg", 0.85);
  } finally {
    bitmap.close();
  }
}

// A result as a file of type "image/png" or "image/jpeg", at some strength. Uses the server's own file if that is the same.
export async function encoded(file, strength, type) {
  if (strength === 1 && type === file.type) return file;
  const bitmap = await createImageBitmap(file);
  const made = await toBlob(draw(document.createElement("canvas"), bitmap, strength), type, 0.95);
  bitmap.close();
  return withExif(made, new Uint8Array(await file.arrayBuffer()));
}

// Copies Exif data and resolution of a PNG into a PNG or JPEG that the browser made.
async function withExif(made, png) {
  const view = new DataView(png.buffer);
  const parts = { eXIf: null, pHYs: null };
  for (let at = 8; at < png.length;) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (name in parts) parts[name] = png.subarray(at, at + 12 + length);
    if (name === "IDAT") break;
    at += 12 + length;
  }
  const found = Object.values(parts).filter(Boolean);
  if (made.type === "image/png") return new Blob([made.slice(0, 33), ...found, made.slice(33)], { type: made.type });
  const exif = parts.eXIf?.subarray(8, -4);
  if (!exif || exif.length > 65000) return made;
  const length = exif.length + 8;
  const head = Uint8Array.of(0xff, 0xe1, length >> 8, length & 255, 69, 120, 105, 102, 0, 0); // APP1, "Exif"
  return new Blob([made.slice(0, 2), head, exif, made.slice(2)], { type: made.type });
}

// Draws a map of guesses (white: the colourings disagree) as a veil that is clear where they agree.
export function drawVeil(canvas, map) {
  draw(canvas, map, 1, true);
  const context = canvas.getContext("2d");
  const found = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = found.data;
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const share = Math.min(1, pixels[i] / 110); // 255 stands for a distance that hardly ever occurs
    sum += share;
    [pixels[i], pixels[i + 1], pixels[i + 2], pixels[i + 3]] = [255, 120, 20, 215 * share];
  }
  context.putImageData(found, 0, 0);
  return sum / (pixels.length / 4);
}
