// The models: a list, and all about one of them, live while it is trained.
import { get } from "./api.js";
import { chart, short } from "./chart.js";
import { $, duration, h } from "./dom.js";

const NO_LOSS = new Set(["epoch", "stage_began", "learning_rate", "photos", "seconds", "photos_per_second", "memory_mb", "gradient"]);
const NAMES = { train_loss: "training", val_loss: "validation" };
let known = [];
let chosen = null; // a name, "" for the first, null while the view is not seen
let drawn = ""; // what the details show: they are drawn anew when it changes

export function offer(models) {
  known = models;
  drawList();
  drawDetails();
}

export function turned(name) {
  chosen = name;
  drawn = "";
  drawList();
  drawDetails();
}

export function complain(text) {
  $("model-list").replaceChildren(h("p", { class: "problem", role: "alert" }, text));
}

function drawList() {
  if (chosen === null) return;
  if (!known.length) {
    $("model-list").replaceChildren(h("p", { class: "card" }, "No model yet. Make one with ", h("code", {}, "photochrom train"), " or ", h("code", {}, "photochrom demo"), ": it shows up here by itself."));
    return;
  }
  const focused = document.activeElement?.dataset?.model;
  $("model-list").replaceChildren(h("ul", { class: "models" }, known.map(entry)));
  if (focused) document.querySelector(`[data-model="${CSS.escape(focused)}"]`)?.focus();
}

const current = () => known.find((model) => model.name === chosen) ?? (chosen === "" ? known[0] : undefined);

function entry(model) {
  const facts = model.error ?? `stage ${model.stage}, epoch ${model.epoch} of ${model.epochs}${model.best_val_loss === null ? "" : `, best loss ${short(model.best_val_loss)}`}`;
  return h("li", {}, h("a", {
    class: "card", href: `#models/${encodeURIComponent(model.name)}`, "data-model": model.name, "aria-current": model === current() ? "true" : false,
  }, h("b", {}, model.name), model.training && h("span", { class: "badge" }, "training"), h("span", { class: "soft" }, facts)));
}

async function drawDetails() {
  if (chosen === null) return;
  const model = current();
  const place = $("model-details");
  if (!model) {
    place.replaceChildren(chosen ? h("p", { class: "problem" }, `There is no model ${chosen}.`) : "");
    return;
  }
  const state = JSON.stringify(model);
  if (state === drawn) return;
  drawn = state;
  try {
    const path = `models/${encodeURIComponent(model.name)}`;
    const [details, history] = await Promise.all([get(path), get(`${path}/history`)]);
    if (drawn === state) place.replaceChildren(...parts(details, history, path));
  } catch (error) {
    place.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
    drawn = "";
  }
}

function parts(model, history, path) {
  const marks = history.filter((record) => record.stage_began === record.epoch && record.epoch > history[0].epoch)
    .map((record) => ({ x: record.epoch - 0.5, name: record.stage }));
  return [
    h("h2", {}, model.name, " ", model.training && h("span", { class: "badge" }, "training")),
    model.training && live(model),
    h("div", { class: "wide" }, facts(model)),
    h("h3", {}, "Losses by epoch"),
    history.length ? h("div", { class: "charts" }, families(history).map(([title, lines]) => chart(title, lines, marks)))
      : h("p", { class: "soft" }, "They come when the first epoch is over."),
    history.length > 0 && numbers(history),
    h("h3", {}, "Samples by epoch"),
    model.samples.length ? strip(model, path) : h("p", { class: "soft" }, "None yet: they come every few epochs, and at the end."),
    h("h3", {}, "Evaluation"),
    model.evaluation && measured(model.evaluation),
    model.reports.length ? h("ul", {}, model.reports.map((report) => h("li", {}, h("a", { href: `api/${path}/reports/${encodeURIComponent(report)}`, target: "_blank" }, report))))
      : h("p", { class: "soft" }, model.evaluation ? "For a report to look at, run " : "None yet. Run ", h("code", {}, `photochrom evaluate ${model.name}`), "."),
  ].filter(Boolean);
}

