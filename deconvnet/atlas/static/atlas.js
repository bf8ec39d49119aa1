/* What an atlas does beyond its links: keys, order and filter of a grid, views of a pair, steps of the way down.
   Without it every page still shows everything. */
"use strict";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* ---- keys and help ---- */

const KEYS = [
  ["← →", "the unit or layer before, and after"],
  ["↑", "one level up: from a unit to its layer, from a layer to the overview (at the top of a page)"],
  ["Tab Enter", "to the next link or button, and take it"],
  ["s", "on a unit’s page: side by side, exchanged, overlaid"],
  ["w", "on a unit’s page: to the way down; then , and . step up and down it"],
  ["h Esc", "this help, and away with it"],
];

function make(tag, parent, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

function makeHelp() {
  const dialog = make("dialog", document.body);
  dialog.setAttribute("aria-label", "Keys");
  make("h2", dialog, "Keys");
  const list = make("dl", dialog);
  list.className = "keys";
  for (const [key, meaning] of KEYS) {
    make("kbd", make("dt", list), key);
    make("dd", list, meaning);
  }
  make("button", dialog, "Close").addEventListener("click", () => dialog.close());
  const button = make("button", one("header"), "Keys: h");
  button.setAttribute("aria-haspopup", "dialog");
  button.addEventListener("click", () => dialog.showModal());
  return dialog;
}

const helped = makeHelp();

const places = { ArrowLeft: "before", ArrowRight: "after", ArrowUp: "up" };

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing || helped.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = document.body.dataset[places[event.key]];
  if (place && !(event.key === "ArrowUp" && window.scrollY > 0)) {
    event.preventDefault();
    window.location.href = place;
  } else if (event.key === "h" || event.key === "?") {
    helped.showModal();
  } else if (keys[event.key]) {
    keys[event.key]();
  }
});

const keys = {};

/* ---- from the overview to a unit ---- */

function setUpGoto(form) {
  const { layer, unit } = form.elements;
  const limit = () => { unit.max = layer.selectedOptions[0].dataset.units - 1; };
  form.hidden = false;
  layer.addEventListener("change", limit);
  limit();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (unit.reportValidity()) window.location.href = `${layer.value}/${Number(unit.value)}/index.html`;
  });
}

/* ---- grids: what is shown, in which order, of which kind; kept in the address, so that one can come back ---- */

const isIn = {
  "": () => true,
  fires: (item) => item.dataset.state === "fires",
  dead: (item) => item.dataset.state === "dead",
  always: (item) => item.dataset.state === "always",
  label: (item) => "label" in item.dataset,
};

function arrange(grid, choice) {
  const sign = choice.sort === "n" ? 1 : -1;
  const items = all("li", grid).sort((a, b) =>
    sign * (a.dataset[choice.sort] - b.dataset[choice.sort]) || a.dataset.n - b.dataset.n);
  grid.className = `grid ${choice.show}`;
  grid.append(...items);
  for (const item of items) {
    item.hidden = !isIn[choice.state](item) || Boolean(choice.class && item.dataset.class !== choice.class);
  }
  return items.filter((item) => !item.hidden).length;
}

function setUpControls(form) {
  const fields = all("select", form);
  const grids = all("ul.grid");
  const said = new URLSearchParams(window.location.hash.slice(1));
  form.hidden = false;
  for (const field of fields) {
    const value = said.get(field.name);
    if (all("option", field).some((option) => option.value === value)) field.value = value;
  }
  const apply = () => {
    const choice = { class: "", ...Object.fromEntries(fields.map((field) => [field.name, field.value])) };
    const counts = grids.map((grid) => arrange(grid, choice));
    one("output", form).textContent = `${counts.join(" and ")} units`;
    for (const link of all("ul.grid a")) take(link, window.location.hash);
    all(".none-left").forEach((words, number) => { words.hidden = counts[number] > 0; });
  };
  form.addEventListener("change", () => {
    const chosen = fields.filter((field) => field.selectedIndex > 0).map((field) => [field.name, field.value]);
    window.history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
    apply();
  });
  apply();
}

