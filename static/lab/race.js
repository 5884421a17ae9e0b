/*
  The race: asks for the pages one after another, past the browser's own copy, and measures.

  In each round, a POST deletes what this race has cached. Then each level is asked twice, cold and
  warm. Another level begins each round, because the first place may be the best or the worst.
*/
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const form = article.querySelector(".lab-form");
  const start = form.querySelector("[data-start]");
  const stop = form.querySelector("[data-stop]");
  const said = article.querySelector(".lab-said");
  const progress = article.querySelector(".lab-progress");
  const sides = [...article.querySelectorAll("[data-side]")];
  const levels = [...sides[0].querySelectorAll("[data-level]")].map((row) => row.dataset.level);
  let running = null; // The AbortController of the race.
  let measured; // {server: {site: {cold: [ms, ...], warm: [...]}, ...}, browser: {...}}

  function empty() {
    return Object.fromEntries(
      sides.map(({ dataset }) => [
        dataset.side,
        Object.fromEntries(levels.map((level) => [level, { cold: [], warm: [] }])),
      ]),
    );
  }

  /* Delete what this race has cached. Returns the form errors, or null. */
  async function makeCold(options) {
    const response = await fetch(form.dataset.delete, { method: "POST", body: new FormData(form), ...options });
    if (response.ok) return null;
    const type = response.headers.get("Content-Type") || "";
    if (type.includes("json")) return Object.values((await response.json()).errors).flat();
    return [`The server answered ${response.status}. Reload the page and try again.`];
  }

  async function ask(level, temperature, signal) {
    const before = performance.now();
    const url = `${form.dataset.page}${level}/${form.elements.run.value}/`;
    const response = await fetch(url, { cache: "no-store", signal });
    await response.arrayBuffer();
    const browser = performance.now() - before;
    if (!response.ok) throw new Error(`The page answered ${response.status}.`);
    const server = /\bapp;dur=([\d.]+)/.exec(response.headers.get("Server-Timing"));
    measured.browser[level][temperature].push(browser);
    if (server) measured.server[level][temperature].push(Number(server[1]));
  }

  async function race(signal) {
    const rounds = Number(form.elements.rounds.value);
    for (let round = 0; round < rounds; round += 1) {
      const errors = await makeCold({ signal });
      if (errors) throw new Error(errors.join(" "));
      const first = round % levels.length;
      const order = [...levels.slice(first), ...levels.slice(0, first)];
      for (const level of order) await ask(level, "cold", signal);
      // What is not cached is never warm.
      for (const level of order) if (level !== "none") await ask(level, "warm", signal);
      progress.querySelector("progress").value = (round + 1) / rounds;
      progress.querySelector("[data-progress]").textContent = `${round + 1} of ${rounds} rounds`;
      show();
    }
    return `Done: ${rounds} round${rounds === 1 ? "" : "s"}. ${verdict()}`;
  }

  function median(values) {
    return LabPlot.quantile(values, 0.5);
  }

  function verdict() {
    const { none, site } = measured.server;
    if (!none.cold.length) return "The server gave no times.";
    const times = median(none.cold) / median(site.warm);
    const value = times < 2 ? "few" : times <= 10 ? "some" : "many"; // As lab/race.py asks.
    article.dispatchEvent(new CustomEvent("lab:came", { detail: { value } })); // For expect.js.
    return `In the server, the whole-site level is ${number(times)} times as fast as no cache.`;
  }

  function number(value) {
    if (value >= 100) return value.toFixed(0);
    return value.toFixed(value >= 10 ? 1 : 2);
  }

  function show() {
    for (const side of sides) {
      const times = measured[side.dataset.side];
      const base = median(times.none.cold);
      for (const level of levels) {
        const { cold, warm } = times[level];
        const cells = [cold, warm].flatMap((values) =>
          [0.5, 0.95].map((share) => (values.length ? number(LabPlot.quantile(values, share)) : "–")),
        );
        if (level === "none") cells.push("1×");
        else cells.push(warm.length && base ? `${number(base / median(warm))}×` : "–");
        const row = side.querySelector(`[data-level="${level}"]`);
        cells.forEach((text, index) => {
          row.cells[index + 1].textContent = text;
        });
      }
      draw(side, times);
    }
  }

  function draw(side, times) {
    LabPlot.strips(side.querySelector("[data-plot]"), {
      label: `${side.querySelector("h2").textContent}, one row per level. The table below has the numbers.`,
      rows: levels.map((level) => ({
        name: side.querySelector(`[data-level="${level}"] th`).textContent,
        level,
        sets: [
          { name: "cold", shape: "ring", values: times[level].cold },
          ...(level === "none" ? [] : [{ name: "warm", shape: "dot", values: times[level].warm }]),
        ],
      })),
    });
  }

  async function run() {
    running = new AbortController();
    measured = empty();
    said.textContent = "";
    article.dispatchEvent(new CustomEvent("lab:start"));
    start.ariaDisabled = "true"; // Not `disabled`, which would take the focus away.
    stop.hidden = progress.hidden = false;
    article.dataset.state = "running";
    show();
    try {
      said.textContent = await race(running.signal);
    } catch (error) {
      said.textContent = error.name === "AbortError" ? "Stopped." : error.message;
      said.scrollIntoView({ block: "nearest" }); // Where it can be seen.
    }
    running = null;
    start.ariaDisabled = null;
    if (document.activeElement === stop) start.focus();
    stop.hidden = progress.hidden = true;
    article.dataset.state = "done";
    await makeCold({ keepalive: true }).catch(() => {}); // What it has stored is deleted.
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) run();
  });
  stop.addEventListener("click", () => running?.abort());
  addEventListener("pagehide", () => {
    if (running) makeCold({ keepalive: true }).catch(() => {});
  });
  measured = empty();
  show();
})();
