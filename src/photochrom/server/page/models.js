// The models: their quality at a glance, a list, and the details of one, live while it trains.
import { get } from "./api.js";
import { chart, dots, short } from "./chart.js";
import { $, duration, h } from "./dom.js";

// Losses, by their names in the history.
const LOSSES = { train_loss: "All together", noise: "Noise", perceptual: "Perceptual", adversarial: "Adversarial", generator: "Generator", discriminator: "Discriminator" };
const LASTING = "[id]"; // elements that keep focus, scroll and open state when data changes
let known = [];
let chosen = null; // a name, "" for the first, null while another view is open
let asked = false; // whether the user has just chosen the model
let drawn = ""; // what the details show; drawn again when it changes

export function offer(models) {
  known = models;
  draw();
}

export function turned(name) {
  chosen = name;
  asked = Boolean(name);
  drawn = "";
  draw();
}

const current = () => known.find((model) => model.name === chosen) ?? (chosen === "" ? known[0] : undefined);

function draw() {
  if (chosen === null) return;
  renew($("glance"), [glance(known)]);
  renew($("model-list"), [known.length > 0 && h("ul", { class: "models" }, known.map(entry), !known.some((model) => !model.shipped) && train())]);
  drawDetails();
}

// Replaces elements that differ, and keeps the reader's place.
function renew(place, parts) {
  const fresh = parts.filter(Boolean);
  while (place.childElementCount > fresh.length) place.lastElementChild.remove();
  fresh.forEach((part, number) => {
    const old = place.children[number];
    if (!old) return place.append(part);
    for (const one of [old, ...old.querySelectorAll(LASTING)].filter((one) => one.id && one.open)) part.querySelector(`#${CSS.escape(one.id)}`)?.setAttribute("open", "");
    if (old.outerHTML === part.outerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll(LASTING)].map((one) => [one.id, one.scrollLeft]);
    old.replaceWith(part);
    for (const [id, left] of scrolled) if (left && $(id)) $(id).scrollLeft = left;
    if (focused) $(focused)?.focus({ preventScroll: true });
  });
}

// Side by side: the models that were measured on the same photos.
function glance(models) {
  const first = models.find((model) => model.quality)?.quality;
  if (!first) return null;
  const rows = models.filter((model) => model.quality?.data === first.data);
  const figures = (measure) => rows.map((model) => ({ name: model.name, ...model.quality[measure] }));
  return h("div", {}, h("div", { class: "charts" },
    dots("Colour error, CIEDE2000: less is better", figures("ciede2000"), { name: "all gray", value: first.gray }),
    dots("Colourfulness: nearest to true is best", figures("colorfulness"), { name: "true", value: first.true }),
    dots("Error in the dark, ΔE: less is better", figures("dark_error"))),
  h("p", { class: "soft" }, `On ${first.data}, with 95 % intervals. If intervals overlap, the test does not show which model is better. Pale colours make small errors, so compare models of similar colourfulness.`));
}

function entry(model) {
  const facts = model.training || !model.usable ? `Stage ${model.stage}, epoch ${model.epoch} of ${model.epochs}.` : "";
  return h("li", {}, h("a", { class: "card", id: `to-model-${model.name}`, href: `#models/${encodeURIComponent(model.name)}`, "aria-current": model === current() ? "true" : false },
    h("b", {}, model.name), model.training && h("span", { class: "badge" }, "training"),
    model.error ? h("p", { class: "soft" }, model.error) : [h("p", {}, model.about, " ", facts), h("p", { class: "soft" }, model.use)]));
}

const train = () => h("li", {}, h("div", { class: "card" }, h("b", {}, "Train your own"),
  h("p", {}, h("code", {}, "photochrom data import ~/Pictures --name mine"), h("br"), h("code", {}, "photochrom train"), " asks what it needs to know."),
  h("p", { class: "soft" }, "It appears here at once, and you can watch it learn.")));

async function drawDetails() {
  const model = current();
  const place = $("model-details");
  if (!model) {
    renew(place, [chosen && known.length && h("p", { class: "problem" }, `There is no model ${chosen}.`)]);
    return;
  }
  const state = JSON.stringify(model);
  if (state === drawn) return;
  drawn = state;
  try {
    const path = `models/${encodeURIComponent(model.name)}`;
    const [details, history] = await Promise.all([get(path), get(`${path}/history`)]);
    if (drawn !== state) return;
    renew(place, parts(details, history, path));
    if (asked && place.getBoundingClientRect().top > 0.7 * innerHeight) place.scrollIntoView();
    asked = false;
  } catch (error) {
    renew(place, [h("p", { class: "problem", role: "alert" }, error.message)]);
    drawn = "";
  }
}

const section = (title, ...content) => h("div", {}, h("h3", {}, title), ...content);

