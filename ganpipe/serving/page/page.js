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

// --- what the controls say, as an address

function parameters(seed, way = null) {
  const found = new URLSearchParams({ seed });
  const label = byId("label")?.value;
  const truncation = byId("truncation")?.value;
  if (label) found.set("label", label);
  if (truncation && Number(truncation) !== 1) found.set("truncation", truncation);
  if (way) { found.set("to_seed", way.to); found.set("mix", way.mix); }
  return `?${found}`;
}

const seedNow = () => Number(byId("seed").value);
const way = () => (byId("mix") ? { to: Number(byId("to_seed").value), mix: byId("mix").value } : null);

function isValid(input) {
  return !input || (input.value !== "" && input.checkValidity());
}

// --- pictures: one request under way for each, and then the newest that was asked for

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

function goTo(seed) {
  byId("seed").value = seed;
  if (byId("to_seed") && !byId("to_seed").dataset.touched) byId("to_seed").value = seed + 1;
  showAll();
  keep(true);
}

const random = () => Math.floor(Math.random() * 2 ** 31);

// --- events; on the document, for a new version brings a new <main>

document.addEventListener("input", ({ target }) => {
  if (target.id === "mix") {
    target.dataset.touched = "yes";
    showBetween();
    keep(false);
  } else if (target.id === "truncation") {
    byId("truncation-value").textContent = Number(target.value);
    showSeed(byId("hero"), seedNow());
  }
});

document.addEventListener("change", ({ target }) => {
  if (!["seed", "label", "truncation", "to_seed"].includes(target.id)) return;
  if (!isValid(byId("seed")) || !isValid(byId("to_seed"))) {
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
  const target = event.target.closest("#fresh, #copy, #another, a[data-offset]");
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (target.id === "copy") {
    keep(false);
    navigator.clipboard.writeText(location.href).then(() => say("Link copied."), () => say(location.href, 0));
    return;
  }
  event.preventDefault();
  if (target.id === "another") {
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
  for (const id of ["copy", "another"]) byId(id)?.removeAttribute("hidden");
  const found = new URLSearchParams(location.search);
  if (found.has("to_seed")) byId("to_seed")?.setAttribute("data-touched", "yes");
}

begin();
setInterval(() => { if (!document.hidden) poll(); }, POLL_MS);