const live = (model) => h("p", { class: "card live", role: "status" },
  h("progress", { max: model.epochs, value: model.epoch, "aria-label": "Epochs" }),
  ` Epoch ${Math.min(model.epoch + 1, model.epochs)} of ${model.epochs} runs`, model.seconds_left ? `, about ${duration(model.seconds_left)} left.` : ".",
  " This page follows it.");

const facts = (model) => h("dl", { class: "facts" }, Object.entries({
  stage: model.stage,
  epoch: `${model.epoch} of ${model.epochs}`,
  "best epoch": model.best_epoch === null ? "none yet" : `${model.best_epoch}, validation loss ${short(model.best_val_loss)}`,
  "goes on from": model.source,
  data: model.size ? `${model.data}, ${model.size}×${model.size}` : model.data,
  features: model.features.join(", "),
  "time steps": model.timesteps,
  weights: model.bytes ? `${(model.bytes / 1e6).toFixed(1)} MB` : "none yet",
  changed: new Date(1000 * model.changed).toLocaleString(),
}).filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));

// One chart for the sum, and one for each loss with its validation.
function families(history) {
  const names = [...new Set(history.flatMap((record) => Object.keys(record).filter((name) => typeof record[name] === "number")))];
  const losses = names.filter((name) => !NO_LOSS.has(name) && !name.startsWith("weighted_"));
  const line = (name, title) => ({ name: title, points: history.filter((record) => Number.isFinite(record[name])).map((record) => [record.epoch, record[name]]) });
  const found = [["All together", ["train_loss", "val_loss"].filter((name) => losses.includes(name)).map((name) => line(name, NAMES[name]))]];
  for (const name of losses.filter((name) => !NAMES[name] && !name.startsWith("val_"))) {
    const validation = losses.includes(`val_${name}`) ? [line(`val_${name}`, "validation")] : [];
    found.push([name.replaceAll("_", " "), [line(name, "training"), ...validation]]);
  }
  return found.filter(([, lines]) => lines.length);
}

// The figures of the last evaluation, between gray photos and true ones.
function measured(evaluation) {
  const rows = { "this model": "model", "gray, as it was": "gray", "true colours": "true" };
  const { data, date, epoch, current, measures } = evaluation;
  return h("div", {}, h("p", { class: "soft" }, `${data.photos} ${data.split} photos of ${data.name}, epoch ${epoch}, ${date}.`,
    current ? "" : " The weights have changed since."),
    h("div", { class: "wide" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "measure"), Object.keys(rows).map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, measures.map((measure) => h("tr", { title: measure.meaning }, h("th", { scope: "row" }, measure.title, measure.unit ? ` (${measure.unit})` : ""),
        Object.values(rows).map((row) => h("td", {}, measure[row] === undefined ? "" : String(measure[row])))))))));
}

function numbers(history) {
  const names = ["epoch", "stage", "train_loss", "val_loss", "learning_rate", "photos_per_second", "seconds"];
  return h("details", {}, h("summary", {}, "The numbers"), h("div", { class: "wide" }, h("table", {},
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))))),
    h("tbody", {}, history.toReversed().map((record) => h("tr", {}, names.map((name) =>
      h("td", {}, typeof record[name] === "number" ? short(record[name]) : record[name] ?? "")))))))); 
}

const strip = (model, path) => h("ol", { class: "strip", tabindex: 0, "aria-label": "Sheets of samples, to scroll through" }, model.samples.toReversed().map((epoch) => {
  const url = `api/${path}/samples/${epoch}`;
  return h("li", {}, h("a", { href: url, target: "_blank" }, h("img", { src: url, loading: "lazy", alt: `Gray, coloured and true, after epoch ${epoch}` })), h("span", { class: "soft" }, `epoch ${epoch}`));
}));
