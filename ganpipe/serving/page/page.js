"use strict";
// Without this script the page works by links and one form; with it, pictures change in place and follow the champion.

const POLL_MS = 4000;
const byId = (id) => document.getElementById(id);
const main = () => document.querySelector("main");
let toastTimer = 0;

function say(text, forMs = 6000) {
  const status = byId("status");
  status.textContent = text;
  clearTimeout(toastTimer);
  if (forMs) toastTimer = setTimeout(() => { status.textContent = ""; }, forMs);
}

// --- the values of the controls as an address

function parameters(seed, way = null) {
  const found = new URLSearchParams({ seed });
  for (const input of document.querySelectorAll("[data-condition]")) {
    const isGiven = input.dataset.condition !== "number" || input.dataset.given;
    if (!isGiven || input.value === "") continue;
    const rounded = Number(Number(input.value).toPrecision(4));
    const isNumber = input.dataset.condition === "number";
    found.set(input.name, isNumber ? Math.min(input.max, Math.max(input.min, rounded)) : input.value);
  }
  const truncation = byId("truncation")?.value;
  if (truncation && Number(truncation) !== 1) found.set("truncation", truncation);
  if (way) { found.set("to_seed", way.to); found.set("mix", way.mix); }
  return `?${found}`;
}

const seedNow = () => Number(byId("seed")?.value ?? 0);
const way = () => (byId("mix") ? { to: Number(byId("to_seed").value), mix: byId("mix").value } : null);

function isValid(input) {
  return !input || (input.value !== "" && input.checkValidity());
}

// --- pictures: at most one request at a time for each; after it, only the newest of the later requests is sent

function show(image, address, alt) {
  image.dataset.wanted = `/api/images${address}`;
  image.alt = alt;
  if (!image.dataset.loading) load(image);
}

function load(image) {
  const address = image.dataset.wanted;
  if (image.getAttribute("src") === address) return;
  image.dataset.loading = "yes";
  const done = (event) => {
    image.onload = image.onerror = null;
    delete image.dataset.loading;
    if (event.type === "error") say("A picture did not come: the server is busy or away.");
    if (image.dataset.wanted !== address) load(image);
  };
  image.onload = image.onerror = done;
  image.src = address;
}

const word = () => document.title.replace(/^This (.*) does not exist$/, "$1");

function showSeed(image, seed) {
  show(image, parameters(seed), `Generated ${word()}, seed ${seed}`);
}

function showBetween() {
  const found = way();
  if (!found) return;
  const percent = `${Math.round(100 * found.mix)} %`;
  byId("mix-value").textContent = percent;
  byId("mix").setAttribute("aria-valuetext", percent);
  show(byId("between"), parameters(seedNow(), found),
    `Generated ${word()}, ${percent} of the way from seed ${seedNow()} to seed ${found.to}`);
}

function showAll() {
  if (byId("file")) { translate(); return; }
  const seed = seedNow();
  const last = Number(main().dataset.maxSeed);
  for (const image of document.querySelectorAll("img[data-offset]")) {
    const own = seed + Number(image.dataset.offset);
    if (own <= last) showSeed(image, own);
  }
  for (const link of document.querySelectorAll("a[data-offset]")) {
    link.href = parameters(seed + Number(link.dataset.offset));
  }
  byId("json").href = `/api/images${parameters(seed)}&format=json`;
  if (way()) {
    byId("from").textContent = seed;
    byId("to").textContent = way().to;
    showSeed(byId("target"), way().to);
    showBetween();
  }
}

function keep(push) {
  const moved = byId("mix") && (byId("mix").dataset.touched || byId("to_seed").dataset.touched);
  const address = parameters(seedNow(), moved ? way() : null);
  if (address !== location.search) history[push ? "pushState" : "replaceState"](null, "", address);
}

// A slider that was not moved adds no parameter, so that its code is drawn from the seed.
function showNumber(slider) {
  const number = Number(Number(slider.value).toPrecision(3));
  const names = slider.dataset.names ? JSON.parse(slider.dataset.names) : null; // of the classes, for a label
  const text = slider.dataset.given ? names?.[number] ?? String(number) : "any";
  byId(`${slider.id}-value`).textContent = text;
  slider.setAttribute("aria-valuetext", text);
  document.querySelector(`[data-any="${slider.id}"]`).hidden = !slider.dataset.given;
}

// --- the user's picture: at most one request at a time; after it, only the last of the later requests is sent

let chosen = null;
let underWay = false;
let waits = false;

function fault(text) {
  const place = byId("upload-error");
  place.textContent = text;
  place.hidden = !text;
}

function put(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.hidden = !blob;
  if (blob) image.src = URL.createObjectURL(blob);
  else image.removeAttribute("src");
}

function choose(file) {
  if (!file) return;
  const most = Number(byId("file").dataset.maxBytes);
  forget();
  hideCanvas();
  if (file.size > most) fault(`This file has ${(file.size / 2 ** 20).toFixed(1)} MiB, at most ${most / 2 ** 20} are taken.`);
  else if (byId("canvas")?.dataset.hole) showOnCanvas(file);
  else { chosen = file; fault(""); translate(); }
}

