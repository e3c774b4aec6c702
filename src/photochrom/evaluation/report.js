"use strict";
// Sorts the photos of a report, and lays two colourings of one over each other. All pictures and numbers are in the page.
const { models, truth, better, digits, gallery, values } = JSON.parse(document.getElementById("values").textContent);
const sorting = document.querySelector(".sorting");
const rows = [...document.querySelectorAll(".row")];
const MOST = 12; // rows that are shown of a sorted list
const MAPPED = ["dark_error", "false_color"];

function shown(value, measure) {
  return value === null ? "-" : value.toFixed(digits[measure]);
}

function slider(row) {
  const box = document.createElement("div");
  box.className = "slider";
  const [left, right] = [new Image(), new Image()];
  const [leftName, rightName] = [document.createElement("span"), document.createElement("span")];
  const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, value: 50, step: 0.5 });
  const button = (name) => [...row.querySelectorAll("button")].find((each) => each.dataset.name === name);
  const move = () => box.style.setProperty("--at", `${range.value}%`);
  const put = (name) => {
    for (const each of row.querySelectorAll("button")) each.setAttribute("aria-pressed", each.dataset.name === name);
    left.src = button(name).firstElementChild.src;
    left.alt = leftName.textContent = name;
    range.setAttribute("aria-label", `${name} on the left, ${truth} on the right`);
  };
  right.src = button(truth).firstElementChild.src;
  right.alt = rightName.textContent = truth;
  range.addEventListener("input", move);
  for (const each of row.querySelectorAll("button")) each.addEventListener("click", () => put(each.dataset.name));
  box.append(left, right, leftName, rightName, range);
  row.prepend(box);
  row.classList.add("sliding");
  row.put = put;
  move();
  put(models[0]);
}

function sort() {
  const measure = sorting.elements.measure.value;
  const [one, other, end] = sorting.elements.view.value.split(" ");
  const chance = one === "chance";
  const gain = (row) => {
    const found = values[row.dataset.place][measure];
    if (found[one] === null) return null;
    return Number(end) * better[measure] * (found[one] - (other === "-" ? 0 : found[other]));
  };
  for (const row of rows) {
    row.querySelectorAll("b[data-model]").forEach((cell) => {
      cell.textContent = shown(values[row.dataset.place][measure][cell.dataset.model], measure);
    });
    row.querySelectorAll(".map").forEach((map) => { map.hidden = !MAPPED.includes(measure); });
  }
  const wins = (row) => gain(row) !== null && (other === "-" || gain(row) > 0);
  const list = chance ? rows.filter((row) => Number(row.dataset.place) < gallery)
    : rows.filter(wins).sort((a, b) => gain(b) - gain(a)).slice(0, MOST);
  for (const row of rows) row.hidden = !list.includes(row);
  list.forEach((row) => {
    if (!row.put) slider(row);
    if (!chance) row.put(models[end > 0 || other === "-" ? one : other]);
    const by = other !== "-" && !chance ? `: ${models[end > 0 ? one : other]} is better by ${shown(gain(row), measure)}` : "";
    row.querySelector(".gain").textContent = by;
    row.parentElement.append(row);
  });
}

sorting.hidden = false;
document.querySelector(".noscript").hidden = true;
sorting.addEventListener("change", sort);
sorting.addEventListener("submit", (event) => event.preventDefault());
sort();
