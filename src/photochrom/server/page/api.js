// Every request that the page makes, and the events of a job.

export class Problem extends Error {
  constructor(status, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// Answers the response, or throws a Problem with a sentence for the person.
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let detail = `The server answered ${response.status}.`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // an answer that something between us and the server gave
  }
  throw new Problem(response.status, sentence(detail), Number(response.headers.get("Retry-After") ?? 0));
}

export const get = async (path, options) => (await ask(path, options)).json();
export const getBlob = async (path, options) => (await ask(path, options)).blob();

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// Creates a job and follows it to its end; onTask hears of every step. Answers the job's status.
export async function colour(form, onTask, signal) {
  const job = await get("jobs", { method: "POST", body: form, signal });
  const done = await follow(job.id, onTask, signal);
  if (!done) throw new Problem(0, "The connection to the server broke off.");
  return done;
}

export const forget = (id) => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});

// Reads server-sent events by hand, as EventSource cannot be aborted in time and begins anew by itself.
async function follow(id, onTask, signal) {
  const response = await ask(`jobs/${id}/events`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return null;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const [, name, data] = event.match(/^event: (\w+)\ndata: (.*)$/s);
      if (name === "done") return JSON.parse(data);
      onTask(JSON.parse(data));
    }
  }
}
