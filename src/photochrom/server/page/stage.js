// The stage: one picture upon another, with a line between them, and zoom and pan.
import { h } from "./dom.js";
import { draw } from "./pixels.js";

const MOST = 32; // screen pixels for one of the photo
const NEAR = 24; // CSS pixels from the line that still grab it
const SHARP = 4; // from this zoom on, pixels appear as squares

// A picture at some strength: an image, covered by a canvas if the strength is not 1.
class Layer {
  constructor(className, alt) {
    this.image = h("img", { alt, draggable: "false" });
    this.canvas = h("canvas", { hidden: true, "aria-hidden": "true" });
    this.element = h("div", { class: `layer ${className}` }, h("div", { class: "sheet" }, this.image, this.canvas));
  }

  show(url, strength = 1) {
    this.strength = strength;
    this.element.classList.toggle("empty", !url);
    if (this.image.getAttribute("src") === (url ?? null)) return this.blend(strength);
    this.canvas.hidden = true;
    this.image.onload = () => this.blend(this.strength);
    if (url) this.image.src = url;
    else this.image.removeAttribute("src");
  }

  blend(strength, live = false) {
    this.strength = strength;
    this.canvas.hidden = strength === 1 || !this.image.naturalWidth;
    if (!this.canvas.hidden) draw(this.canvas, this.image, strength, live);
  }
}

