// The photos in order of arrival: which of them to colour next, their grid, and the bar above it.
import { $, duration, h, percent, save, say } from "./dom.js";
import { Photo } from "./photo.js";
import { isReady, options, value } from "./settings.js";

const AT_ONCE = 4; // jobs; more would wait at the server
const SMALL_AT_ONCE = 2; // small pictures to make at a time
const tiles = new Map(); // photo -> its elements
let photos = [];
let opened; // opened(photo): called for a photo added alone, with null for several
let begun = 0; // when the present photos began
let before = 0; // photos done by then
let lastFailed = -1;

export function begin(onOpened) {
  opened = onOpened;
  for (const input of document.querySelectorAll(".choose")) {
    input.addEventListener("change", () => {
      add(input.files);
      input.value = ""; // so that the user can choose the same photo again
    });
  }
  $("again-all").addEventListener("click", () => photos.forEach((photo) => ask(photo)));
  $("cancel-all").addEventListener("click", () => photos.forEach((photo) => photo.cancel()));
  $("remove-all").addEventListener("click", () => confirm("Remove all photos from this page? Your files stay where they are.") && [...photos].forEach(remove));
  $("zip").addEventListener("click", zip);
  $("to-failed").addEventListener("click", toFailed);
  const over = (on) => document.body.classList.toggle("over", on);
  document.addEventListener("paste", (event) => add(event.clipboardData?.files ?? []));
  document.addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  document.addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  document.addEventListener("drop", (event) => { event.preventDefault(); over(false); add(event.dataTransfer.files); });
  window.addEventListener("pagehide", () => photos.forEach((photo) => photo.cancel()));
  setInterval(() => document.hidden || photos.filter((photo) => photo.state === "running").forEach(drawTile), 500);
}

export const all = () => photos;
export const find = (number) => photos.find((photo) => photo.number === number);
export const neighbour = (photo, step) => photos[photos.indexOf(photo) + step];

export function add(files) {
  const fresh = [...files].map((file) => new Photo(file));
  if (!fresh.length) return;
  photos.push(...fresh);
  for (const photo of fresh) {
    $("photos").append(newTile(photo));
    let state = "";
    photo.addEventListener("change", () => {
      drawTile(photo);
      if (photo.state !== state) changed();
      state = photo.state;
    });
    ask(photo);
  }
  drawThumbs(fresh);
  opened(fresh.length === 1 ? fresh[0] : null);
}

async function drawThumbs(fresh) {
  const left = [...fresh];
  const next = async () => {
    for (let photo = left.shift(); photo; photo = left.shift()) if (!photo.thumb) await photo.drawThumb();
  };
  await Promise.all(Array.from({ length: SMALL_AT_ONCE }, next));
}

// Queues a photo. When its turn comes it takes the options of that moment, and `changes`.
export function ask(photo, changes = {}) {
  if (!photo.isBusy || photo.words === "waiting") photo.wait(changes);
  changed();
}

// The server is back: queue the photos that it lost.
export const retryLost = () => photos.filter((photo) => photo.state === "failed" && photo.lost).forEach((photo) => ask(photo));

// Starts the next photos, the longest waiting first.
export function changed() {
  const room = AT_ONCE - photos.filter((photo) => photo.state === "running").length;
  const waiting = photos.filter((photo) => photo.state === "waiting");
  if (isReady()) for (const photo of waiting.slice(0, Math.max(0, room))) photo.run(options(photo.wanted));
  drawBar();
}

function drawBar() {
  const count = (state) => photos.filter((photo) => photo.state === state).length;
  const [busy, done, failed] = [photos.filter((photo) => photo.isBusy).length, count("done"), count("failed")];
  if (!busy) begun = 0;
  else if (!begun) [begun, before] = [performance.now(), photos.length - busy];
  const over = photos.length - busy;
  const left = over > before ? ((performance.now() - begun) / 1000 / (over - before)) * busy : 0;
  $("overall").value = photos.length ? over / photos.length : 0;
  $("overall").parentElement.classList.toggle("idle", !busy);
  say($("count"), `${done} of ${photos.length} coloured${busy && left ? `, about ${duration(left)} left` : ""}`);
  $("to-failed").hidden = !failed;
  say($("to-failed"), `${failed} failed`);
  $("cancel-all").hidden = !busy;
  $("again-all").disabled = busy > 0;
  $("zip").disabled = !photos.some((photo) => photo.result);
  document.title = busy ? `${done} of ${photos.length} · Photochrom` : "Photochrom";
}

function newTile(photo) {
  const tile = {
    image: h("img", { alt: "", draggable: "false" }), bar: h("progress", { max: 1, "aria-label": `Progress of ${photo.name}` }),
    state: h("span", { class: "state" }), words: h("span", { class: "soft" }),
  };
  tile.element = h("li", {},
    h("a", { href: `#photo-${photo.number}`, class: "tile" }, h("span", { class: "frame" }, tile.image, tile.state), h("span", { class: "name" }, photo.name), tile.words, tile.bar),
    h("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${photo.name}`, title: "Remove", onclick: () => remove(photo) }, "✕"));
  tiles.set(photo, tile);
  drawTile(photo);
  return tile.element;
}

const MARKS = { waiting: "", running: "", done: "✓", failed: "!", cancelled: "–" };

function drawTile(photo) {
  const tile = tiles.get(photo);
  if (!tile) return;
  const preview = photo.previews[0] ?? photo.thumb;
  if (preview && tile.image.src !== preview) tile.image.src = preview;
  tile.element.dataset.state = photo.state;
  say(tile.state, MARKS[photo.state]);
  tile.bar.hidden = photo.state !== "running";
  if (photo.share === null) tile.bar.removeAttribute("value");
  else tile.bar.value = photo.share;
  say(tile.words, { waiting: "waiting", done: "coloured", cancelled: "cancelled", failed: photo.problem }[photo.state] ?? inWords(photo));
}

// "photochrom-v2: step 3 of 20, 4 s", or what the photo waits for.
export function inWords(photo) {
  return photo.seconds === null ? photo.words : `${photo.words}, ${photo.seconds < 1 ? "0" : Math.floor(photo.seconds)}\u00a0s`;
}

function toFailed() {
  const failed = photos.filter((photo) => photo.state === "failed");
  lastFailed = (lastFailed + 1) % failed.length;
  const tile = tiles.get(failed[lastFailed]).element;
  tile.scrollIntoView({ block: "center" });
  tile.querySelector("a").focus();
}

export function remove(photo) {
  photos = photos.filter((one) => one !== photo);
  photo.letGo();
  tiles.get(photo).element.remove();
  tiles.delete(photo);
  changed();
  if (!photos.length) opened(null);
}

async function zip() {
  const { downloadZip } = await import("./vendor/client-zip.js");
  const taken = new Set();
  const coloured = photos.filter((photo) => photo.result);
  async function* files() { // one at a time: a hundred large ones do not fit into memory
    for (const [place, photo] of coloured.entries()) {
      say($("zip"), `Packing ${percent(place / coloured.length)}`);
      const { file, stem, ending } = await photo.download(value("format"));
      let name = `${stem}.${ending}`;
      for (let n = 2; taken.has(name); n += 1) name = `${stem} (${n}).${ending}`;
      taken.add(name);
      yield { name, input: file };
    }
  }
  $("zip").disabled = true;
  try {
    save(await downloadZip(files()).blob(), "photochrom.zip");
  } finally {
    say($("zip"), "Download all");
    drawBar();
  }
}
