/*
  Peel: asks for the page, reads from its headers who answered, and shows what each ring holds.

  An answer with the request id of an earlier one is the browser's own copy: it brings the
  headers that were stored with it.
*/
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const form = article.querySelector(".lab-form");
  const said = article.querySelector(".lab-said");
  const log = article.querySelector(".peel-log tbody");
  const tour = form.querySelector("[data-tour]");
  const stop = form.querySelector("[data-stop]");
  const buttons = [...form.querySelectorAll("button:not([data-stop])")];
  const LEVELS = ["site", "view", "fragment", "low-level"];
  const RINGS = ["browser", ...LEVELS, "database"];
  const SIGNS = { hit: "✓", miss: "✗", down: "!" };
  const NAMES = {
    browser: "Your browser",
    site: "The whole-site level",
    view: "The per-view level",
    fragment: "The fragment level",
    "low-level": "The low-level cache",
    database: "The database",
  };
  const PAUSE = 1200; // milliseconds between two steps of the tour
  // Each deletion takes the outermost entry: to see an inner ring, the outer ones go first.
  const TOUR = [
    ...["all", "no-cache", "default", "no-cache"], // database, browser, site
    ...["delete", "no-cache", "no-cache"], // view, and again: the site is not filled
    ...["delete", "no-cache", "no-cache"], // fragment, then the site
    ...["delete", "delete", "delete", "no-cache"], // low-level
    ...["delete", "delete", "default"], // no deletion reaches the browser
    ...["delete", "delete", "no-cache", "default"], // database, browser
  ];
  const seen = new Set(); // ids of requests that Django answered
  let rings = {}; // {site: {left, made, until} or null, ...}
  let touring = false;

  function timing(response) {
    const header = response.headers.get("Server-Timing") || "";
    const word = (name) => new RegExp(`(?:^|, )${name};dur=[\\d.]+;desc="(\\S+)`).exec(header)?.[1];
    return {
      id: /req;desc="([^@"]+)/.exec(header)?.[1],
      app: Number(/app;dur=([\d.]+)/.exec(header)?.[1]),
      words: Object.fromEntries(LEVELS.map((level) => [level, word(level) || "not asked"])),
    };
  }

  async function json(url, options) {
    const response = await fetch(url, { cache: "no-store", ...options });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}. Reload the page and try again.`);
    return answer;
  }

  function take(held) {
    const now = performance.now();
    for (const level of LEVELS) {
      rings[level] = held[level] && { ...held[level], until: now + held[level].left * 1000 };
    }
  }

  /* The browser's own copy, as far as its headers tell. */
  function noteCopy(response, made) {
    const age = Number(response.headers.get("Age") || 0);
    const most = /max-age=(\d+)/.exec(response.headers.get("Cache-Control"))?.[1];
    const left = most - age;
    rings.browser = left > 0 ? { made, until: performance.now() + left * 1000 } : null;
  }

  async function ask(mode) {
    const before = performance.now();
    const response = await fetch(form.dataset.page, { cache: mode });
    const text = await response.text();
    const ms = performance.now() - before;
    if (!response.ok) throw new Error(`The page answered ${response.status}.`);
    const { id, app, words } = timing(response);
    const isCopy = seen.has(id);
    const who = isCopy ? "browser" : LEVELS.find((level) => words[level].startsWith("hit")) || "database";
    seen.add(id);
    if (!isCopy) noteCopy(response, /data-made="([\d:]+)"/.exec(text)?.[1]);
    take((await json(form.dataset.rings)).rings);
    const told = isCopy ? Object.fromEntries(LEVELS.map((level) => [level, "not asked"])) : words;
    article.querySelector("[data-status]").textContent = isCopy
      ? "no new one, because the browser’s copy has the headers of its first request"
      : response.headers.get("Cache-Status");
    show(who, told);
    const step = mode === "default" ? "Ask" : "Ask Django";
    const marked = LEVELS.map((level) => signed(told[level]));
    note([step, NAMES[who], ...marked, isCopy ? "–" : app.toFixed(1), ms.toFixed(1)], remark(who, told));
    said.textContent = `${NAMES[who]} answered, in ${ms.toFixed(1)} ms. ${remark(who, told)}`;
    if (who === "view") came(rings.site ? "filled" : "empty");
  }

  /* For expect.js: the answer to the question before the button. */
  function came(value) {
    article.dispatchEvent(new CustomEvent("lab:came", { detail: { value } }));
  }

  /* A word for readers who see no colours, and a sign that is quick to read. */
  function signed(word) {
    return word in SIGNS ? `${SIGNS[word]} ${word}` : word;
  }

  /* What is surprising about an answer. */
  function remark(who, words) {
    if (who === "browser") return LEVELS.some((level) => !rings[level]) ? "No deletion reaches it. Django was not asked." : "Django was not asked.";
    if (who === "view" && !rings.site) return "The whole-site level stays empty: a hit of the per-view level does not fill it.";
    if (words.site === "miss" && rings.site) {
      return "Each ring outside of it is filled again.";
    }
    return "";
  }

  async function deleteOutermost(what) {
    const body = new FormData(form);
    if (what === "all") body.set("all", "1");
    const { deleted, rings: held } = await json(form.dataset.delete, { method: "POST", body });
    take(held);
    show(null);
    const names = deleted.map((level) => NAMES[level].toLowerCase()).join(", of ");
    const text = deleted.length ? `Deleted the entry of ${names}.` : "Redis has no entry of this page.";
    said.textContent = text;
    if (deleted.length || what !== "all") note([text]);
  }

  function note(cells, remark) {
    const row = document.createElement("tr");
    cells.forEach((text, index) => {
      const cell = document.createElement(index ? "td" : "th");
      if (!index) cell.scope = "row";
      if (index > 5) cell.className = "number";
      const words = index ? text : `${log.querySelectorAll("th").length + 1}. ${text}`;
      if (cells.length === 1) fill(cell, words);
      else cell.textContent = words;
      row.append(cell);
    });
    log.append(row);
    if (!remark) return;
    const line = document.createElement("tr");
    line.className = "peel-remark";
    line.append(document.createElement("td"));
    fill(line.cells[0], remark);
    log.append(line);
  }

  /* One sentence in the place of all cells. */
  function fill(cell, sentence) {
    cell.colSpan = 8;
    cell.append(document.createElement("span"));
    cell.firstChild.textContent = sentence;
  }

  /* `who` answered and `words` are what each level said; without, no level was asked. */
  function show(who, words) {
    for (const name of RINGS) {
      const ring = article.querySelector(`[data-ring="${name}"]`);
      const row = article.querySelector(`[data-row="${name}"]`);
      ring.classList.toggle("holds", Boolean(rings[name]));
      ring.classList.toggle("answered", who === name);
      row.classList.toggle("answered", who === name);
      if (name !== "database") row.cells[1].textContent = rings[name] ? rings[name].made : "nothing";
      let word = "–";
      if (who === name) word = "✓ answered";
      else if (who && LEVELS.includes(name)) word = signed(words[name]);
      else if (who) word = name === "browser" ? "passed on" : "not asked";
      row.cells[3].textContent = word;
    }
    const end = who ? 100 + Number(article.querySelector(`[data-ring="${who}"]`).getAttribute("r")) : 0;
    article.querySelector(".peel-way").setAttribute("d", who ? `M203 100H${end}m6 -5l-6 5l6 5` : "");
    count();
  }

  function count() {
    for (const name of ["browser", ...LEVELS]) {
      const left = rings[name] ? Math.max(0, Math.round((rings[name].until - performance.now()) / 1000)) : 0;
      article.querySelector(`[data-row="${name}"]`).cells[2].textContent = left ? `${left} s` : rings[name] ? "over" : "–";
    }
  }

  /* Not `disabled`, which would take the focus away. */
  function wait(isWaiting) {
    buttons.forEach((button) => { button.ariaDisabled = isWaiting ? "true" : null; });
  }

  /* Do what a button does, unless another step is going on. */
  function pressed(act) {
    return (event) => { if (event.currentTarget.ariaDisabled !== "true") act(event); };
  }

  /* One step at a time: the buttons wait for its end. */
  async function step(what) {
    wait(true);
    article.dataset.state = "running";
    try {
      await (what === "delete" || what === "all" ? deleteOutermost(what) : ask(what));
      return true;
    } catch (error) {
      said.textContent = error.message;
      said.scrollIntoView({ block: "nearest" }); // Where it can be seen.
      return false;
    } finally {
      article.dataset.state = touring ? "running" : "done";
      if (!touring) wait(false);
    }
  }

  async function walk() {
    touring = true;
    stop.hidden = false;
    let isWhole = true;
    for (const what of TOUR) {
      isWhole = touring && (await step(what));
      if (!isWhole) break;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    if (isWhole) said.textContent = "Peeled: each ring has answered once. The steps below say what each of them showed.";
    touring = false;
    if (document.activeElement === stop) tour.focus();
    stop.hidden = true;
    article.dataset.state = "done";
    wait(false);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  tour.addEventListener("click", pressed(walk));
  stop.addEventListener("click", () => { touring = false; });
  form.querySelectorAll("[data-ask]").forEach((button) => button.addEventListener("click", pressed(() => step(button.dataset.ask))));
  form.querySelector("button[data-delete]").addEventListener("click", pressed(() => step("delete")));
  form.querySelector("[data-again]").addEventListener("click", async (event) => {
    event.preventDefault();
    touring = false;
    await step("all"); // The new page has a new id, so these entries are of no further use.
    location.assign(event.target.href);
  });
  setInterval(count, 1000);
})();
