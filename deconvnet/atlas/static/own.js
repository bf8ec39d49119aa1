/* A picture of one's own: it is sent to the server on this computer, which says what a layer makes of it. */
"use strict";

{
  const form = document.getElementById("own");
  const drop = document.getElementById("drop");
  const result = document.getElementById("result");
  const error = document.getElementById("error");
  const progress = document.getElementById("progress");
  const { picture, layer, unit } = form.elements;
  const limit = Number(form.dataset.limit);

  const number = (value) => value.toPrecision(3);
  const from = (answer) => { const [top, left, bottom, right] = answer; return { top, left, height: bottom - top, width: right - left }; };

  /* ---- what is shown ---- */

  function add(parent, tag, text = "") {
    const made = document.createElement(tag);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function complain(sentence) {
    error.textContent = sentence;
    error.hidden = false;
    result.hidden = true;
  }

  function picturesOf(tile, item) {
    const { width, height } = from(tile.box);
    const pair = add(item, "div");
    pair.className = "pair";
    for (const kind of ["reconstruction", "patch"]) {
      const image = add(pair, "img");
      Object.assign(image, { width, height, alt: kind, src: tile[kind], className: Math.max(width, height) < 64 ? "px" : "" });
    }
  }

  function showTile(answer, tile, list, boxes) {
    const item = add(list, "li");
    const box = boxes.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
    const { top, left, width, height } = from(tile.box);
    for (const [key, value] of Object.entries({ x: left, y: top, width, height })) box.setAttribute(key, value);
    picturesOf(tile, item);
    const link = add(item, "a", `${answer.layer}:${tile.unit}`);
    link.href = tile.page;
    item.append(" ");
    add(item, "b", number(tile.value));
    add(item, "small", ` at (${tile.position.join(", ")}) on the map; its strongest in the atlas: ${number(tile.strongest)}`);
    const mark = (now) => { box.classList.toggle("now", now); if (now) boxes.append(box); };
    for (const [begins, ends] of [["pointerenter", "pointerleave"], ["focusin", "focusout"]]) {
      item.addEventListener(begins, () => mark(true));
      item.addEventListener(ends, () => mark(false));
    }
  }

  function words(answer) {
    const count = answer.tiles.length;
    if (answer.unit === null) {
      return count ? [`The ${count} units of ${answer.layer} that fire most`, "Reconstruction on the left, patch on the right. Zero is mid-grey; each reconstruction has a scale of its own."]
        : [`Nothing in ${answer.layer} fires in this picture`, ""];
    }
    const address = `${answer.layer}:${answer.unit}`;
    return count ? [`Where ${address} fires most`, `${count === 1 ? "Its strongest activation" : `Its ${count} strongest peaks`}: reconstruction on the left, patch on the right. Zero is mid-grey; the reconstructions share one scale.`]
      : [`${address} does not fire in this picture`, ""];
  }

  function show(answer) {
    const [heading, remark] = words(answer);
    const list = result.querySelector(".own-tiles");
    const boxes = result.querySelector(".own-whole svg");
    const whole = result.querySelector(".own-whole img");
    const [height, width] = answer.size;
    list.replaceChildren();
    boxes.replaceChildren();
    boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
    Object.assign(whole, { width, height, src: answer.whole });
    for (const tile of answer.tiles) showTile(answer, tile, list, boxes);
    document.getElementById("remark").textContent = remark;
    error.hidden = true;
    result.hidden = false;
    document.getElementById("found").textContent = heading;
  }

  /* ---- what is asked ---- */

  let chosen = null;   // the picture
  let looking = false;
  let again = false;   // something was changed in the meantime

  async function ask() {
    const words = new URLSearchParams({ layer: layer.value, ...(unit.value && { unit: unit.value }) });
    try {
      const response = await fetch(`own/look?${words}`, { method: "POST", body: chosen });
      const answer = await response.json();
      if (again) return;
      if (response.ok) show(answer);
      else complain(answer.error);
    } catch {
      complain("No answer came. Is deconvnet serve still running, and can the picture still be read?");
    }
  }

  async function look() {
    if (!chosen) return complain("First choose a picture.");
    if (chosen.size > limit) return complain(`This picture is too large: more than ${limit / 1e6} MB.`);
    if (!form.reportValidity()) return undefined;
    again = looking;
    if (looking) return undefined;
    looking = true;
    progress.hidden = false;
    do {
      again = false;
      await ask();
    } while (again);
    progress.hidden = true;
    looking = false;
    return undefined;
  }

  function choose(files) {
    if (!files || !files.length) return;
    if (picture.files !== files) picture.files = files;  // so that the form says what was dropped
    [chosen] = files;
    look();
  }

  function changeLayer() {
    unit.max = layer.selectedOptions[0].dataset.units - 1;
    if (Number(unit.value) > Number(unit.max)) unit.value = "";
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); look(); });
  picture.addEventListener("change", () => choose(picture.files));
  layer.addEventListener("change", () => { changeLayer(); if (chosen) look(); });
  unit.addEventListener("change", () => { if (chosen) look(); });
  document.addEventListener("paste", (event) => choose(event.clipboardData.files));
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  document.addEventListener("dragover", () => drop.classList.add("over"));
  for (const type of ["dragleave", "drop"]) document.addEventListener(type, () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => choose(event.dataTransfer.files));
  changeLayer();
}
