// One photo: its progress, its results by one model or two, its samples and hints, its errors.
import { colour, forget, getBlob, Problem } from "./api.js";
import { duration, h, percent } from "./dom.js";
import { Stage } from "./stage.js";

const VIEWS = { colours: "Colours", dark: "Dark regions", uncertainty: "Guesses" };
const RETRIES = 20; // when the server says that it is busy, and when to come again
let made = 0;

export class Photo {
  // ask(photo) queues it for colouring; removed(photo) and changed() tell the list.
  constructor(file, { ask, removed, changed }) {
    this.number = (made += 1);
    this.file = file;
    this.name = file.name || "pasted photo";
    this.url = URL.createObjectURL(file);
    this.hints = [];
    this.results = []; // {model, files: [Blob], urls: [...], map, status}
    this.state = "waiting";
    this.view = "colours";
    this.changed = changed;
    this.ask = () => ask(this);
    this.build(() => removed(this));
  }

  build(remove) {
    this.stages = h("div", { class: "stages" });
    this.bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${this.name}` });
    this.said = h("span", { role: "status" });
    this.cancelButton = h("button", { type: "button", onclick: () => this.cancel() }, "Cancel");
    this.progress = h("div", { class: "progress" }, this.bar, this.said, this.cancelButton);
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.views = h("fieldset", { class: "tabs" }, h("legend", { class: "hidden" }, "What to look at"),
      Object.entries(VIEWS).map(([view, title]) => h("label", {},
        h("input", { type: "radio", name: `view-${this.number}`, value: view, checked: view === "colours", onchange: () => this.look(view) }),
        h("span", {}, title))));
    this.colorInput = h("input", { type: "color", value: "#b03030", "aria-label": "Colour of the hint" });
    this.hintButton = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggleHints() }, "Colour hint");
    this.hintList = h("ul", { class: "hint-list", "aria-label": "Colour hints" });
    this.againButton = h("button", { type: "button", onclick: () => this.ask() }, "Colour again");
    this.tools = h("div", { class: "tools", hidden: true }, this.views,
      h("span", { class: "row" }, this.hintButton, this.colorInput), this.hintList, this.againButton);
    this.element = h("li", { class: "card photo" },
      h("div", { class: "title" }, h("h2", {}, this.name),
        h("button", { type: "button", class: "quiet", "aria-label": `Remove ${this.name}`, title: "Remove", onclick: remove }, "✕")),
      this.stages, this.progress, this.problem, this.tools);
  }

  // Colours it as the options say; never throws, and leaves what happened in `state`.
  async run(options) {
    this.state = "running";
    this.abort = new AbortController();
    this.problem.hidden = true;
    this.toggleHints(false);
    this.element.setAttribute("aria-busy", "true");
    this.show(options.models);
    this.tell(0, "waiting for its turn");
    this.progress.hidden = false;
    const begun = performance.now();
    try {
      await this.colour(options, begun);
      this.state = "done";
      this.tools.hidden = false;
    } catch (error) {
      this.failed(error);
    }
    this.progress.hidden = true;
    this.element.removeAttribute("aria-busy");
    this.changed();
  }

  async colour(options, begun) {
    const job = await this.patiently(() => colour(this.form(options), (task) => this.heard(task, begun), this.abort.signal));
    const failed = job.tasks.find((task) => task.state !== "done");
    if (failed) throw new Problem(failed.problem?.status ?? 0, failed.problem?.detail ?? "It was cancelled.");
    this.tell(1, "fetching");
    const results = await Promise.all(job.tasks.map(async (status, task) => {
      const fetched = Array.from({ length: status.pictures }, (_, picture) =>
        getBlob(`jobs/${job.id}/tasks/${task}/pictures/${picture}`, { signal: this.abort.signal }));
      const files = await Promise.all(fetched);
      const map = options.uncertainty ? files.pop() : null;
      return { model: status.model, status, files, map, options, seconds: (performance.now() - begun) / 1000 };
    }));
    forget(job.id);
    this.letGo();
    this.results = results;
    for (const result of results) {
      result.urls = result.files.map((file) => URL.createObjectURL(file));
      result.mapUrl = result.map && URL.createObjectURL(result.map);
    }
    this.draw();
  }

  form(options) {
    const form = new FormData();
    form.append("photo", this.file, this.name);
    for (const model of options.models) form.append("model", model);
    for (const name of ["seed", "strength", "samples", "average", "uncertainty"]) form.append(name, options[name]);
    if (options.steps) form.append("steps", options.steps); // else as many as each model wants
    for (const hint of this.hints) form.append("hint", `${hint.x},${hint.y},${hint.color}`);
    return form;
  }

  // Tries again when the server is busy and says for how long.
  async patiently(attempt) {
    for (let left = RETRIES; ; left -= 1) {
      try {
        return await attempt();
      } catch (error) {
        if (error.status !== 503 || !error.retryAfter || !left) throw error;
        this.tell(0, `the server is busy, trying again in ${error.retryAfter} s`);
        await new Promise((resolve, reject) => {
          setTimeout(resolve, 1000 * error.retryAfter);
          this.abort.signal.addEventListener("abort", () => reject(this.abort.signal.reason), { once: true });
        });
      }
    }
  }

  heard(task, begun) {
    this.heardOf ??= new Map();
    this.heardOf.set(task.task, task);
    if (task.preview) this.stageOf[task.task]?.preview(task.preview);
    const all = [...this.heardOf.values()];
    const done = all.reduce((sum, one) => sum + (one.state === "done" ? 1 : one.step / one.steps), 0) / all.length;
    const running = all.find((one) => one.state === "running");
    const seconds = duration((performance.now() - begun) / 1000);
    const text = running ? `${running.model}: step ${running.step} of ${running.steps}, ${seconds}` : done ? `${seconds}` : "waiting for its turn";
    this.tell(done, text);
  }

  tell(done, text) {
    this.bar.value = done;
    this.said.textContent = text;
  }

  failed(error) {
    const cancelled = error.name === "AbortError";
    this.state = cancelled ? "cancelled" : "failed";
    if (this.results.length) this.draw(); // what was there before
    else this.stages.replaceChildren(h("figure", {}, this.gray()));
    this.problem.replaceChildren(cancelled ? "Cancelled. " : `${error.message} `,
      h("button", { type: "button", onclick: () => this.ask() }, "Try again"));
    this.problem.classList.toggle("mild", cancelled);
    this.problem.hidden = false;
    if (!(error instanceof Problem) && !cancelled) console.error(error);
  }

  gray() {
    const image = h("img", { class: "plain", src: this.url, alt: `${this.name}, not coloured` });
    image.addEventListener("load", () => this.element.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight));
    image.addEventListener("error", () => image.remove());
    return image;
  }

  cancel() {
    if (this.state === "running") this.abort.abort();
    else if (this.state === "waiting") {
      this.progress.hidden = true;
      this.failed(new DOMException("cancelled", "AbortError"));
      this.changed();
    }
  }

  wait() {
    this.state = "waiting";
    this.problem.hidden = true;
    this.progress.hidden = false;
    this.tell(0, "waiting for its turn");
    if (!this.stages.childElementCount) this.stages.replaceChildren(h("figure", {}, this.gray()));
  }

  // One empty stage for each model, in which the previews appear.
  show(models) {
    this.heardOf = new Map();
    this.stageOf = models.map((model) => new Stage(this, model, (value) => this.slide(value), (x, y) => this.addHint(x, y)));
    this.stages.replaceChildren(...models.map((model, place) =>
      h("figure", {}, this.stageOf[place].element, h("figcaption", {}, h("b", {}, model)))));
  }

  draw() {
    this.show(this.results.map((result) => result.model));
    this.results.forEach((result, place) => {
      const stage = this.stageOf[place];
      const caption = stage.element.nextElementSibling;
      const download = h("a", { class: "button" }, "Download");
      const facts = h("span", { class: "soft facts" });
      const pick = (sample) => {
        stage.show(result.urls[sample]);
        download.href = result.urls[sample];
        download.download = this.fileName(result, sample);
        const { seed, average, steps, stepsOf } = result.options;
        const drawn = average > 1 ? `what ${average} colourings agree on` : `seed ${seed + sample}`;
        const measures = result.status.measures[sample];
        facts.replaceChildren(
          h("span", {}, `${drawn}, ${steps ?? stepsOf[result.model]} steps, ${duration(result.seconds)}, colourfulness ${measures.colorfulness.toFixed(0)}`),
          h("span", { class: "dark-figure" }, darkFigure(measures)),
          h("span", { class: "map-legend" }, "White: the samples disagree, so the colour is a guess. Black: they agree."));
        this.look(this.view);
      };
      const strip = result.urls.length > 1 && h("fieldset", { class: "samples" }, h("legend", { class: "hidden" }, `Samples of ${result.model}`),
        result.urls.map((url, sample) => h("label", { title: `Sample ${sample + 1}` },
          h("input", { type: "radio", name: `sample-${this.number}-${place}`, checked: sample === 0, onchange: () => pick(sample) }),
          h("img", { src: url, alt: `Sample ${sample + 1}, seed ${result.options.seed + sample}` }))));
      caption.replaceChildren(h("span", { class: "row" }, h("b", {}, result.model), download), facts, ...(strip ? [strip] : []));
      stage.before.addEventListener("load", () => this.drawHints());
      stage.after.addEventListener("load", () => this.drawHints());
      pick(0);
    });
    const map = this.results.some((result) => result.mapUrl);
    const guesses = this.views.querySelector('[value="uncertainty"]');
    guesses.parentElement.hidden = !map;
    if (!map && this.view === "uncertainty") this.views.querySelector('[value="colours"]').click();
    this.tools.hidden = false;
    this.look(this.view);
  }

  look(view) {
    this.view = view;
    this.element.dataset.view = view;
    if (view !== "colours") this.toggleHints(false);
    this.results.forEach((result, place) => this.stageOf[place]?.view(view, result.mapUrl).catch(() => {}));
  }

  slide(value) {
    for (const stage of this.stageOf) stage.slide(value);
  }

  toggleHints(on = this.hintButton.getAttribute("aria-pressed") === "false") {
    if (on && this.view !== "colours") this.views.querySelector('[value="colours"]').click();
    this.hintButton.setAttribute("aria-pressed", on);
    for (const stage of this.stageOf ?? []) stage.hinting(on);
    this.drawHints();
  }

  addHint(x, y) {
    this.hints.push({ x, y, color: this.colorInput.value });
    this.drawHints();
  }

  drawHints() {
    const remove = (hint) => {
      this.hints = this.hints.filter((one) => one !== hint);
      this.drawHints();
      this.hintButton.focus();
    };
    for (const stage of this.stageOf ?? []) if (stage.size()[0]) stage.drawHints(this.hints, remove);
    this.hintList.replaceChildren(...this.hints.map((hint) => {
      const patch = h("span", { class: "patch" });
      patch.style.backgroundColor = hint.color;
      return h("li", {}, patch, `${hint.x}, ${hint.y}`,
        h("button", { type: "button", class: "quiet", "aria-label": `Remove the hint at ${hint.x}, ${hint.y}`, onclick: () => remove(hint) }, "✕"));
    }));
    this.againButton.classList.toggle("primary", this.hints.length > 0);
  }

  fileName(result, sample) {
    const stem = this.name.replace(/\.[^.]*$/, "");
    const seed = result.urls.length > 1 ? `-${result.options.seed + sample}` : "";
    return `${stem}-${result.model}${seed}.png`;
  }

  // All finished pictures, for the zip.
  downloads() {
    return this.results.flatMap((result) => result.files.map((file, sample) => ({ name: this.fileName(result, sample), input: file })));
  }

  letGo() {
    for (const result of this.results) for (const url of [...result.urls, result.mapUrl]) if (url) URL.revokeObjectURL(url);
  }

  remove() {
    this.cancel();
    this.letGo();
    URL.revokeObjectURL(this.url);
    this.element.remove();
  }
}

function darkFigure(measures) {
  if (!measures.dark_share) return "no pixel is almost black (L* under 15)";
  return `${percent(measures.dark_share)} of the photo is almost black (L* under 15); ${percent(measures.false_color)} of that has a false colour (marked), mean chroma ${measures.dark_chroma.toFixed(1)}`;
}
