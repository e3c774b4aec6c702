// The viewer: one photo on the stage, its toolbar, and the panel of things to do with it.
import * as album from "./album.js";
import { drawDark } from "./dark.js";
import { $, duration, h, percent, save, say, toast } from "./dom.js";
import { Hints, Mask } from "./marks.js";
import { placeName } from "./palette.js";
import { facts, title } from "./photo.js";
import { drawVeil, encoded } from "./pixels.js";
import { AGREEING, set, value } from "./settings.js";
import { Stage } from "./stage.js";

const KEYS = {
  "← →": "previous, next photo", "+ −": "larger, smaller", 0: "fit the window", 1: "100 %", F: "full screen", "B (hold)": "before",
  G: "guesses", R: "dark regions", D: "download", "Ctrl+C": "copy", Esc: "all photos",
};
let photo = null;
let stage, hints, mask, status;
let view = "colours";
let wasRunning = false;

export function begin() {
  stage = new Stage($("stage"));
  status = { bar: h("progress", { max: 1, "aria-label": "Progress of this photo" }), words: h("span"), heard: h("span", { class: "hidden", role: "status" }), said: h("p", { class: "note", hidden: true }) };
  status.element = h("div", { class: "progress", hidden: true }, status.bar, status.words, h("button", { type: "button", onclick: () => photo.cancel() }, "Cancel"));
  stage.element.append(status.element, status.said, status.heard);
  hints = new Hints(stage, said, toast);
  mask = new Mask(stage, said);
  stage.onZoom = (scale) => {
    $("fit").setAttribute("aria-pressed", stage.isFit);
    say($("full-size"), stage.isFit ? "100 %" : percent(scale));
  };
  on("out", () => stage.zoom(1 / 1.4));
  on("in", () => stage.zoom(1.4));
  on("fit", () => stage.fit());
  on("full-size", () => stage.full());
  on("screen", () => (document.fullscreenElement ? document.exitFullscreen() : $("theatre").requestFullscreen()));
  $("screen").hidden = !document.fullscreenEnabled;
  $("copy").hidden = !globalThis.ClipboardItem || !navigator.clipboard;
  on("previous", () => turn(-1));
  on("next", () => turn(1));
  on("copy", copy);
  on("download", download);
  for (const id of ["again", "with-this"]) on(id, () => album.ask(photo));
  on("others", () => album.ask(photo, { samples: 4, average: 1, seed: nextSeed() }));
  on("remove", () => { const gone = photo; location.hash = album.all().length > 1 ? `#photo-${(album.neighbour(photo, 1) ?? album.neighbour(photo, -1)).number}` : "#"; album.remove(gone); });
  on("hint", () => useTool($("hint").getAttribute("aria-pressed") === "true" ? null : "hint"));
  on("gray", () => useTool($("gray").getAttribute("aria-pressed") === "true" ? null : "gray"));
  on("hint-middle", () => hints.add(0.5, 0.5));
  on("erase", () => { mask.erases = !mask.erases; $("erase").setAttribute("aria-pressed", mask.erases); });
  on("clear-gray", () => mask.clear());
  on("like-remove", () => likeChosen(null));
  $("brush").addEventListener("input", () => { mask.brush = $("brush").value / 100; });
  $("like").addEventListener("change", () => { likeChosen($("like").files[0]); $("like").value = ""; });
  $("mask").addEventListener("change", () => { mask.load($("mask").files[0]).then(() => mask.keep()).catch(() => toast("This mask cannot be read: take a PNG or JPEG.")); $("mask").value = ""; });
  $("views").addEventListener("change", (event) => look(event.target.value));
  $("strength").addEventListener("input", () => strength(Number($("strength").value), true));
  $("strength").addEventListener("change", () => { strength(Number($("strength").value)); set({ strength: photo.strength }); photo.drawThumb(); });
  $("strength-all").firstChild.addEventListener("click", () => {
    for (const one of album.all()) one.tell({ strength: photo.strength }), one.drawThumb();
    toast(`All photos have strength ${photo.strength.toFixed(2)} now.`);
  });
  $("against").addEventListener("change", () => photo.show(photo.result, photo.results.find((one) => one.url === $("against").value) ?? null));
  $("keys").append(...Object.entries(KEYS).map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what))));
  document.addEventListener("keydown", key);
  document.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && photo && stage.element.classList.remove("peeking"));
  document.addEventListener("copy", (event) => { if (photo?.result && getSelection().isCollapsed && !isField(document.activeElement)) { event.preventDefault(); copy(); } });
  setInterval(() => photo?.isBusy && drawProgress(), 250);
}

const on = (id, act) => $(id).addEventListener("click", act);
const isField = (element) => element?.matches("input:not([type=range], [type=radio], [type=checkbox]), select, textarea");
const nextSeed = () => 1 + Math.max(-1, ...photo.results.filter((one) => !one.calm).map((one) => one.seed));

