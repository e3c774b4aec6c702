// The view of dark regions: brightens what is almost black (L* under 15 in the original), fades the rest, and marks false
// colours (C* over 15 where the original has less than 8). `photochrom evaluate` has the same limits.

const DARK = 15;
const FALSE_COLOUR = 15;
const TRULY_GRAY = 8;
const LARGEST = 1200;
const GAIN = 4;
const MARK = [255, 0, 200];

const LINEAR = Float32Array.from({ length: 256 }, (_, level) => {
  const value = level / 255;
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
});

const root = (value) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116);

// L* and C* of a pixel: CIELAB of sRGB under D65, as scikit-image computes it.
export function lightnessAndChroma(red, green, blue) {
  const [r, g, b] = [LINEAR[red], LINEAR[green], LINEAR[blue]];
  const x = root((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.95047);
  const y = root(0.212671 * r + 0.71516 * g + 0.072169 * b);
  const z = root((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883);
  return [116 * y - 16, Math.hypot(500 * (x - y), 200 * (y - z))];
}

// Draws the view of two loaded pictures. Returns {dark, false}: counts of pixels.
export function drawDark(canvas, picture, original) {
  const scale = Math.min(1, LARGEST / Math.max(picture.naturalWidth, picture.naturalHeight));
  canvas.width = Math.round(picture.naturalWidth * scale);
  canvas.height = Math.round(picture.naturalHeight * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const read = (image) => {
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };
  const found = read(picture);
  const truth = original ? read(original).data : null;
  const count = { dark: 0, false: 0 };
  const pixels = found.data;
  for (let i = 0; i < pixels.length; i += 4) {
    const [lightness, chroma] = lightnessAndChroma(pixels[i], pixels[i + 1], pixels[i + 2]);
    const [trueLightness, trueChroma] = truth ? lightnessAndChroma(truth[i], truth[i + 1], truth[i + 2]) : [lightness, 0];
    if (trueLightness >= DARK) {
      pixels.fill(205 + trueLightness / 2, i, i + 3);
      continue;
    }
    count.dark += 1;
    const wrong = chroma > FALSE_COLOUR && trueChroma < TRULY_GRAY;
    count.false += wrong;
    for (let channel = 0; channel < 3; channel += 1) {
      pixels[i + channel] = wrong ? MARK[channel] : Math.min(255, pixels[i + channel] * GAIN);
    }
  }
  context.putImageData(found, 0, 0);
  return count;
}