function forget() {
  chosen = null;
  put(byId("yours"), null);
  put(byId("made"), null);
  byId("save").hidden = true;
}

// --- the canvas: a brush that makes a hole, for a model that completes pictures, or a pen on white

let original = null; // what "Start again" goes back to: a picture, or nothing for a drawing
let stroke = null;
let brush = null; // where the keyboard's brush is, and whether it paints

function hideCanvas() {
  if (!byId("canvas")) return;
  byId("canvas").hidden = true;
  showBrush(null);
  byId("again").hidden = true;
  if (byId("middle")) byId("middle").hidden = true;
}

function startCanvas() {
  const place = byId("canvas");
  const size = Number(place.dataset.size);
  const most = Math.floor(Math.sqrt(Number(place.dataset.maxPixels)) / size);
  place.width = place.height = size * Math.max(1, Math.min(Math.ceil(512 / size), most));
  place.hidden = byId("again").hidden = false;
  if (byId("middle")) byId("middle").hidden = false;
  const context = place.getContext("2d");
  if (original) {
    const side = Math.min(original.width, original.height);
    const [left, top] = [(original.width - side) / 2, (original.height - side) / 2];
    context.imageSmoothingEnabled = side > place.width;
    context.drawImage(original, left, top, side, side, 0, 0, place.width, place.height);
  } else {
    context.fillStyle = "white";
    context.fillRect(0, 0, place.width, place.height);
  }
}

async function showOnCanvas(file) {
  try {
    original = await createImageBitmap(file);
  } catch {
    fault("This file is not a picture that the browser can show.");
    return;
  }
  startCanvas();
  const pixels = byId("canvas").getContext("2d").getImageData(0, 0, byId("canvas").width, byId("canvas").height).data;
  if (pixels.some((value, at) => at % 4 === 3 && value < 128)) canvasChanged();
  else fault("Paint over what is to be made anew.");
}

function canvasChanged() {
  byId("canvas").toBlob((blob) => { chosen = blob; fault(""); translate(); }, "image/png");
}

function paint(event) {
  const place = byId("canvas");
  const box = place.getBoundingClientRect();
  paintTo((event.clientX - box.left) * place.width / box.width, (event.clientY - box.top) * place.height / box.height);
}

function paintTo(x, y) {
  const place = byId("canvas");
  const context = place.getContext("2d");
  context.globalCompositeOperation = place.dataset.hole ? "destination-out" : "source-over";
  context.lineWidth = place.width / (place.dataset.hole ? 10 : 48);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...(stroke ?? [x, y]));
  context.lineTo(x, y);
  context.stroke();
  stroke = [x, y];
}

document.addEventListener("pointerdown", (event) => {
  if (event.target.id !== "canvas" || event.button) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  paint(event);
});

document.addEventListener("pointermove", (event) => { if (stroke && !brush?.isDown) paint(event); });

for (const kind of ["pointerup", "pointercancel"]) {
  document.addEventListener(kind, () => {
    if (!stroke || brush?.isDown) return;
    stroke = null;
    canvasChanged();
  });
}

// With the keyboard: arrow keys move a brush, space lowers it and lifts it again.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function showBrush(next) {
  const [place, mark] = [byId("canvas"), byId("brush")];
  brush = next;
  mark.hidden = !brush;
  if (!brush) return;
  mark.style.left = `${place.offsetLeft + brush.x / place.width * place.offsetWidth}px`;
  mark.style.top = `${place.offsetTop + brush.y / place.height * place.offsetHeight}px`;
  mark.classList.toggle("down", brush.isDown);
}

document.addEventListener("keydown", (event) => {
  const place = event.target;
  if (place.id !== "canvas" || !(event.key === " " || event.key in ARROWS)) return;
  event.preventDefault(); // they would scroll the page
  const { x, y, isDown } = brush ?? { x: place.width / 2, y: place.height / 2, isDown: false };
  const [right, down] = ARROWS[event.key] ?? [0, 0];
  const within = (value) => Math.min(place.width, Math.max(0, value));
  const next = { x: within(x + right * place.width / 32), y: within(y + down * place.width / 32), isDown };
  if (event.key === " ") next.isDown = !isDown;
  if (next.isDown) paintTo(next.x, next.y);
  else if (isDown) { stroke = null; canvasChanged(); }
  showBrush(next);
});

document.addEventListener("focusout", ({ target }) => {
  if (target.id !== "canvas") return;
  if (brush?.isDown) { stroke = null; canvasChanged(); }
  showBrush(null);
});

function press(button) {
  const place = byId("canvas");
  if (button === "middle") {
    const [start, side] = [place.width / 4, place.width / 2];
    place.getContext("2d").clearRect(start, start, side, side);
    canvasChanged();
    return;
  }
  forget();
  fault(place.dataset.hole ? "Paint over what is to be made anew." : "");
  if (button === "draw") { original = null; byId("file").value = ""; }
  startCanvas();
}

