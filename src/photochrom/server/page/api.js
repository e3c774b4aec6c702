// All requests of the page, and the events of a job.

const COME_BACK = 5; // attempts to follow a job again after its events broke off
export const GONE = "The server does not answer. Start it again with photochrom serve; your photos wait here.";

export class Problem extends Error {
  constructor(status, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// Returns the response, or throws a Problem with a sentence for the user.
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, GONE);
  }
  if (response.ok) return response;
  let detail = `The server answered ${response.status}; its log may say why.`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // a proxy answered, not the server
  }
  if (response.status === 401) detail = "The server needs a key. Give it, then press Try again.";
  throw new Problem(response.status, sentence(detail), Number(response.headers.get("Retry-After") ?? 0));
}

export const get = async (path, options) => (await ask(path, options)).json();
export const getBlob = async (path, options) => (await ask(path, options)).blob();
export const forget = (id) => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export const pause = (seconds, signal) => new Promise((resolve, reject) => {
  setTimeout(resolve, 1000 * seconds);
  signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
});

// Creates a job and follows it to its end. Calls onTask at every step. Returns the job's status.
export async function colour(form, onTask, signal) {
  const job = await get("jobs", { method: "POST", body: form, signal });
  signal.addEventListener("abort", () => forget(job.id), { once: true }); // else the server would wait for us to return
  let last = "";
  for (let broken = 0; broken < COME_BACK; broken += 1) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await ask(`jobs/${job.id}/events`, { signal, headers });
      for await (const event of events(response)) {
        last = event.id ?? last;
        broken = 0;
        if (event.event === "done") return JSON.parse(event.data);
        if (event.event === "task") onTask(JSON.parse(event.data));
      }
    } catch (error) {
      if (broken && error.status === 404) throw new Problem(0, GONE); // it has restarted, and no longer knows the job
      if (error.name === "AbortError" || error.status) throw error;
    }
    await pause(1, signal);
  }
  throw new Problem(0, GONE);
}

// Reads server-sent events by hand: EventSource cannot be aborted in time, and reconnects by itself.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => line.match(/^(\w+): ?(.*)$/)).filter(Boolean); // skips heartbeats
      yield Object.fromEntries(lines.map(([, name, content]) => [name, content]));
    }
  }
}
