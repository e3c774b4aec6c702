// What the user marks on the photo: colour hints, and what stays gray.
import { h } from "./dom.js";
import { hex, likely, placeName } from "./palette.js";

const MOST_HINTS = 64; // the API's limit
const STEP = 0.01; // share of the photo that an arrow key moves a hint by
const LARGEST_MASK = 1024;

export class Hints {
  // stage: shows them; changed(): called at each change; enough(text): called when there are too many.
  constructor(stage, changed, enough) {
    this.stage = stage;
    this.changed = changed;
    this.enough = enough;
    this.popover = h("div", { class: "popover", role: "dialog", "aria-label": "Colour of this place", hidden: true, onkeydown: (event) => event.key === "Escape" && this.close(event) });
    stage.element.parentElement.append(this.popover);
    document.addEventListener("pointerdown", (event) => event.target.closest(".popover, .hint") || this.close());
  }

  // The stage's tool: a press adds a hint, unless it closes the palette.
  tool(kind, x, y) {
    if (kind === "down") this.isOpen = !this.popover.hidden;
    if (kind === "up" && !this.isOpen && !this.stage.moved && x >= 0 && y >= 0 && x < 1 && y < 1) this.add(x, y);
  }

  show(photo) {
    this.photo = photo;
    this.close();
    this.draw();
  }

  add(x, y) {
    if (this.photo.hints.length >= MOST_HINTS) return this.enough(`${MOST_HINTS} hints are the most that the server accepts: remove one first.`);
    const [width, height] = this.stage.size;
    const hint = { x: Math.floor(x * width), y: Math.floor(y * height), name: "as it is" };
    hint.color = hex(this.pixel(hint, this.stage.after.image));
    this.photo.hints.push(hint);
    this.done();
    this.open(hint);
  }

  // Four channels of a picture at a hint's place.
  pixel(hint, image) {
    const canvas = h("canvas", { width: 1, height: 1 });
    const context = canvas.getContext("2d");
    const scale = image.naturalWidth / this.stage.size[0] || 1; // a preview is smaller
    context.drawImage(image, -Math.floor(hint.x * scale), -Math.floor(hint.y * scale));
    return context.getImageData(0, 0, 1, 1).data;
  }

  done() {
    this.draw();
    this.changed();
  }

  shares(hint) {
    return [(hint.x + 0.5) / this.stage.size[0], (hint.y + 0.5) / this.stage.size[1]];
  }

  draw() {
    this.stage.marks.querySelectorAll(".hint").forEach((mark) => mark.remove());
    this.stage.marks.append(...this.photo.hints.map((hint) => this.mark(hint)));
  }

  mark(hint) {
    const place = () => {
      const [x, y] = this.shares(hint);
      mark.style.left = `${100 * x}%`;
      mark.style.top = `${100 * y}%`;
      mark.setAttribute("aria-label", `Hint: ${hint.name}, ${placeName(x, y)}. Arrow keys move it, Enter changes the colour, Delete removes it`);
    };
    const moveTo = (x, y) => {
      const [width, height] = this.stage.size;
      hint.x = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
      hint.y = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
      place();
      this.changed();
    };
    let held = null;
    const mark = h("button", {
      type: "button", class: "hint",
      onclick: (event) => event.detail && this.dragged ? (this.dragged = false) : this.open(hint),
      onkeydown: (event) => {
        const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (event.key === "Delete" || event.key === "Backspace") this.remove(hint);
        if (!by) return;
        event.preventDefault();
        event.stopPropagation();
        const [x, y] = this.shares(hint);
        const step = this.stage.size.map((side) => Math.max(STEP, 1 / side)); // at least a pixel
        moveTo(x + by[0] * step[0], y + by[1] * step[1]);
      },
      onpointerdown: (event) => { held = event.pointerId; this.dragged = false; mark.setPointerCapture(held); },
      onpointermove: (event) => {
        if (held !== event.pointerId) return;
        const [x, y] = this.stage.shares(event);
        const [w, hgt] = this.stage.size.map((side) => side * this.stage.scale);
        const [was, wasY] = this.shares(hint);
        if (!this.dragged && Math.hypot((x - was) * w, (y - wasY) * hgt) < 4) return;
        this.dragged = true;
        this.close();
        moveTo(x, y);
      },
      onpointerup: () => { held = null; },
      onpointercancel: () => { held = null; },
    });
    mark.style.backgroundColor = hint.color;
    mark.hint = hint;
    place();
    return mark;
  }

