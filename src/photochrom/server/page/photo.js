// One photo: its state, its results and its hints. It draws nothing; its event "change" tells those who do.
import { colour, forget, getBlob, pause, Problem } from "./api.js";
import { duration } from "./dom.js";
import { encoded, thumbnail } from "./pixels.js";
import { stepsOf, value } from "./settings.js";

const RETRIES = 20; // while the server is busy and says when to try again
const MOST_RESULTS = 24;
let made = 0;

export class Photo extends EventTarget {
  constructor(file) {
    super();
    this.number = (made += 1);
    this.file = file;
    this.name = file.name || "pasted photo.png";
    this.url = URL.createObjectURL(file);
    this.state = "waiting"; // running, done, failed, cancelled
    this.words = "waiting";
    this.share = null; // of the work done so far; null: unknown
    this.previews = []; // by model, while it is being coloured
    this.results = [];
    this.result = null; // the result to show
    this.against = null; // left of the line: another result, or null for the original photo
    this.strength = value("strength");
    this.hints = []; // {x, y, color, name}
    this.mask = null; // a blob, white where the photo stays gray
    this.like = null; // a file
    this.thumb = null; // a small picture, before or after colouring
  }

  tell(changes = {}) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }

  get isBusy() {
    return this.state === "running" || this.state === "waiting";
  }

  // Seconds since colouring began; null while it waits.
  get seconds() {
    return this.state === "running" && this.began ? (performance.now() - this.began) / 1000 : null;
  }

  wait(changes = {}) {
    this.wanted = changes;
    this.tell({ state: "waiting", words: "waiting", share: null });
  }

  // Colours the photo. Never throws: `state` and `problem` say what happened.
  async run(options) {
    this.abort = new AbortController();
    this.began = null;
    this.previews = [];
    this.tell({ state: "running", words: "waiting for its turn", share: null, problem: null });
    try {
      await this.colour(options);
      this.tell({ state: "done", words: "" });
    } catch (error) {
      if (!(error instanceof Problem) && error.name !== "AbortError") console.error(error);
      this.failed(error);
    }
  }

  failed(error) {
    const cancelled = error.name === "AbortError";
    this.lost = error.status === 0 || error.status === 401; // worth trying again once the server or the key is back
    this.tell({ state: cancelled ? "cancelled" : "failed", words: "", previews: [], problem: cancelled ? "Cancelled. Colour again when you like." : error.message });
  }

  cancel() {
    if (this.state === "running") this.abort.abort(new DOMException("cancelled", "AbortError"));
    else if (this.state === "waiting") this.failed(new DOMException("cancelled", "AbortError"));
  }

  async colour(options) {
    const { signal } = this.abort;
    const job = await this.patiently(() => {
      this.heardOf = new Map();
      return colour(this.form(options), (task) => this.heard(task, options), signal);
    });
    const failed = job.tasks.find((task) => task.state !== "done");
    if (failed) throw new Problem(failed.problem?.status ?? 0, capital(failed.problem?.detail ?? "the server gave up on this photo. Colour it again"));
    this.tell({ words: "fetching" });
    const found = await Promise.all(job.tasks.map(async (status, task) => {
      const fetched = Array.from({ length: status.pictures }, (_, picture) => getBlob(`jobs/${job.id}/tasks/${task}/pictures/${picture}`, { signal }));
      const files = await Promise.all(fetched);
      const map = several(options) ? files.pop() : null;
      return Promise.all(files.map((file, sample) => this.newResult(file, map, status, options, sample)));
    }));
    forget(job.id);
    this.took(found);
  }

  async newResult(file, map, status, options, sample) {
    const { sampled = 0, finished = 0 } = status.timings;
    return {
      file, url: URL.createObjectURL(file), thumb: await thumbnail(file), mapUrl: map && URL.createObjectURL(map),
      model: status.model, calm: options.average > 1, average: options.average, seed: options.seed + sample, steps: options.steps ?? stepsOf(status.model),
      seconds: sampled + finished, measures: status.measures[sample], hinted: this.hints.length > 0,
    };
  }

  took(found) {
    this.results.push(...found.flat());
    this.result = found[0][0];
    this.against = found[1]?.[0] ?? null;
    while (this.results.length > MOST_RESULTS) forgetResult(this.results.shift());
    this.previews = [];
    this.drawThumb();
  }

  show(result, against = this.against) {
    this.tell({ result, against: against === result ? null : against });
    this.drawThumb();
  }

  async drawThumb() {
    const result = this.result;
    const asMade = result && this.strength === 1;
    const own = asMade ? null : await thumbnail(result?.file ?? this.file, result ? this.strength : 1).catch(() => null);
    if (this.ownThumb) URL.revokeObjectURL(this.ownThumb);
    this.ownThumb = own;
    this.tell({ thumb: asMade ? result.thumb : own });
  }

  form(options) {
    const form = new FormData();
    form.append("photo", this.file, this.name);
    for (const model of options.models) form.append("model", model);
    for (const name of ["seed", "samples", "average"]) form.append(name, options[name]);
    form.append("uncertainty", several(options)); // so that the view of guesses needs no new request
    if (options.steps) form.append("steps", options.steps); // else each model's own
    for (const hint of this.hints) form.append("hint", `${hint.x},${hint.y},${hint.color}`);
    if (this.mask) form.append("keep_gray", this.mask, "mask.png");
    if (this.like) form.append("like", this.like, this.like.name);
    return form;
  }

  // Tries again while the server is busy and says when to.
  async patiently(attempt) {
    for (let left = RETRIES; ; left -= 1) {
      try {
        return await attempt();
      } catch (error) {
        if (error.status !== 503 || !error.retryAfter || !left) throw error;
        this.tell({ words: `the server is busy: trying again in ${error.retryAfter} s`, share: null });
        await pause(error.retryAfter, this.abort.signal);
      }
    }
  }

  heard(task, options) {
    this.heardOf.set(task.task, task);
    const all = [...this.heardOf.values()];
    const running = all.find((one) => one.state === "running");
    if (running) this.began ??= performance.now();
    if (task.preview) this.previews[task.task] = `data:image/png;base64,${task.preview}`;
    const share = all.reduce((sum, one) => sum + (one.state === "done" ? 1 : one.step / (one.steps || 1)), 0) / options.models.length;
    this.tell({ share: share || null, words: running ? stepWords(running, options) : this.began ? "finishing" : "waiting for its turn" });
  }

  // The picture as a file, at its strength, and its name.
  async download(format = value("format"), result = this.result) {
    const file = await encoded(result.file, this.strength, `image/${format}`);
    return { file, stem: this.name.replace(/\.[^.]*$/, ""), ending: format === "jpeg" ? "jpg" : "png" };
  }

  letGo() {
    this.cancel();
    this.results.forEach(forgetResult);
    for (const url of [this.url, this.ownThumb]) if (url) URL.revokeObjectURL(url);
  }
}

const several = (options) => options.samples > 1 || options.average > 1;
const capital = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function forgetResult(result) {
  for (const url of [result.url, result.mapUrl, result.thumb]) if (url) URL.revokeObjectURL(url);
}

// "photochrom-v2: step 3 of 20". A large photo is coloured in several parts, of as many steps each.
function stepWords(task, options) {
  if (!task.step) return `${task.model}: reading the photo`;
  const each = options.steps ?? stepsOf(task.model) ?? task.steps;
  const goes = Math.max(1, Math.round(task.steps / each));
  const go = Math.min(goes, Math.floor((task.step - 1) / each) + 1);
  const part = goes > 1 ? `part ${go} of ${goes}, ` : "";
  return `${task.model}: ${part}step ${task.step - (go - 1) * each} of ${each}`;
}

export const title = (result) => `${result.model}, ${result.calm ? "calm" : `seed ${result.seed}`}`;
export const facts = (result) => [
  ...(result.calm ? [`what ${result.average} colourings agree on`] : []),
  `${result.steps} steps`, `${duration(result.seconds)} of work`, `colourfulness ${result.measures.colorfulness.toFixed(0)}`,
].join(", ");
