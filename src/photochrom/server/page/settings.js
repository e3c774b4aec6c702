// How to colour: the form, its values in this browser's memory, and a link that holds them.
import { $, say, toast } from "./dom.js";

const KEPT = "photochrom-settings";
const DEFAULTS = { model: "", second: "", kind: "calm", steps: 0, seed: 0, format: "png", strength: 1 };
export const AGREEING = 4; // colourings behind calm colours: CALM of coloring/options.py
let values = { ...DEFAULTS };
let known = []; // models that can colour

export function begin() {
  values = { ...DEFAULTS, ...stored(), ...linked() };
  for (const [id, name] of [["model", "model"], ["second", "second"], ["kind", "kind"], ["format", "format"]]) {
    $(id).addEventListener("change", () => set({ [name]: $(id).value }));
  }
  $("steps").addEventListener("input", () => set({ steps: Number($("steps").value) }));
  $("seed").addEventListener("input", () => set({ seed: whole($("seed").value) }));
  $("dice").addEventListener("click", () => set({ seed: Math.floor(Math.random() * 10000) }));
  $("defaults").addEventListener("click", () => set({ ...DEFAULTS, strength: values.strength }));
  $("link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", () => location.hash.startsWith("#?") && set(linked()));
  $("options").addEventListener("submit", (event) => event.preventDefault());
  show();
}

function stored() {
  try {
    return checked(JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
  } catch {
    return {}; // storage is forbidden, or something else wrote it
  }
}

// "#?model=photochrom-v2&kind=4" in the address; read once, then remembered.
function linked() {
  if (!location.hash.startsWith("#?")) return {};
  const found = Object.fromEntries(new URLSearchParams(location.hash.slice(2)));
  history.replaceState(null, "", "#");
  return checked(found);
}

function checked(found) {
  const right = {
    model: String, second: String, kind: (kind) => (["calm", "1", "4"].includes(kind) ? kind : "calm"),
    steps: (steps) => Math.min(100, whole(steps)), seed: whole, format: (format) => (format === "jpeg" ? "jpeg" : "png"),
    strength: (strength) => Math.min(2, Math.max(0, Number(strength) || 0)),
  };
  return Object.fromEntries(Object.keys(right).filter((name) => name in found).map((name) => [name, right[name](found[name])]));
}

const whole = (text) => Math.min(2147483647, Math.max(0, Math.floor(Number(text)) || 0));

export function set(changes) {
  Object.assign(values, changes);
  try {
    localStorage.setItem(KEPT, JSON.stringify(values));
  } catch {
    // then the browser forgets them
  }
  show();
}

export const value = (name) => values[name];

// Fills the lists of models, and keeps the choice.
export function offer(models) {
  const usable = models.filter((model) => model.usable);
  const told = (list) => JSON.stringify(list.map(({ name, training, steps, about, use }) => [name, training, steps, about, use]));
  if (told(usable) === told(known)) return; // else an open list would close
  known = usable;
  const options = () => known.map((model) => new Option(model.training ? `${model.name} (in training)` : model.name, model.name));
  $("model").replaceChildren(...options());
  $("second").replaceChildren(new Option("nothing", ""), ...options());
  show();
}

const model = () => known.find((one) => one.name === values.model) ?? known[0];
export const isReady = () => known.length > 0;
export const stepsOf = (name) => known.find((one) => one.name === name)?.steps;

function show() {
  const one = model();
  $("model").value = one?.name ?? "";
  $("second").value = known.some((other) => other.name === values.second) ? values.second : "";
  for (const id of ["kind", "format"]) $(id).value = values[id];
  if (document.activeElement !== $("seed")) $("seed").value = values.seed;
  $("steps").value = values.steps || one?.steps || 20;
  say($("steps-said"), values.steps ? String(values.steps) : `${one?.steps ?? 20}, the model's own`);
  say($("about"), one ? `${one.about ?? ""} ${one.use ?? ""}` : "");
}

// The request to the server, from the form and `changes`, which win.
export function options(changes = {}) {
  const models = [...new Set([model()?.name, $("second").value])].filter(Boolean);
  const calm = values.kind === "calm";
  return {
    models, steps: values.steps || null, seed: values.seed, samples: calm ? 1 : Number(values.kind),
    average: calm ? AGREEING : 1, ...changes,
  };
}

async function copyLink() {
  const said = Object.entries({ ...values, model: model()?.name ?? "" }).filter(([name, one]) => one !== DEFAULTS[name]);
  const address = new URL(`#?${new URLSearchParams(said)}`, location.href.split("#")[0]).href;
  try {
    await navigator.clipboard.writeText(address);
    toast("The link is on the clipboard.");
  } catch {
    prompt("This browser does not let pages copy. The link:", address);
  }
}
