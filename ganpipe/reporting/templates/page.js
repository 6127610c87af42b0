
"use strict";
// The page is complete without this script, which adds folding, sorting, sliders and read-outs.

// Long tables start folded; a printed page has them all.
const folded = [...document.querySelectorAll("details.long")];
const open = (yes) => folded.forEach((item) => { item.open = yes; });
open(false);
let before = [];
addEventListener("beforeprint", () => { before = folded.map((item) => item.open); open(true); });
addEventListener("afterprint", () => folded.forEach((item, at) => { item.open = before[at]; }));

// Tables: a click on a column's name sorts by it, a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => {
    const cell = row.cells[at];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, at), row]);
      // Rows without a value stay at the end in both orders.
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : (down ? -1 : 1) * compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// Sample grids: one at a time, with a slider.
for (const strip of document.querySelectorAll(".strip")) {
  const figures = [...strip.querySelectorAll("figure")];
  if (figures.length < 2) continue;
  strip.classList.add("slides");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: figures.length - 1, value: figures.length - 1 });
  slider.setAttribute("aria-label", strip.dataset.label);
  const play = Object.assign(document.createElement("button"), { type: "button", textContent: "Play" });
  const show = (at) => {
    slider.value = at;
    figures.forEach((figure, index) => { figure.hidden = index !== at; });
    slider.setAttribute("aria-valuetext", figures[at].querySelector("figcaption").textContent);
  };
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    let at = 0;
    show(at);
    timer = setInterval(() => { at += 1; show(at); if (at === figures.length - 1) stop(); }, 900);
  });
  const bar = document.createElement("div");
  bar.className = "slider";
  bar.append(play, slider);
  strip.prepend(bar);
  show(figures.length - 1);
}

// Curves: the numbers under the pointer.
const spelled = (value) => Number(value.toPrecision(5)).toLocaleString("en");
for (const figure of document.querySelectorAll("figure.lines")) {
  const chart = figure.querySelector("svg.chart");
  const lines = JSON.parse(chart.dataset.lines);
  const [top, bottom] = chart.dataset.plot.split(" ");
  const readout = figure.querySelector(".readout");
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", top);
  cursor.setAttribute("y2", bottom);
  chart.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    const near = lines.map((line) => [line.name, line.points.reduce((a, b) => (Math.abs(b[2] - at) < Math.abs(a[2] - at) ? b : a))]);
    cursor.setAttribute("x1", near[0][1][2]);
    cursor.setAttribute("x2", near[0][1][2]);
    chart.append(cursor);
    readout.textContent = `${spelled(near[0][1][0])} images: ` + near.map(([name, point]) => `${name} ${spelled(point[1])}`).join(", ");
  });
  chart.addEventListener("pointerleave", () => { cursor.remove(); readout.textContent = ""; });
}