  markOf(hint) {
    return [...this.stage.marks.querySelectorAll(".hint")].find((mark) => mark.hint === hint);
  }

  remove(hint) {
    this.photo.hints = this.photo.hints.filter((one) => one !== hint);
    this.close();
    this.done();
  }

  open(hint) {
    const [r, g, b] = this.pixel(hint, this.stage.after.image);
    const take = (color, name) => {
      Object.assign(hint, { color, name });
      this.done();
    };
    const other = h("input", { type: "color", value: hint.color, "aria-label": "Another colour", oninput: () => take(other.value, "own colour") });
    this.popover.replaceChildren(
      h("div", { class: "swatches" }, likely(0.299 * r + 0.587 * g + 0.114 * b).map(({ name, color }) => {
        const patch = h("span", { class: "patch" });
        patch.style.backgroundColor = color;
        return h("button", { type: "button", "aria-pressed": String(hint.name === name), onclick: () => { take(color, name); this.close({}); } }, patch, name);
      })),
      h("p", { class: "row" }, h("label", { class: "row" }, other, "Another"), h("button", { type: "button", onclick: () => this.remove(hint) }, "Remove"), h("button", { type: "button", class: "primary", onclick: () => this.close({}) }, "Done")));
    this.opened = hint;
    this.popover.hidden = false;
    const [at, own] = [this.markOf(hint).getBoundingClientRect(), this.popover.getBoundingClientRect()];
    this.popover.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, at.right + 12))}px`;
    this.popover.style.top = `${Math.max(8, Math.min(innerHeight - own.height - 8, at.top - own.height / 2))}px`;
    this.popover.querySelector("button").focus({ preventScroll: true });
  }

  // event: the keyboard goes back to the mark.
  close(event) {
    if (this.popover.hidden) return;
    this.popover.hidden = true;
    event?.stopPropagation?.();
    if (event) this.markOf(this.opened)?.focus({ preventScroll: true });
  }
}

// A brush that marks what stays gray.
export class Mask {
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.canvas = h("canvas", { class: "mask", "aria-hidden": "true" });
    this.brush = 0.08; // of the shorter side
    this.erases = false;
    stage.marks.append(this.canvas);
  }

  show(photo) {
    this.photo = photo;
    this.context = null;
    this.canvas.hidden = !photo.mask;
    if (photo.mask) this.load(photo.mask);
  }

  start([width, height] = this.stage.size) {
    if (this.context) return;
    const scale = Math.min(1, LARGEST_MASK / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.context = this.canvas.getContext("2d");
    this.canvas.hidden = false;
  }

  // Shows a mask, white where the photo stays gray.
  async load(blob) {
    const { photo } = this;
    const bitmap = await createImageBitmap(blob);
    if (photo !== this.photo) return;
    this.context = null;
    this.start([bitmap.width, bitmap.height]);
    const { width, height } = this.canvas;
    this.context.drawImage(bitmap, 0, 0, width, height);
    const found = this.context.getImageData(0, 0, width, height);
    for (let i = 0; i < found.data.length; i += 4) found.data[i + 3] = found.data[i];
    this.context.putImageData(found, 0, 0);
  }

  tool(kind, x, y) {
    if (kind === "down") {
      this.start();
      this.last = [x, y];
    }
    if (!this.last) return;
    const { width, height } = this.canvas;
    const context = this.context;
    context.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
    context.strokeStyle = "#fff";
    context.lineWidth = this.brush * Math.min(width, height);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last[0] * width, this.last[1] * height);
    context.lineTo(x * width + 0.01, y * height);
    context.stroke();
    this.last = [x, y];
    if (kind !== "up" && kind !== "cancel") return;
    this.last = null;
    this.keep();
  }

  clear() {
    this.context = null;
    this.canvas.hidden = true;
    this.photo.mask = null;
    this.changed();
  }

  // The mask as the API takes it: white on black.
  async keep() {
    const { photo } = this;
    const whole = h("canvas", { width: this.canvas.width, height: this.canvas.height });
    const context = whole.getContext("2d");
    context.fillRect(0, 0, whole.width, whole.height);
    context.drawImage(this.canvas, 0, 0);
    photo.mask = await new Promise((resolve) => whole.toBlob(resolve, "image/png"));
    this.changed();
  }
}
