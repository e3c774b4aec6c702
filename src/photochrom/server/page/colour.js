// The form, the photos, and which of them is at work.
import { $ } from "./dom.js";
import { Photo } from "./photo.js";

const AT_ONCE = 4; // jobs; more would only wait at the server
const CALM = 4; // colourings that calm colours are to agree with
let photos = [];
let stepsOf = {}; // by model, until somebody moves the slider
let stepsChosen = false;

export function begin() {
  $("choose").addEventListener("change", chosen);
  $("take").addEventListener("change", chosen);
  $("example").addEventListener("click", example);
  $("options").addEventListener("submit", (event) => { event.preventDefault(); photos.forEach(ask); });
  $("cancel-all").addEventListener("click", () => photos.forEach((photo) => photo.cancel()));
  $("clear").addEventListener("click", () => [...photos].forEach(removed));
  $("zip").addEventListener("click", zip);
  $("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 10000); });
  for (const id of ["steps", "strength", "samples"]) $(id).addEventListener("input", () => said(id));
  $("steps").addEventListener("input", () => { stepsChosen = true; });
  $("model").addEventListener("change", suggestSteps);
  $("uncertainty").addEventListener("change", () => {
    if ($("uncertainty").checked && colourings() < 2) $("samples").value = CALM;
    said("samples");
    fitTogether();
  });
  for (const id of ["samples", "calm"]) $(id).addEventListener("input", fitTogether);
  document.addEventListener("paste", (event) => add(event.clipboardData?.files ?? []));
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); add(event.dataTransfer.files); });
  window.addEventListener("pagehide", () => photos.forEach((photo) => photo.cancel()));
  ["steps", "strength", "samples"].forEach(said); // a browser may remember what was set
  fitTogether();
}

// Fills the two lists of models, keeping what is chosen.
export function offer(models) {
  const usable = models.filter((model) => model.usable);
  for (const [select, none] of [[$("model"), null], [$("second"), "nothing"]]) {
    const before = select.value;
    const names = usable.map((model) => new Option(model.training ? `${model.name} (in training)` : model.name, model.name));
    select.replaceChildren(...(none ? [new Option(none, "")] : []), ...names);
    if ([...select.options].some((option) => option.value === before)) select.value = before;
  }
  stepsOf = Object.fromEntries(usable.map((model) => [model.name, model.steps]));
  suggestSteps();
  if (!usable.length) complain("There is no model yet. Make one with photochrom train, or photochrom demo; it shows up here by itself.");
  else if ($("problem").textContent) complain("");
  changed(); // photos may have waited for the first model
}

// Shows how many steps the chosen model takes by itself.
function suggestSteps() {
  if (stepsChosen || !stepsOf[$("model").value]) return;
  $("steps").value = stepsOf[$("model").value];
  said("steps");
}

// How many colourings of a photo are drawn.
function colourings() {
  const samples = Number($("samples").value);
  return samples === 1 && $("calm").checked ? CALM : samples;
}

function fitTogether() {
  $("calm").disabled = Number($("samples").value) > 1;
  if (colourings() < 2) $("uncertainty").checked = false;
}

function said(id) {
  const value = $(id).value;
  document.querySelector(`output[for="${id}"]`).textContent = id === "strength" ? Number(value).toFixed(1) : value;
}

function complain(text) {
  if ($("problem").textContent !== text) $("problem").textContent = text;
}

function chosen(event) {
  add(event.target.files);
  event.target.value = ""; // so that the same photo can be chosen again
}

function add(files) {
  for (const file of files) {
    const photo = new Photo(file, { ask, removed, changed });
    photos.unshift(photo);
    $("photos").prepend(photo.element);
    ask(photo);
  }
  photos[0]?.element.scrollIntoView({ block: "nearest" });
}

async function example() {
  const blob = await (await fetch("example.jpg")).blob();
  add([new File([blob], "example.jpg", { type: blob.type })]);
}

function options() {
  const models = [...new Set([$("model").value, $("second").value])].filter(Boolean);
  return {
    models,
    steps: stepsChosen ? Number($("steps").value) : null,
    stepsOf, // each model's own
    seed: Math.min(2147483647, Math.max(0, Math.floor(Number($("seed").value)) || 0)),
    strength: Number($("strength").value),
    samples: Number($("samples").value),
    average: Number($("samples").value) === 1 ? colourings() : 1,
    uncertainty: $("uncertainty").checked && colourings() > 1,
  };
}

// Queues a photo, with the options as they are when its turn comes.
function ask(photo) {
  if (photo.state === "running") return;
  photo.wait();
  changed();
}

// Puts the next photos to work, the one that waits longest first.
function changed() {
  const room = AT_ONCE - photos.filter((photo) => photo.state === "running").length;
  const waiting = photos.filter((photo) => photo.state === "waiting").reverse();
  if ($("model").value) for (const photo of waiting.slice(0, Math.max(0, room))) photo.run(options());
  show();
}

function show() {
  const count = (state) => photos.filter((photo) => photo.state === state).length;
  const busy = count("running") + count("waiting");
  const failed = count("failed");
  $("all").hidden = !photos.length;
  $("cancel-all").hidden = !busy;
  $("zip").disabled = !photos.some((photo) => photo.results.length);
  $("count").textContent = `${count("done")} of ${photos.length} coloured${failed ? `, ${failed} failed` : ""}`;
  $("drop").classList.toggle("compact", photos.length > 0);
}

function removed(photo) {
  photos = photos.filter((one) => one !== photo);
  photo.remove();
  changed();
}

async function zip() {
  const { downloadZip } = await import("./vendor/client-zip.js");
  const taken = new Set();
  const files = photos.flatMap((photo) => photo.downloads()).map(({ name, input }) => {
    let free = name;
    for (let n = 2; taken.has(free); n += 1) free = name.replace(/\.png$/, ` (${n}).png`);
    taken.add(free);
    return { name: free, input };
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await downloadZip(files).blob());
  link.download = "photochrom.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