/* The choice goes along in the address of a unit's page, and from there to its neighbours and back to the grid. */
function take(link, choice) {
  link.setAttribute("href", link.getAttribute("href").split("#")[0] + choice);
}

function carry(choice) {
  const { dataset } = document.body;
  for (const name of ["up", "before", "after"].filter((name) => dataset[name])) {
    for (const link of all("nav a, .steps a")) if (link.getAttribute("href") === dataset[name]) take(link, choice);
    dataset[name] += choice;
  }
}

/* ---- a unit's pairs ---- */

const VIEWS = `<form class="view">
  <fieldset><legend>Reconstruction and patch</legend>
    <label><input type="radio" name="view" value="beside" checked> side by side</label>
    <label><input type="radio" name="view" value="exchanged"> exchanged under the pointer</label>
    <label><input type="radio" name="view" value="overlaid"> overlaid</label>
    <label class="mix">patch <input type="range" min="0" max="100" value="50" aria-label="how much of the reconstruction is seen"> reconstruction</label></fieldset>
</form>`;

function setUpPairs(pairs) {
  pairs.insertAdjacentHTML("afterbegin", VIEWS);
  const form = one(".view", pairs);
  const choices = all("input[name=view]", form);
  const show = () => { pairs.dataset.view = choices.find((choice) => choice.checked).value; };
  const mix = one("input[type=range]", form);
  form.addEventListener("change", show);
  mix.addEventListener("input", () => pairs.style.setProperty("--mix", mix.value / 100));
  for (const tile of all(".tr", pairs)) {
    tile.append(one("svg", tile.nextElementSibling).cloneNode(true)); // the patch, under the reconstruction
    tile.addEventListener("click", () => tile.setAttribute("aria-pressed", tile.getAttribute("aria-pressed") !== "true"));
  }
  keys.s = () => {
    const now = choices.findIndex((choice) => choice.checked);
    choices[(now + 1) % choices.length].checked = true;
    show();
  };
  show();
}

/* ---- the way down ---- */

const STEPPER = `<p class="stepper">
  <button type="button" name="up">↑ <kbd>,</kbd></button>
  <output aria-live="polite"></output>
  <button type="button" name="down">↓ <kbd>.</kbd></button>
  <button type="button" name="all" aria-pressed="false">all at once</button>
</p>`;

function setUpWay(way) {
  const list = one(".descent", way);
  list.insertAdjacentHTML("beforebegin", STEPPER);
  const steps = all(":scope > li", list);
  const { up, down, all: whole } = Object.fromEntries(all("button", way).map((button) => [button.name, button]));
  let now = 0;
  const show = () => {
    const stepping = whole.getAttribute("aria-pressed") !== "true";
    list.classList.toggle("stepping", stepping);
    steps.forEach((step, number) => step.classList.toggle("now", number === now));
    one("output", way).textContent = `step ${now + 1} of ${steps.length}`;
    up.disabled = !stepping || now === 0;
    down.disabled = !stepping || now === steps.length - 1;
  };
  const go = (by) => { now = Math.min(Math.max(now + by, 0), steps.length - 1); show(); };
  up.addEventListener("click", () => go(-1));
  down.addEventListener("click", () => go(1));
  whole.addEventListener("click", () => {
    whole.setAttribute("aria-pressed", whole.getAttribute("aria-pressed") !== "true");
    show();
  });
  keys[","] = () => go(-1);
  keys["."] = () => go(1);
  keys.w = () => { way.focus(); way.scrollIntoView(); };
  show();
}

const parts = { ".goto": setUpGoto, ".controls": setUpControls, "#pairs": setUpPairs, "#way": setUpWay };
for (const [selector, setUp] of Object.entries(parts)) {
  const found = one(selector);
  if (found) setUp(found);
}
if (!one(".controls") && window.location.hash.includes("=")) carry(window.location.hash);
