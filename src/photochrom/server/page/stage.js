// One picture: the original beside its colours with a slider between them, a view of dark regions or of uncertainty
// instead, and hints on top.
import { h } from "./dom.js";
import { drawDark } from "./dark.js";

const STEP = 2; // percent that an arrow key moves the mark for a new hint

export class Stage {
  // photo: {url, name, element}; onSlide(value) and onHint(x, y) tell the photo.
  constructor(photo, label, onSlide, onHint) {
    this.photo = photo;
    this.onHint = onHint;
    this.after = h("img", { class: "after", alt: `${photo.name}, coloured by ${label}`, draggable: "false" });
    this.before = h("img", { class: "before", alt: "", src: photo.url, draggable: "false" });
    this.before.addEventListener("load", () => this.resize(this.before.naturalWidth, this.before.naturalHeight));
    this.before.addEventListener("error", () => this.makeBefore());
    this.canvas = h("canvas", { class: "whole", hidden: true, role: "img" });
    this.map = h("img", { class: "whole", hidden: true, alt: "White where the samples disagree, black where they agree" });
    this.slider = h("input", {
      type: "range", class: "slider", min: 0, max: 100, step: 1, value: 50, hidden: true,
      "aria-label": "How much of the original is seen", "aria-valuetext": "half original, half coloured",
      oninput: () => onSlide(Number(this.slider.value)),
    });
    this.line = h("div", { class: "line", "aria-hidden": "true", hidden: true });
    this.hints = h("div", { class: "hints" });
    this.cross = h("button", {
      type: "button", class: "cross", hidden: true, "aria-label": "Place of the hint: move with the arrow keys, set with Enter",
      onkeydown: (event) => this.moveCross(event), onclick: (event) => event.detail || this.addHint(this.at.x, this.at.y),
    });
    this.at = { x: 50, y: 50 };
    this.element = h("div", { class: "stage" },
      h("div", { class: "layers" }, this.after, this.before, this.canvas, this.map, this.line), this.slider, this.hints, this.cross);
    this.element.addEventListener("click", (event) => this.clicked(event));
    this.slide(50);
  }

  resize(width, height) {
    this.photo.element.style.setProperty("--ratio", width / height);
    this.element.classList.toggle("small", Math.max(width, height) <= 160);
  }

  slide(value) {
    this.slider.value = value;
    this.slider.setAttribute("aria-valuetext", `${value} % original, ${100 - value} % coloured`);
    this.element.style.setProperty("--at", `${value}%`);
  }

  // What the browser cannot show (TIFF, for instance) is seen as the result without its colours: their luma is the same.
  makeBefore() {
    this.noOriginal = true;
    this.before.classList.add("made");
    if (this.after.src) this.before.src = this.after.src;
  }

  preview(png) {
    this.after.src = `data:image/png;base64,${png}`;
    this.element.classList.add("previewing");
  }

  show(url) {
    this.element.classList.remove("previewing");
    this.after.src = url;
    if (this.noOriginal) this.before.src = url;
    this.slider.hidden = this.line.hidden = false;
    this.after.addEventListener("load", () => this.resize(this.after.naturalWidth, this.after.naturalHeight), { once: true });
  }

  // view: "colours", "dark" or "uncertainty" (with the address of its map).
  async view(view, mapUrl) {
    this.canvas.hidden = view !== "dark";
    this.map.hidden = view !== "uncertainty";
    this.slider.hidden = this.line.hidden = view !== "colours";
    if (view === "uncertainty") this.map.src = mapUrl;
    if (view !== "dark") return;
    await this.after.decode();
    const count = drawDark(this.canvas, this.after, this.noOriginal ? null : this.before);
    this.canvas.dataset.dark = count.dark;
    this.canvas.dataset.false = count.false;
    this.canvas.setAttribute("aria-label", `Dark regions brightened; ${count.false} of ${count.dark} pixels have a false colour`);
  }

  hinting(on) {
    this.element.classList.toggle("hinting", on);
    this.cross.hidden = !on;
    this.slider.disabled = on;
    this.placeCross();
  }

  moveCross(event) {
    const move = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (!move) return;
    event.preventDefault();
    this.at.x = Math.min(99, Math.max(1, this.at.x + move[0]));
    this.at.y = Math.min(99, Math.max(1, this.at.y + move[1]));
    this.placeCross();
  }

  placeCross() {
    this.cross.style.left = `${this.at.x}%`;
    this.cross.style.top = `${this.at.y}%`;
  }

  clicked(event) {
    if (!this.element.classList.contains("hinting") || event.target.closest(".hint")) return;
    if (event.target === this.cross && !event.detail) return; // by keyboard: done already
    const box = this.element.getBoundingClientRect();
    this.addHint(((event.clientX - box.left) / box.width) * 100, ((event.clientY - box.top) / box.height) * 100);
  }

  addHint(x, y) {
    const place = (share, size) => Math.min(size - 1, Math.max(0, Math.floor((share / 100) * size)));
    const [width, height] = this.size();
    this.onHint(place(x, width), place(y, height));
  }

  size() {
    const seen = this.noOriginal ? this.after : this.before;
    return [seen.naturalWidth, seen.naturalHeight];
  }

  drawHints(hints, remove) {
    const [width, height] = this.size();
    this.hints.replaceChildren(...hints.map((hint) => {
      const mark = h("button", {
        type: "button", class: "hint", title: "Remove this hint", "aria-label": `Remove the hint ${hint.color} at ${hint.x}, ${hint.y}`,
        onclick: () => remove(hint),
      });
      mark.style.left = `${((hint.x + 0.5) / width) * 100}%`;
      mark.style.top = `${((hint.y + 0.5) / height) * 100}%`;
      mark.style.backgroundColor = hint.color;
      return mark;
    }));
  }
}
