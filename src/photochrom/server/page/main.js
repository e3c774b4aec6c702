// Begins; switches between the views; asks for the key; looks every few seconds whether a training runs.
import { get } from "./api.js";
import * as colour from "./colour.js";
import { $ } from "./dom.js";
import * as models from "./models.js";

const EVERY = 5000; // milliseconds
const KEY_COOKIE = "photochrom-key";

async function look() {
  try {
    const list = await get("models");
    colour.offer(list);
    models.offer(list);
    $("live").hidden = !list.some((model) => model.training);
    $("key-dialog").close();
  } catch (error) {
    if (error.status === 401) askForKey();
    else models.complain(error.message);
  }
}

function askForKey() {
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function keyGiven() {
  const path = new URL("api", document.baseURI).pathname;
  document.cookie = `${KEY_COOKIE}=${encodeURIComponent($("key").value)}; path=${path}; SameSite=Strict`;
  look();
}

function turn() {
  const view = location.hash.startsWith("#models") ? "models" : "colour";
  for (const name of ["colour", "models"]) {
    $(name).hidden = name !== view;
    if (name === view) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  models.turned(view === "models" ? decodeURIComponent(location.hash.slice("#models/".length)) : null);
}

colour.begin();
$("key-dialog").addEventListener("close", () => $("key").value && keyGiven());
window.addEventListener("hashchange", turn);
turn();
look();
setInterval(() => document.hidden || $("key-dialog").open || look(), EVERY);