function parts(model, history, path) {
  const marks = history.filter((record) => record.stage_began === record.epoch).map((record) => ({ x: record.epoch - 0.5, name: record.stage }));
  const evaluate = [" Run ", h("code", {}, `photochrom evaluate ${model.name}`), "."];
  const reports = model.reports.map((report) => h("li", {}, h("a", { id: `report-${report}`, href: `api/${path}/reports/${encodeURIComponent(report)}`, target: "_blank" }, report)));
  return [
    h("h2", {}, model.name, " ", model.training && h("span", { class: "badge" }, "training")),
    h("p", { class: "soft" }, `${model.about} ${model.use}`),
    model.training && live(model),
    facts(model),
    section("Losses by epoch", history.length ? h("div", { class: "charts" }, families(history).map(([title, lines]) => chart(title, lines, marks)))
      : h("p", { class: "soft" }, "They appear after the first epoch.")),
    history.length > 0 && numbers(history),
    model.samples.length ? section("Samples by epoch", strip(model, path))
      : model.training && section("Samples by epoch", h("p", { class: "soft" }, "They appear every few epochs and at the end.")),
    section("Evaluation", model.evaluation ? measured(model.evaluation) : "", reports.length ? h("ul", {}, reports)
      : h("p", { class: "soft" }, model.evaluation ? "For a report with pictures:" : "Not evaluated yet.", ...evaluate)),
  ];
}

const live = (model) => h("p", { class: "card live", role: "status" },
  h("progress", { max: model.epochs, value: model.epoch, "aria-label": "Epochs" }),
  ` Epoch ${Math.min(model.epoch + 1, model.epochs)} of ${model.epochs} is running`, model.seconds_left ? `, about ${duration(model.seconds_left)} left.` : ".",
  " This page updates itself.");

const facts = (model) => h("dl", { class: "facts" }, Object.entries({
  stage: model.stage,
  epoch: `${model.epoch} of ${model.epochs}`,
  "best epoch": model.best_epoch === null ? "none yet" : `${model.best_epoch} (validation loss ${short(model.best_val_loss)})`,
  "started from": model.source,
  data: model.size ? `${model.data}, ${model.size}×${model.size}` : model.data,
  features: model.features.join(", "),
  "time steps": model.timesteps,
  weights: model.bytes ? `${(model.bytes / 1e6).toFixed(1)} MB` : "none yet",
  changed: new Date(1000 * model.changed).toLocaleDateString(undefined, { dateStyle: "medium" }),
}).filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));

// One chart for each loss, in training and validation.
function families(history) {
  const line = (name, key) => ({ name, points: history.filter((record) => Number.isFinite(record[key])).map((record) => [record.epoch, record[key]]) });
  return Object.entries(LOSSES).map(([key, title]) => [title, [line("training", key), line("validation", key === "train_loss" ? "val_loss" : `val_${key}`)].filter((one) => one.points.length)])
    .filter(([, lines]) => lines.length);
}

// The figures of the last evaluation, beside gray and true photos.
function measured(evaluation) {
  const rows = { "this model": "model", "all gray": "gray", true: "true" };
  const { data, date, epoch, current: isCurrent, measures } = evaluation;
  return h("div", {}, h("p", { class: "soft" }, `${data.photos} ${data.split ? `${data.split} ` : ""}photos of ${data.name}, epoch ${epoch}, ${date}.`, isCurrent ? "" : " The weights have changed since."),
    h("div", { class: "wide", id: "measures", tabindex: 0, role: "group", "aria-label": "Measures" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "measure"), Object.keys(rows).map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, measures.map((measure) => h("tr", { title: measure.meaning }, h("th", { scope: "row" }, measure.title, measure.unit ? ` (${measure.unit})` : ""),
        Object.values(rows).map((row) => h("td", {}, measure[row] === undefined ? "" : String(measure[row])))))))));
}

function numbers(history) {
  const names = ["epoch", "stage", "train_loss", "val_loss", "learning_rate", "photos_per_second", "seconds"];
  return h("div", {}, h("details", { id: "numbers" }, h("summary", { id: "numbers-title" }, "The numbers"), h("div", { class: "wide", id: "numbers-table", tabindex: 0, role: "group", "aria-label": "The numbers of each epoch" }, h("table", {},
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))))),
    h("tbody", {}, history.toReversed().map((record) => h("tr", {}, names.map((name) =>
      h("td", {}, typeof record[name] === "number" ? short(record[name]) : record[name] ?? "")))))))));
}

const strip = (model, path) => h("ol", { class: "strip", id: "strip", tabindex: 0, "aria-label": "Sheets of samples, to scroll through" }, model.samples.toReversed().map((epoch) => {
  const url = `api/${path}/samples/${epoch}`;
  return h("li", {}, h("a", { id: `sheet-${epoch}`, href: url, target: "_blank" }, h("img", { src: url, loading: "lazy", alt: `Gray, coloured and true, after epoch ${epoch}` })), h("span", { class: "soft" }, `epoch ${epoch}`));
}));