// Opens a photo; null: another view is open.
export function open(next) {
  photo?.removeEventListener("change", update);
  photo = next;
  wasRunning = false;
  if (!photo) return;
  photo.addEventListener("change", update);
  stage.size = [1, 1];
  hints.show(photo);
  mask.show(photo);
  useTool(null);
  say($("photo-name"), photo.name);
  $("photo-name").title = photo.name;
  stage.before.image.onerror = () => { photo.unseen = true; update(); };
  stage.wipe(50);
  look("colours");
  stage.fit();
}

function turn(step) {
  const next = album.neighbour(photo, step);
  if (next) location.hash = `#photo-${next.number}`;
}

// Draws whatever may have changed.
function update() {
  if (!photo) return;
  const { result, against } = photo;
  const all = album.all();
  $("turn").hidden = all.length < 2;
  say($("place"), `${all.indexOf(photo) + 1} of ${all.length}`);
  $("previous").disabled = !album.neighbour(photo, -1);
  $("next").disabled = !album.neighbour(photo, 1);
  for (const id of ["copy", "download", "others"]) $(id).disabled = !result;
  for (const radio of $("views").querySelectorAll("input")) radio.disabled = !result && radio.value !== "colours";
  $("others").disabled ||= photo.isBusy;
  $("again").disabled = $("with-this").disabled = photo.isBusy;
  $("problem").hidden = !photo.problem || photo.isBusy;
  $("problem").classList.toggle("mild", photo.state === "cancelled");
  if (!$("problem").hidden && $("problem").dataset.text !== photo.problem) $("problem").replaceChildren(`${photo.problem} `, h("button", { type: "button", onclick: () => album.ask(photo) }, "Try again"));
  $("problem").dataset.text = photo.isBusy ? "" : photo.problem;
  for (const id of ["strength-group", "results-group", "guide-group"]) $(id).hidden = !result;
  $("strength-all").hidden = all.length < 2;
  $("strength").value = photo.strength;
  say($("strength-said"), photo.strength.toFixed(2));
  const preview = photo.state === "running" ? photo.previews.findLast(Boolean) : null;
  const shown = preview ?? result?.url ?? null;
  stage.element.classList.toggle("previewing", Boolean(preview));
  stage.element.classList.toggle("bare", !shown);
  stage.element.classList.toggle("wiping", Boolean(result) && !preview && view !== "dark" && !stage.tool);
  const gray = photo.unseen && result; // TIFF, for instance: show the result without its colours, which has the same luma
  stage.after.image.alt = shown ? `${photo.name}, coloured` : "";
  stage.before.image.alt = `${photo.name}, before`;
  stage.after.show(shown, preview ? 1 : photo.strength);
  if (against && view === "colours") stage.before.show(against.url, photo.strength);
  else if (gray) stage.before.show(result.url, 0);
  else stage.before.show(photo.unseen ? null : photo.url);
  say(stage.left, against && view === "colours" ? `${against.model} · ${duration(against.seconds)}` : "Before");
  say(stage.right, view === "guesses" ? "Guesses" : against ? `${result.model} · ${duration(result.seconds)}` : "Coloured");
  drawResults();
  drawHintList();
  drawLike();
  drawProgress();
  const ended = wasRunning && photo.state === "done";
  wasRunning = photo.state === "running";
  if (photo.isBusy) say(status.heard, `Colouring ${photo.name}`); // once, not every second
  if (!ended) return;
  say(status.heard, `${photo.name} is coloured`);
  look(view);
  if (view === "colours") stage.reveal();
}

function drawProgress() {
  status.element.hidden = !photo.isBusy;
  if (photo.share === null) status.bar.removeAttribute("value");
  else status.bar.value = photo.share;
  say(status.words, album.inWords(photo));
}

function drawResults() {
  const state = photo.results.map((one) => [one.url, one === photo.result, one === photo.against].join()).join();
  if ($("results").dataset.state === state) return;
  $("results").dataset.state = state;
  const focused = document.activeElement?.dataset?.result;
  $("results").replaceChildren(...photo.results.map((one) => h("li", {},
    h("button", { type: "button", "data-result": one.url, "aria-pressed": String(one === photo.result), title: `${title(one)}, ${facts(one)}`, onclick: () => { photo.show(one); look(view); } },
      h("img", { src: one.thumb, alt: "" }), h("span", {}, title(one))))));
  if (focused) $("results").querySelector(`[data-result="${focused}"]`)?.focus();
  say($("facts"), photo.result ? `${title(photo.result)}: ${facts(photo.result)}` : "");
  $("against").replaceChildren(new Option("the photo before", ""), ...photo.results.filter((one) => one !== photo.result).map((one) => new Option(title(one), one.url)));
  $("against").value = photo.against?.url ?? "";
  $("against-field").hidden = photo.results.length < 2;
}

function drawHintList() {
  const state = photo.hints.map((hint) => [hint.name, hint.color, placeName(...hints.shares(hint))].join()).join();
  if ($("hints").dataset.state === state) return;
  $("hints").dataset.state = state;
  $("hints").replaceChildren(...photo.hints.map((hint) => {
    const patch = h("span", { class: "patch" });
    patch.style.backgroundColor = hint.color;
    const name = `${hint.name}, ${placeName(...hints.shares(hint))}`;
    return h("li", {}, h("button", { type: "button", class: "quiet", "aria-label": `Change the hint ${name}`, onclick: () => hints.open(hint) }, patch, name),
      h("button", { type: "button", class: "quiet", "aria-label": `Remove the hint ${name}`, onclick: () => { hints.remove(hint); $("hint").focus(); } }, "✕"));
  }));
}