export class Stage {
  // tool(kind, x, y): gets what the pointer does, at shares of the photo's sides; null: pan and wipe.
  constructor(element) {
    this.element = element;
    this.size = [1, 1];
    this.tool = null;
    this.pointers = new Map();
    this.after = new Layer("after", "");
    this.before = new Layer("before", "");
    this.whole = h("canvas", { class: "whole", role: "img" });
    this.marks = h("div", { class: "sheet marks" });
    this.slider = h("input", { type: "range", class: "hidden", min: 0, max: 100, step: 1, value: 50, "aria-label": "Line between before and coloured", oninput: () => this.wipe(Number(this.slider.value)) });
    this.line = h("div", { class: "line", "aria-hidden": "true" });
    this.left = h("span", { class: "tag left" });
    this.right = h("span", { class: "tag right" });
    element.append(this.slider, this.after.element, this.before.element,
      h("div", { class: "layer top" }, h("div", { class: "sheet" }, this.whole)), h("div", { class: "layer marks-layer" }, this.marks), this.line, this.left, this.right);
    for (const layer of [this.before, this.after]) {
      layer.image.addEventListener("load", () => layer.image.src.startsWith("data:") || this.resize(layer.image.naturalWidth, layer.image.naturalHeight));
    }
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.up(event));
    element.addEventListener("pointercancel", (event) => this.up(event, true));
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("dblclick", (event) => this.tool || event.target.closest("button") || this.toggle(event.clientX, event.clientY));
    new ResizeObserver(() => (this.isFit ? this.fit() : this.place())).observe(element);
    this.at = 50;
    this.fit();
  }

  resize(width, height) {
    if (this.size[0] === width && this.size[1] === height) return;
    this.size = [width, height];
    this.element.style.setProperty("--ratio", width / height);
    this.fit();
  }

  get box() {
    return [this.element.clientWidth, this.element.clientHeight];
  }

  get fitting() {
    const [width, height] = this.box;
    return Math.min(width / this.size[0], height / this.size[1], MOST) || 1;
  }

  fit() {
    this.isFit = true;
    this.scale = this.fitting;
    this.place();
  }

  // 100 %: one screen pixel for each pixel of the photo.
  full() {
    const [width, height] = this.box;
    this.zoom(1 / devicePixelRatio / this.scale, width / 2, height / 2);
  }

  toggle(clientX, clientY) {
    if (!this.isFit) return this.fit();
    const full = 1 / devicePixelRatio;
    const box = this.element.getBoundingClientRect();
    this.zoom(full > 1.1 * this.scale ? full / this.scale : 3, clientX - box.left, clientY - box.top);
  }

  // Zooms by a factor, and keeps what is at (x, y) in place.
  zoom(factor, x = this.box[0] / 2, y = this.box[1] / 2) {
    const scale = Math.min(MOST, Math.max(Math.min(this.fitting, 1 / devicePixelRatio), this.scale * factor));
    const grown = scale / this.scale;
    [this.x, this.y] = [x - (x - this.x) * grown, y - (y - this.y) * grown];
    this.scale = scale;
    this.isFit = Math.abs(scale / this.fitting - 1) < 0.005;
    this.place();
  }

  // Keeps the picture in view, and places everything.
  place() {
    const box = this.box;
    const shown = this.size.map((side) => side * this.scale);
    [this.x, this.y] = [this.x, this.y].map((at, axis) => (shown[axis] <= box[axis] + 0.5 ? (box[axis] - shown[axis]) / 2 : Math.min(0, Math.max(box[axis] - shown[axis], at || 0))));
    for (const [name, value] of Object.entries({ x: this.x, y: this.y, w: shown[0], h: shown[1] })) this.element.style.setProperty(`--${name}`, `${value}px`);
    this.element.classList.toggle("sharp", this.scale * devicePixelRatio >= SHARP);
    this.element.classList.toggle("zoomed", !this.isFit);
    this.wipe(this.at);
    this.onZoom?.(this.scale * devicePixelRatio);
  }

  // Left and right edge of the visible part of the photo.
  get edges() {
    return [Math.max(0, this.x), Math.min(this.box[0], this.x + this.size[0] * this.scale)];
  }

  wipe(at) {
    this.at = Math.min(100, Math.max(0, at));
    const [left, right] = this.edges;
    const line = left + ((right - left) * this.at) / 100;
    this.element.style.setProperty("--line", `${line}px`);
    this.slider.value = this.at;
    this.slider.setAttribute("aria-valuetext", `${Math.round(this.at)} % ${this.left.textContent}, ${Math.round(100 - this.at)} % ${this.right.textContent}`);
    this.left.classList.toggle("off", this.at < 12);
    this.right.classList.toggle("off", this.at > 88);
  }

  // A pointer's place, in shares of the photo's width and height.
  shares(event) {
    const box = this.element.getBoundingClientRect();
    return [(event.clientX - box.left - this.x) / this.size[0] / this.scale, (event.clientY - box.top - this.y) / this.size[1] / this.scale];
  }

  down(event) {
    if (event.target.closest("button, .popover") || event.button > 1) return;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) { // a pinch ends what the first finger began
      this.tool?.("cancel", ...this.shares(event));
      this.doing = "pinch";
      return;
    }
    const box = this.element.getBoundingClientRect();
    const line = Number.parseFloat(this.element.style.getPropertyValue("--line"));
    const near = Math.abs(event.clientX - box.left - Math.min(box.width - NEAR, Math.max(NEAR, line))) <= NEAR;
    const wipes = this.element.classList.contains("wiping");
    this.moved = false;
    this.was = this.at;
    this.doing = event.button === 1 ? "pan" : this.tool ? "tool" : wipes && (near || this.isFit) ? "wipe" : "pan";
    if (this.doing === "tool") this.tool("down", ...this.shares(event));
    if (this.doing === "wipe" && event.pointerType !== "touch" && !near) this.wipeTo(event.clientX);
    this.element.setPointerCapture(event.pointerId);
    if (event.pointerType === "mouse") event.preventDefault();
  }

  wipeTo(clientX) {
    const [left, right] = this.edges;
    this.wipe(((clientX - this.element.getBoundingClientRect().left - left) / (right - left)) * 100);
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY];
    if (Math.hypot(now[0] - last[0], now[1] - last[1]) > 3) this.moved = true;
    const [dx, dy] = [now[0] - last[0], now[1] - last[1]];
    if (this.doing === "pinch") {
      const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
      if (!other) return;
      const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
      const box = this.element.getBoundingClientRect();
      this.x += dx / 2;
      this.y += dy / 2;
      this.zoom(apart(now) / apart(last), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
    } else if (this.doing === "wipe") {
      const [left, right] = this.edges;
      this.wipe(this.at + (dx / (right - left)) * 100);
    } else if (this.doing === "pan" && !this.isFit) {
      this.x += dx;
      this.y += dy;
      this.place();
    } else if (this.doing === "tool") this.tool("move", ...this.shares(event));
    this.pointers.set(event.pointerId, now);
  }

  // cancelled: the browser used the touch to scroll the page.
  up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.doing === "wipe" && cancelled) this.wipe(this.was);
    if (this.doing === "tool") this.tool(cancelled ? "cancel" : "up", ...this.shares(event));
    if (!this.pointers.size) this.doing = null;
  }

  wheel(event) {
    const scrolls = document.documentElement.scrollHeight > innerHeight + 1 && !document.fullscreenElement;
    if (scrolls && !event.ctrlKey && this.isFit) return; // the wheel scrolls the page
    event.preventDefault();
    const box = this.element.getBoundingClientRect();
    this.zoom(1.0015 ** -Math.max(-300, Math.min(300, event.deltaMode ? 40 * event.deltaY : event.deltaY * (event.ctrlKey ? 4 : 1))), event.clientX - box.left, event.clientY - box.top);
  }

  // Sweeps the line once over a newly coloured photo.
  reveal() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.wipe(50);
    const begun = performance.now();
    const sweep = (now) => {
      const t = Math.min(1, (now - begun) / 1400);
      if (this.doing) return;
      this.wipe(t < 0.6 ? 100 - (100 * t) / 0.6 : (50 * (t - 0.6)) / 0.4);
      if (t < 1) requestAnimationFrame(sweep);
    };
    requestAnimationFrame(sweep);
  }
}