async function translate() {
  if (!chosen) return;
  if (underWay) { waits = true; return; }
  underWay = true;
  const file = chosen;
  if (byId("canvas")?.hidden ?? true) put(byId("yours"), file);
  byId("pane").setAttribute("aria-busy", "true");
  try {
    const query = new URLSearchParams(parameters(seedNow()));
    if (byId("direction")) query.set("direction", byId("direction").value);
    const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" };
    const answer = await fetch(`/api/translate?${query}`, { method: "POST", body: file, headers });
    const made = answer.ok ? await answer.blob() : null;
    fault(made ? "" : `${(await answer.json()).error}.`.replace(/^./, (first) => first.toUpperCase()));
    if (file === chosen) {
      put(byId("made"), made);
      if (!made) put(byId("yours"), null);
      byId("save").hidden = !made;
      if (made) byId("save").href = byId("made").src;
    }
  } catch {
    fault("The server did not answer; try again.");
  }
  byId("pane").setAttribute("aria-busy", "false");
  underWay = false;
  if (waits) { waits = false; translate(); }
}

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const place = byId("drop");
    if (!place) return;
    event.preventDefault(); // also beside it: the browser would open the file and leave the page
    place.classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}

function goTo(seed) {
  if (byId("seed")) byId("seed").value = seed;
  if (byId("to_seed") && !byId("to_seed").dataset.touched) byId("to_seed").value = seed + 1;
  showAll();
  keep(true);
}

const random = () => Math.floor(Math.random() * 2 ** 31);

// --- events; handled on the document, because a new version replaces <main>

document.addEventListener("input", ({ target }) => {
  if (target.id === "mix") {
    target.dataset.touched = "yes";
    showBetween();
    keep(false);
  } else if (target.id === "truncation" || target.dataset.condition === "number") {
    if (target.id === "truncation") byId("truncation-value").textContent = Number(target.value);
    else { target.dataset.given = "yes"; showNumber(target); }
    if (byId("file")) translate();
    else showSeed(byId("hero"), seedNow());
  }
});

document.addEventListener("change", ({ target }) => {
  if (target.id === "file") { choose(target.files[0]); return; }
  if (target.id === "direction") { translate(); return; }
  if (!["seed", "truncation", "to_seed"].includes(target.id) && !target.dataset.condition) return;
  if (!isValid(byId("seed")) || !isValid(byId("to_seed")) || !isValid(target)) {
    target.reportValidity();
    return;
  }
  if (target.id === "to_seed") target.dataset.touched = "yes";
  if (target.id === "seed") goTo(seedNow());
  else { showAll(); keep(true); }
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  if (isValid(byId("seed"))) goTo(seedNow());
});

document.addEventListener("click", (event) => {
  const target = event.target.closest("#fresh, #copy, #another, #draw, #middle, #again, a[data-offset], [data-any]");
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (target.id === "copy") {
    keep(false);
    navigator.clipboard.writeText(location.href).then(() => say("Link copied."), () => say(location.href, 0));
    return;
  }
  event.preventDefault();
  if (["draw", "middle", "again"].includes(target.id)) { press(target.id); return; }
  if (target.dataset.any) {
    const slider = byId(target.dataset.any);
    delete slider.dataset.given;
    slider.focus(); // the button goes
    showNumber(slider);
    showAll();
    keep(true);
  } else if (target.id === "another") {
    byId("to_seed").value = random();
    byId("to_seed").dataset.touched = "yes";
    showAll();
    keep(true);
  } else if (target.id === "fresh") {
    goTo(random());
  } else {
    goTo(seedNow() + Number(target.dataset.offset));
    byId("title").scrollIntoView({ block: "nearest" });
  }
});

addEventListener("popstate", () => replaceMain());

// --- the champion moves

async function replaceMain() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (answer.redirected) history.replaceState(null, "", answer.url);
  const focused = document.activeElement?.id;
  for (const part of ["main", "header", "footer"]) {
    document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
  }
  document.title = fresh.title;
  begin();
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

async function poll() {
  try {
    const answer = await fetch("/api/model", { cache: "no-store" });
    const model = await answer.json();
    const before = main().dataset.number;
    const number = answer.ok ? String(model.version) : "";
    if (answer.ok && number !== before) {
      await replaceMain();
      if (before) say(`Version ${number} is shown now; it was version ${before}.`, 0);
    } else if (answer.ok) {
      const notes = byId("notes");
      const lines = model.notes.map((text) => {
        const line = document.createElement("p");
        line.className = "note";
        line.textContent = text;
        return line;
      });
      const text = model.notes.join("");
      if (notes.textContent !== text) notes.replaceChildren(...lines);
    }
    if (main().dataset.away) { delete main().dataset.away; say("The server answers again."); }
  } catch {
    if (!main().dataset.away) say("The server does not answer.", 0);
    main().dataset.away = "yes";
  }
}

function begin() {
  for (const button of document.querySelectorAll("#copy, #another, #draw")) button.hidden = false;
  document.querySelectorAll('[data-condition="number"]').forEach(showNumber);
  if (byId("file") && chosen) translate();
  const found = new URLSearchParams(location.search);
  if (found.has("to_seed")) byId("to_seed")?.setAttribute("data-touched", "yes");
}

begin();
setInterval(() => { if (!document.hidden) poll(); }, POLL_MS);