// Hints, mask or reference have changed: offer to colour with them.
function said() {
  drawHintList();
  $("with-this").hidden = !(photo.hints.length || photo.mask || photo.like);
}

function likeChosen(file) {
  photo.like = file ?? null;
  update();
  said();
}

function drawLike() {
  const image = $("like-shown").querySelector("img");
  $("like-shown").hidden = !photo.like;
  if (image.file === photo.like) return;
  image.file = photo.like;
  if (image.src) URL.revokeObjectURL(image.src);
  if (photo.like) image.src = URL.createObjectURL(photo.like);
  say($("like-shown").querySelector("span"), photo.like ? `like ${photo.like.name}` : "");
}

function useTool(name) {
  for (const id of ["hint", "gray"]) {
    $(id).setAttribute("aria-pressed", id === name);
    $(`${id}-tools`).hidden = id !== name;
  }
  if (name && view !== "colours") look("colours");
  const tools = { hint: hints, gray: mask };
  stage.tool = name ? (...what) => tools[name].tool(...what) : null;
  stage.element.dataset.tool = name ?? "";
  if (name) stage.element.scrollIntoView({ block: "nearest" });
  update();
  said();
}

function look(next) {
  view = next;
  $("views").querySelector(`[value=${view}]`).checked = true;
  if (view !== "colours" && stage.tool) useTool(null);
  stage.element.dataset.view = view;
  status.said.hidden = view === "colours";
  update();
  if (view === "dark") lookDark();
  if (view === "guesses") lookGuesses();
}

async function lookDark() {
  await stage.after.image.decode().catch(() => {});
  const count = drawDark(stage.whole, stage.after.image, photo.unseen ? null : stage.before.image);
  Object.assign(stage.whole.dataset, { dark: count.dark, false: count.false });
  stage.whole.setAttribute("aria-label", `Dark regions brightened; ${count.false} of ${count.dark} pixels have a false colour`);
  const { dark_share: share, false_color: wrong, dark_chroma: chroma } = photo.result.measures;
  say(status.said, share ? `${percent(share)} of the photo is almost black (L* under 15); ${percent(wrong)} of that has a false colour, marked in pink. Mean chroma there: ${chroma.toFixed(1)}.` : "No pixel is almost black (L* under 15).");
}

async function lookGuesses() {
  const mapUrl = (photo.result.mapUrl ? photo.result : photo.results.findLast((one) => one.mapUrl && one.model === photo.result.model))?.mapUrl;
  if (!mapUrl) {
    stage.whole.width = stage.whole.height = 1;
    status.said.replaceChildren("A single colouring does not show where it guesses. ", h("button", { type: "button", onclick: () => album.ask(photo, { samples: 1, average: AGREEING }) }, "Draw four"));
    return;
  }
  const image = h("img", { src: mapUrl });
  await image.decode();
  const share = drawVeil(stage.whole, image);
  stage.whole.setAttribute("aria-label", `Where colours are guesses: ${percent(share)} on average`);
  say(status.said, "Orange: the colourings disagree here, so the colour is a guess. Gray: they agree.");
}

function strength(next, live = false) {
  photo.strength = next;
  say($("strength-said"), next.toFixed(2));
  stage.after.blend(next, live);
  if (photo.against && view === "colours") stage.before.blend(next, live);
}

async function download() {
  try {
    const { file, stem, ending } = await photo.download();
    save(file, `${stem}-coloured.${ending}`);
  } catch (error) {
    toast(error.message);
  }
}

async function copy() {
  if (!photo?.result) return;
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": encoded(photo.result.file, photo.strength, "image/png") })]);
    toast("The picture is on the clipboard.");
  } catch {
    toast("This browser does not let pages copy pictures: download it instead.");
  }
}

function key(event) {
  if (!photo || event.ctrlKey || event.metaKey || event.altKey || isField(event.target) || event.target.closest("dialog")) return;
  const arrows = event.target.matches("input[type=range], input[type=radio]");
  const acts = {
    "+": () => stage.zoom(1.4), "=": () => stage.zoom(1.4), "-": () => stage.zoom(1 / 1.4), 0: () => stage.fit(), 1: () => stage.full(),
    f: () => $("screen").click(), g: () => photo.result && look(view === "guesses" ? "colours" : "guesses"), r: () => photo.result && look(view === "dark" ? "colours" : "dark"), d: () => photo.result && download(),
    b: () => stage.element.classList.add("peeking"),
    ArrowLeft: arrows ? null : () => turn(-1), ArrowRight: arrows ? null : () => turn(1),
    Escape: document.fullscreenElement ? null : () => (stage.tool ? useTool(null) : (location.hash = "#")),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
}
