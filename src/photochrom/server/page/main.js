// Starts the page, switches between views, asks for the key, and polls the server's list of models.
import * as album from "./album.js";
import { get, GONE } from "./api.js";
import { $, say } from "./dom.js";
import * as models from "./models.js";
import * as settings from "./settings.js";
import * as start from "./start.js";
import * as viewer from "./viewer.js";

const EVERY = 5000; // milliseconds
const KEY_COOKIE = "photochrom-key";
let keyTried = false;
let keyLater = false;

async function look() {
  try {
    const list = await get("models");
    settings.offer(list);
    models.offer(list);
    $("live").hidden = !list.some((model) => model.training);
    if ($("key-dialog").open) $("key-dialog").close();
    keyTried = false;
    banner(settings.isReady() ? "" : "There is no model yet. Make one with photochrom train or photochrom demo; it will appear here.");
    if (settings.isReady()) album.retryLost();
    album.changed(); // photos may be waiting for the first model
  } catch (error) {
    if (error.status === 401) askForKey();
    else banner(error.status ? error.message : GONE);
  }
}

function banner(text, ...more) {
  if ($("banner").dataset.text !== text) $("banner").replaceChildren(...(text ? [text, ...more] : []));
  $("banner").dataset.text = text;
}

function askForKey() {
  const again = document.createElement("button");
  again.textContent = "Give the key";
  again.addEventListener("click", () => { keyLater = false; askForKey(); });
  banner("This server needs a key. ", again);
  say($("key-said"), keyTried ? "That key is wrong. Ask whoever started the server." : "Ask whoever started the server.");
  if (!$("key-dialog").open && !keyLater) $("key-dialog").showModal();
}

function keyGiven() {
  const path = new URL("api", document.baseURI).pathname;
  document.cookie = `${KEY_COOKIE}=${encodeURIComponent($("key").value)}; path=${path}; SameSite=Strict`;
  keyTried = true;
  $("key").value = "";
  look();
}

// The address holds the view: "#", "#photo-3", "#models/NAME".
function turn() {
  const hash = location.hash;
  const photo = album.find(Number(hash.match(/^#photo-(\d+)$/)?.[1]));
  const view = hash.startsWith("#models") ? "models" : photo ? "viewer" : album.all().length ? "album" : "start";
  for (const name of ["start", "album", "viewer", "models"]) $(name).hidden = name !== view;
  document.body.dataset.view = view;
  $(view).querySelector(".options-place")?.append($("options"));
  for (const [id, here] of [["to-models", view === "models"], ["to-home", view !== "models"]]) {
    if (here) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  viewer.open(view === "viewer" ? photo : null);
  models.turned(view === "models" ? decodeURIComponent(hash.slice("#models/".length)) : null);
}

function go(hash) {
  if (location.hash === hash || (hash === "#" && !location.hash)) turn();
  else location.hash = hash;
}

settings.begin();
viewer.begin();
album.begin((photo) => go(photo ? `#photo-${photo.number}` : "#"));
start.begin(album.add);
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
$("key-dialog").addEventListener("close", () => $("key").value && keyGiven());
$("key-dialog").addEventListener("cancel", () => { keyLater = true; $("key").value = ""; });
$("key-later").addEventListener("click", () => { keyLater = true; $("key").value = ""; $("key-dialog").close(); });
window.addEventListener("hashchange", turn);
window.addEventListener("focus", () => $("key-dialog").open || look());
turn();
look();
setInterval(() => document.hidden || $("key-dialog").open || look(), EVERY);
