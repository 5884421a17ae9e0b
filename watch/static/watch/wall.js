/*
  The live wall: takes events in, counts them, and draws a few times a second.

  Taking in and drawing are apart. take() only changes numbers and lists of a bounded length,
  so neither a thousand events a second nor a tab that is left open for a week fill the
  memory. draw() shows what has changed, at most every DRAW_EVERY ms, and not at all while
  the wall is paused or hidden. Whatever comes from the feed becomes text by textContent.

  All numbers are of the last COUNTED events. A page that is opened reads as many, so each tab
  says the same, whenever it was opened.
*/
(() => {
  "use strict";

  const COUNTED = 200; // events: as many as /watch/ lets a page that is opened read
  const ROWS = 200; // events on the page
  const ROWS_A_DRAWING = 12; // new ones each time; the rest is told as a number
  const DRAW_EVERY = 200; // ms
  const KEYS = 120; // keys on the page
  const DUE = 30000; // ms that a key which is due is shown without news of it
  const NAMES = 1000; // keys whose page is remembered
  const WORKERS = 50; // processes whose breaker is remembered
  const POLL_EVERY = 2000; // ms
  const POLL_WHEN_DOWN = 10000;
  const STREAM_AGAIN = 60000; // ms of polling until a place at the stream is asked for again
  const LOOK_EVERY = 5000; // ms between two looks at keys and memory
  const LEAVE_AFTER = 30000; // ms hidden after which another wall may have the place
  const QUIET = 50; // pages that ask no cache and are remembered, to be told in one row each
  const BREAKER_NEWS = 25000; // ms for which the state of a process's breaker counts
  const NEWS_EVERY = 15000; // ms between two sentences for screen readers

  const wall = document.getElementById("wall");
  const config = JSON.parse(wall.dataset.config);
  const byId = (id) => document.getElementById(id);
  const field = Object.fromEntries(config.op.map((name, index) => [name, index]));
  const titles = new Map(config.titles);
  const titleOf = (level) => titles.get(level) ?? text(level);
  const hues = new Map(config.levels.map((level, index) => [level, `hue-${(index % 5) + 1}`]));
  const mayTouch = "expire" in config.urls;

  // Making elements ------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";

  function make(name, className, ...children) {
    const element = document.createElement(name);
    if (className) element.className = className;
    // Strings become text nodes: markup in them stays text.
    element.append(...children);
    return element;
  }

  function makeSvg(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // What it is, beside the colour: [path, is it filled].
  const SHAPES = {
    hit: [["M5 .8a4.2 4.2 0 1 1 0 8.4a4.2 4.2 0 1 1 0-8.4z", true]],
    miss: [["M5 0 10 5 5 10 0 5z", true]],
    mixed: [["M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8z", false], ["M5 1a4 4 0 0 0 0 8z", true]],
    down: [["M5 1 9.4 9H.6z", false]],
    expired: [["M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8zM5 2.8V5.2L6.8 6", false]],
    evicted: [["M.4 1.5h9.2L5 9.3z", true]],
    deleted: [["M1.2 1.2 8.8 8.8M8.8 1.2 1.2 8.8", false]],
    dropped: [["M1 5H9", false]],
  };

  function shape(kind) {
    const paths = SHAPES[kind].map(([d, solid]) => makeSvg("path", { d, class: solid ? "solid" : "" }));
    return makeSvg("svg", { class: "shape", viewBox: "0 0 10 10", "aria-hidden": "true" }, ...paths);
  }

  // Numbers as words -------------------------------------------------------------------

  const whole = new Intl.NumberFormat("en");

  function bytes(number) {
    if (number < 1000) return `${number} B`;
    const units = ["kB", "MB", "GB", "TB"];
    let unit = -1;
    while (number >= 1000 && unit < units.length - 1) {
      number /= 1000;
      unit += 1;
    }
    return `${number.toFixed(number < 10 ? 1 : 0)} ${units[unit]}`;
  }

  function milliseconds(us) {
    const ms = us / 1000;
    return `${ms < 10 ? ms.toFixed(1) : whole.format(Math.round(ms))} ms`;
  }

  function duration(seconds) {
    if (seconds < 100) return `${seconds} s`;
    if (seconds < 6000) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} days`;
  }

  function clock(at) {
    const date = new Date(at * 1000);
    const two = (number) => String(number).padStart(2, "0");
    const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
    return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  }

  const several = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;

  // The model: what has been taken in ------------------------------------------------------

  const model = {
    counted: [], // {at, worker, answers: [{level, hits, misses, bytes, request, lookup}]}
    fresh: [], // events that have no row yet, the newest last
    skipped: 0, // events that will never have one
    names: new Map(), // key: the path of the page it was used for
    keys: new Map(),
    news: newNews(),
    state: null, // what /watch/state said last
    told: "", // what became of the latest button, and until when that is shown
    toldUntil: 0,
    breakers: new Map(), // worker: {open: [{since, levels}], at}
    offset: 0, // ms that the server's clock is ahead
  };

  function newNews() {
    return { requests: 0, hits: 0, misses: 0, ended: 0 };
  }

  function remember(map, key, value, most) {
    map.delete(key);
    map.set(key, value);
    if (map.size > most) map.delete(map.keys().next().value);
  }

  const count = (value) => (Number.isFinite(value) && value > 0 ? value : 0);
  const text = (value) => (typeof value === "string" ? value : "");
  const list = (value) => (Array.isArray(value) ? value : []);

  function take(event) {
    if (event === null || typeof event !== "object") return;
    if (!["request", "expired", "evicted", "deleted", "dropped"].includes(event.kind)) return;
    const counted = { at: count(event.at), worker: text(event.worker), answers: [] };
    model.counted.push(counted);
    if (model.counted.length > COUNTED) model.counted.shift();
    if (event.kind === "request") takeRequest(event, counted.answers);
    else if (event.kind !== "dropped") takeEnd(event);
    model.fresh.push(event);
    if (model.fresh.length > ROWS) {
      model.fresh.shift();
      model.skipped += 1;
    }
  }

  function takeRequest(event, answers) {
    model.news.requests += 1;
    for (const answer of list(event.levels)) {
      if (!hues.has(answer?.level)) continue;
      const hits = count(answer.hits);
      const misses = count(answer.misses);
      const times = { request: count(event.us), lookup: count(answer.us) };
      answers.push({ level: answer.level, hits, misses, bytes: count(answer.bytes), ...times });
      model.news.hits += hits;
      model.news.misses += misses;
    }
    for (const op of list(event.ops)) if (Array.isArray(op)) takeOp(op, event);
  }

  function takeOp(op, event) {
    const key = text(op[field.key]);
    const kind = op[field.kind];
    // A key of 200 characters may be the beginning of a longer one.
    if (kind === "aside" || key.length >= 200) return;
    if (kind === "page" || kind === "vary") remember(model.names, key, text(event.path), NAMES);
    if (kind === "delete") {
      if (key === "*") dropLevel(op[field.level]);
      else model.keys.delete(key);
    } else if (op[field.note] === "stored" && hues.has(op[field.level])) {
      const ttl = op[field.ttl];
      keep(key, op[field.level], ttl, count(op[field.bytes]), count(event.at) * 1000);
    }
  }

  function takeEnd(event) {
    model.news.ended += count(event.events);
    model.keys.delete(text(event.key));
  }

  function dropLevel(level) {
    for (const [key, entry] of model.keys) if (entry.level === level) model.keys.delete(key);
  }

  // `at` is the server's time at which `ttl` was true.
  function keep(key, level, ttl, size, at) {
    const before = model.keys.get(key);
    if (before ? before.at > at : model.keys.size >= KEYS) return;
    const deadline = typeof ttl === "number" && ttl >= 0 ? at + ttl : null;
    const full = Math.max(deadline === null ? 0 : ttl, before?.full ?? 0);
    model.keys.set(key, { level, deadline, full, size, at, row: before?.row ?? null });
  }

  function takeState(state) {
    model.state = state;
    if (list(state.breakers).length) {
      const open = state.breakers.filter((breaker) => breaker.redis === "down");
      const several = state.breakers.length > 1;
      remember(model.breakers, text(state.worker), { open, several, at: Date.now() }, WORKERS);
    }
    if (state.redis !== "up") return;
    const at = count(state.at) * 1000;
    model.offset = count(state.now) * 1000 - Date.now();
    for (const { level, keys } of list(state.levels)) {
      const there = new Set();
      for (const [key, ttl, size] of list(keys)) {
        there.add(key);
        keep(key, level, ttl, size, at);
      }
      for (const [key, entry] of model.keys) {
        // One that was stored since Redis was looked at stays. So does one at zero, until
        // Redis says what became of it, or is silent for long.
        if (entry.level !== level || there.has(key) || entry.at > at - 200) continue;
        const due = entry.deadline !== null && at >= entry.deadline;
        if (!due || at > entry.deadline + DUE) model.keys.delete(key);
      }
    }
  }

  /* {level: {hits, misses, bytes, hit: [answer, ...], miss: [...]}} of the events that count. */
  function sums() {
    const levels = new Map(
      config.levels.map((name) => [name, { hits: 0, misses: 0, bytes: 0, hit: [], miss: [] }]),
    );
    for (const answer of model.counted.flatMap(({ answers }) => answers)) {
      const level = levels.get(answer.level);
      for (const what of ["hits", "misses", "bytes"]) level[what] += answer[what];
      if (answer.hits || answer.misses) level[answer.misses ? "miss" : "hit"].push(answer);
    }
    return levels;
  }

  /* The processes that the events are of, and those that were asked for their breaker. */
  function processes() {
    const ofEvents = model.counted.map(({ worker }) => worker).filter(Boolean);
    return [...new Set([...ofEvents, ...model.breakers.keys()])].sort();
  }

  // Drawing --------------------------------------------------------------------------------

  let paused = false;
  let timer = null;
  let drawn = -DRAW_EVERY;
  let slowDrawn = -1000;

  function wish() {
    if (paused || timer !== null || document.hidden) return;
    const wait = Math.max(0, drawn + DRAW_EVERY - performance.now());
    timer = setTimeout(() => requestAnimationFrame(draw), wait);
  }

  function draw(now) {
    timer = null;
    drawn = performance.now();
    if (paused) return;
    drawLevels();
    drawEvents();
    drawProcesses();
    if (now - slowDrawn > 900) {
      slowDrawn = now;
      drawPlot();
      drawKeys();
      drawFacts();
    }
  }

  // Sets a text only where it changes, so that nothing is laid out again for nothing.
  function say(element, words) {
    if (element.textContent !== words) element.textContent = words;
  }

  const cards = [...document.querySelectorAll(".level")];

  function drawLevels() {
    const levels = sums();
    cards.forEach((card, index) => {
      const level = levels.get(config.levels[index]);
      const lookups = level.hits + level.misses;
      const share = lookups ? (100 * level.hits) / lookups : 0;
      const [hits, misses, moved] = card.querySelectorAll(".counts b");
      // Never 100 % while there is a miss.
      const ratio = level.misses ? Math.min(99, Math.round(share)) : Math.round(share);
      say(card.querySelector(".ratio b"), lookups ? `${ratio} %` : "–");
      say(hits, whole.format(level.hits));
      say(misses, whole.format(level.misses));
      say(moved, bytes(level.bytes));
      card.querySelector(".part").setAttribute("width", `${share}%`);
    });
  }

  const eventList = byId("events");

  function drawEvents() {
    if (!model.fresh.length) return;
    const shown = model.fresh.splice(-ROWS_A_DRAWING);
    const left = model.fresh.length + model.skipped;
    model.fresh.length = 0;
    model.skipped = 0;
    const rows = shown.map(row).filter((item) => !replaced.has(item)).reverse();
    if (left) {
      const words = `${several(left, "more event")}, counted above`;
      const item = make("li", "event", words);
      item.dataset.kind = "skipped";
      rows.push(item);
    }
    // A reader who has scrolled down to an older event still sees it.
    const top = eventList.scrollTop;
    const height = eventList.scrollHeight;
    eventList.prepend(...rows);
    while (eventList.children.length > ROWS) eventList.lastElementChild.remove();
    for (const [key, { item }] of quiet) if (!item.isConnected) quiet.delete(key);
    if (top > 0) eventList.scrollTop = top + eventList.scrollHeight - height;
  }

  function drawProcesses() {
    const all = processes();
    if (!model.counted.length) {
      say(byId("workers"), isDown() ? "No event: they come by way of Redis." : "No event yet. Open a page of the site in another tab.");
      return;
    }
    const named = all.length > 8 ? [...all.slice(0, 8), "…"] : all;
    say(byId("workers"), `${several(all.length, "process", "processes")}: ${named.join(" · ")}`);
  }

  /* Host and process id, as in the list of processes; of a long host the end. */
  function shortName(worker) {
    const [, host, id] = /^(.*):(\d+)$/.exec(worker) ?? [];
    if (id === undefined) return worker.slice(0, 12) || "?";
    return `${host.length > 6 ? `…${host.slice(-5)}` : host}:${id}`;
  }

  // A health check every second would drown the rest: its row is replaced by the next one.
  const quiet = new Map(); // request: {item, times}
  const replaced = new WeakSet();

  function again(event, item) {
    const key = JSON.stringify([event.method, event.path, event.status]);
    const before = quiet.get(key);
    if (before) {
      before.item.remove();
      replaced.add(before.item);
    }
    const times = (before?.times ?? 0) + 1;
    remember(quiet, key, { item, times }, QUIET);
    return times > 1 ? `, ${several(times, "time")}` : "";
  }

  function row(event) {
    const item = make("li", "event");
    item.dataset.kind = text(event.kind);
    const worker = make("span", "worker", shortName(text(event.worker)));
    worker.title = text(event.worker);
    item.append(make("time", "", clock(count(event.at))));
    if (event.kind === "request") {
      const status = event.status === 200 ? "" : ` ${count(event.status)}`;
      const what = make("span", "what", `${text(event.method)} `, text(event.path));
      if (status) what.append(make("span", "status", status));
      what.title = text(event.path);
      item.append(what, make("span", "ms", milliseconds(count(event.us))), worker);
      const chips = list(event.levels).filter((answer) => answer?.word).map(chip);
      if (!chips.length) chips.push(make("span", "status", `asked no cache${again(event, item)}`));
      item.append(make("span", "chips", ...chips));
    } else if (event.kind === "dropped") {
      const words = `${several(count(event.events), "event")} lost while Redis was down`;
      item.append(make("span", "what down", shape("dropped"), words), worker);
    } else {
      const what = make("span", "what gone", shape(event.kind), make("b", "", event.kind));
      item.append(what, make("span", "worker", "Redis"));
      const level = text(event.level);
      const names = event.key ? nameOf(text(event.key), level) : several(count(event.events), "more key");
      const of = make("span", `of ${hues.get(level) ?? ""}`, titleOf(level));
      const key = make("span", "chip", of, " ", names);
      key.title = text(event.key);
      item.append(make("span", "chips", key));
    }
    return item;
  }

  function chip(answer) {
    const word = text(answer.word);
    const kind = ["hit", "miss", "down"].includes(word) ? word : "mixed";
    const waited = count(answer.collapsed) ? ", collapsed" : "";
    const words = `${word}${kind === "mixed" ? " hit" : ""}${waited}`;
    const of = make("span", `of ${hues.get(answer.level) ?? ""}`, titleOf(answer.level));
    const verdict = make("span", kind, shape(kind), make("b", "", words));
    const element = make("span", "chip", of, " ", verdict);
    const size = count(answer.bytes);
    if (size) element.append(` ${bytes(size)}`);
    return element;
  }

  // What a reader would call a key.
  function nameOf(key, level) {
    const prefix = config.prefixes.find(([start, name]) => name === level && key.startsWith(start));
    let name = key.replace(/^:\d+:/, ""); // As Django makes it without a KEY_PREFIX.
    if (prefix) {
      const rest = key.slice(prefix[0].length);
      name = rest.slice(rest.indexOf(":") + 1);
    }
    // A key that is the page's URL: without the host. Behind it, after a | each, are the
    // language, the time zone and the hash of the variant.
    const url = /^page:.*?https?:\/\/[^/]+(\/[^|]*)(.*)$/.exec(name);
    if (url) {
      const more = url[2].split("|").map((part) => (/^[0-9a-f]{16}$/.test(part) ? part.slice(0, 6) : part));
      return [url[1], ...more.filter(Boolean)].join(" ");
    }
    const page = /^views\.decorators\.cache\.cache_(page|header)\.(.*)/.exec(name);
    if (page) {
      // The path alone is the same for every query string: the hash tells them apart.
      const hash = (page[2].match(/[0-9a-f]{32}/) ?? [page[2]])[0].slice(0, 6);
      const of = `${model.names.get(key) ?? "…"} ${hash}`;
      return page[1] === "page" ? of : `Vary of ${of}`;
    }
    const fragment = /^template\.cache\.(.+)\.([0-9a-f]{32})$/.exec(name);
    if (!fragment) return name;
    // The hash of no vary-on value says nothing.
    const few = fragment[2].startsWith("d41d8cd98f00b204") ? "" : ` ${fragment[2].slice(0, 6)}`;
    return fragment[1] + few;
  }

  // The plot ------------------------------------------------------------------------------

  const plot = byId("plot");
  const BAND = 34;
  const LOWEST = 100; // us, at the left
  let highest = 100000; // us, at the right: grows by tens

  function statistics(answers) {
    const sorted = answers.map(({ request }) => request).sort((a, b) => a - b);
    const lookups = answers.map(({ lookup }) => lookup).sort((a, b) => a - b);
    const at = (values, share) => values[Math.min(values.length - 1, Math.floor(values.length * share))];
    return { n: sorted.length, median: at(sorted, 0.5), slow: at(sorted, 0.95), lookup: at(lookups, 0.5) };
  }

  function drawPlot() {
    const width = Math.max(240, Math.floor(plot.clientWidth));
    const names = config.levels;
    const left = 76;
    const right = width - 12;
    const bottom = names.length * BAND + 4;
    const levels = sums();
    for (const level of levels.values()) {
      for (const { request: us } of [...level.hit, ...level.miss]) {
        while (us > highest && highest < 1e8) highest *= 10;
      }
    }
    const decades = Math.log10(highest / LOWEST);
    const x = (us) => left + ((right - left) * Math.log10(Math.max(us, LOWEST) / LOWEST)) / decades;
    const parts = [];
    const isTight = (right - left) / decades < 56; // Then each second number has room.
    for (let us = LOWEST; us <= highest; us *= 10) {
      const at = x(us).toFixed(1);
      const words = us < 1000 ? `${us / 1000} ms` : us < 1e6 ? `${us / 1000} ms` : `${us / 1e6} s`;
      const anchor = us === highest ? "end" : "middle";
      parts.push(makeSvg("line", { class: "grid", x1: at, x2: at, y1: 0, y2: bottom }));
      if (isTight && Math.round(Math.log10(highest / us)) % 2) continue;
      parts.push(makeSvg("text", { x: us === highest ? right + 10 : at, y: bottom + 15, "text-anchor": anchor }, words));
    }
    names.forEach((name, index) => {
      const level = levels.get(name);
      const y = index * BAND + BAND / 2;
      parts.push(makeSvg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      parts.push(makeSvg("text", { class: "name", x: 0, y: y + 4 }, titleOf(name)));
      // Misses below the line and hits above it, so that neither covers the other.
      for (const [kind, dy] of [["miss", 6], ["hit", -6]]) {
        for (const { request: us } of level[kind]) {
          const at = x(us);
          parts.push(
            kind === "hit"
              ? makeSvg("circle", { class: "hit", cx: at.toFixed(1), cy: y + dy, r: 4 })
              : makeSvg("path", { class: "miss", d: `M${at.toFixed(1)} ${y + dy - 5}l5 5-5 5-5-5z` }),
          );
        }
        if (level[kind].length) {
          const at = x(statistics(level[kind]).median).toFixed(1);
          parts.push(makeSvg("line", { class: "median", x1: at, x2: at, y1: y + dy - 7, y2: y + dy + 7 }));
        }
      }
    });
    const label = "Dots on a logarithmic scale. The table below has the numbers.";
    const size = { width, height: bottom + 20, viewBox: `0 0 ${width} ${bottom + 20}` };
    plot.replaceChildren(makeSvg("svg", { ...size, role: "img", "aria-label": label }, ...parts));
    if (byId("numbers").open) drawNumbers();
  }

  function drawNumbers() {
    const rows = [];
    for (const [name, level] of sums()) {
      for (const kind of ["hit", "miss"]) {
        const { n, median, slow, lookup } = statistics(level[kind]);
        const values = n ? [n, ...[median, slow, lookup].map(milliseconds)] : [0, "–", "–", "–"];
        const head = make("th", "", titleOf(name));
        head.scope = "row";
        const cells = [make("span", kind, shape(kind), kind), ...values].map((value) => make("td", "", value));
        rows.push(make("tr", "", head, ...cells));
      }
    }
    byId("numbers-rows").replaceChildren(...rows);
  }

  byId("legend").append(
    make("span", "", make("span", "hit", shape("hit")), "all of its lookups hit"),
    make("span", "", make("span", "miss", shape("miss")), "it missed one or more"),
    make("span", "", "| median"),
  );
  byId("numbers").addEventListener("toggle", drawNumbers);

  // Keys -----------------------------------------------------------------------------------

  const keyList = byId("keys");
  const rank = new Map(config.levels.map((name, index) => [name, index]));

  function drawKeys() {
    const now = Date.now() + model.offset;
    const isNote = (key) => key.includes(".cache_header.");
    const sorted = [...model.keys].sort(
      ([keyA, a], [keyB, b]) =>
        rank.get(a.level) - rank.get(b.level) ||
        isNote(keyA) - isNote(keyB) ||
        (keyA < keyB ? -1 : 1),
    );
    const names = namesOf(sorted);
    const scales = new Map();
    for (const [, { level, full }] of sorted) scales.set(level, Math.max(full, scales.get(level) ?? 1));
    let place = keyList.firstElementChild;
    const rows = new Set();
    for (const [key, entry] of sorted) {
      entry.row ??= keyRow(key, entry);
      rows.add(entry.row.element);
      drawKey(entry, names.get(key), now, scales.get(entry.level));
      // Moved only when it is in the wrong place: an element that is moved loses the focus.
      if (entry.row.element === place) place = place.nextElementSibling;
      else keyList.insertBefore(entry.row.element, place);
    }
    for (const element of [...keyList.children]) {
      if (rows.has(element)) continue;
      // The button that has the focus may go with its key. Without this, the focus is nowhere.
      if (element.contains(document.activeElement)) keyList.focus({ preventScroll: true });
      element.remove();
    }
    drawKeysNote(sorted.length);
  }

  /* {key: what it is called}: the short name, or the whole key where two have the same name. */
  function namesOf(entries) {
    const names = new Map(entries.map(([key, { level }]) => [key, nameOf(key, level)]));
    const owners = new Map();
    for (const [key, { level }] of entries) {
      const called = `${level} ${names.get(key)}`;
      owners.set(called, [...(owners.get(called) ?? []), key]);
    }
    for (const keys of owners.values()) if (keys.length > 1) for (const key of keys) names.set(key, key);
    return names;
  }

  function keyRow(key, entry) {
    const element = make("li", `key ${hues.get(entry.level) ?? ""}`);
    const name = make("span", "name");
    name.title = key;
    const fill = make("span");
    const bar = make("span", "bar", fill);
    const left = make("b");
    const size = make("span");
    const words = make("span", "words", left, size);
    element.append(make("span", "of", titleOf(entry.level)), name, make("span", "left", words, bar));
    if (mayTouch) {
      const buttons = make("span", "buttons");
      for (const [label, act] of [["Show", show], ["Expire now", expire]]) {
        const button = make("button", "", label, make("span", "unseen", ` ${key}`));
        button.type = "button";
        button.addEventListener("click", () => act(key, entry.level, button));
        buttons.append(button);
      }
      element.append(buttons);
    }
    return { element, name, fill, bar, left, size };
  }

  function drawKey({ deadline, full, size, row }, name, now, scale) {
    const left = deadline === null ? null : Math.max(0, deadline - now);
    const due = left === 0;
    say(row.name, name);
    row.name.toggleAttribute("data-whole", name === row.name.title);
    say(row.left, left === null ? "no timeout" : due ? "due" : duration(Math.ceil(left / 1000)));
    say(row.size, size ? bytes(size) : "");
    row.element.toggleAttribute("data-due", due);
    row.element.title = due ? "Its time is over. Redis has not said yet that it expired." : "";
    // Of the longest that this level's keys had, or of its own if it has much less.
    const of = full < scale / 20 ? full : scale;
    row.fill.style.inlineSize = `${left === null ? 100 : Math.min(100, (100 * left) / Math.max(of, 1))}%`;
  }

  function drawKeysNote(shown) {
    const levels = list(model.state?.levels);
    const total = levels.reduce((sum, level) => sum + count(level.total), 0);
    const aside = levels.reduce((sum, level) => sum + count(level.aside), 0);
    const parts = Date.now() < model.toldUntil ? [model.told] : [];
    if (model.state?.redis === "up" && model.state.levels === null) {
      parts.push("This user of Redis may not list keys; those below were seen in events.");
    }
    const others = total - aside - shown;
    if (shown) parts.push(`${several(shown, "key")} listed${others > 0 ? ` and about ${whole.format(others)} more` : ""}.`);
    else if (model.state?.redis === "up" && model.state.levels) parts.push("No key yet. A page that is asked for brings some.");
    if (aside) parts.push(`${whole.format(aside)} are bookkeeping, and not listed.`);
    if (shown) parts.push("At zero a key can’t be read any more, and is “due” until Redis says that it expired.");
    say(byId("keys-note"), parts.join(" "));
  }

  // Facts, notices, news ------------------------------------------------------------------------

  function drawFacts() {
    const facts = [];
    const servers = list(model.state?.servers);
    servers.forEach((server, index) => {
      const name = servers.length > 1 ? ` (server ${index + 1})` : "";
      const most = server.maxmemory ? ` of ${bytes(server.maxmemory)}, ${server.maxmemory_policy}` : "";
      if (server.used_memory !== undefined) facts.push([`Memory${name}`, bytes(server.used_memory) + most]);
      if (server.evicted_keys !== undefined) facts.push([`Evicted${name}`, whole.format(server.evicted_keys)]);
      if (server.expired_keys !== undefined) facts.push([`Expired${name}`, whole.format(server.expired_keys)]);
    });
    const breaker = wordsOfBreakers();
    if (breaker) facts.push(["Circuit breaker", breaker]);
    const listens = model.state?.listener;
    if (listens) facts.push(["Listens to Redis", text(listens.worker)]);
    const [first] = model.counted;
    if (first) facts.push(["Counted", `the last ${several(model.counted.length, "event")}, since ${clock(first.at).slice(0, 8)}`]);
    byId("facts").replaceChildren(
      ...facts.map(([name, value]) => make("span", "", `${name} `, make("b", "", value))),
    );
    let words = "";
    if (isDown()) {
      words = "Redis does not answer. Pages are built without the cache, and the wall asks again every 10 seconds.";
    } else if (listens?.notifications === "off") {
      words = "Redis doesn’t tell which keys expire, are evicted or deleted. It needs notify-keyspace-events Egxe.";
    }
    const notice = byId("notice");
    notice.hidden = !words;
    notice.dataset.kind = isDown() ? "down" : "";
    say(notice, words);
    drawProcesses();
  }

  // Each process has its own, and tells of it when the wall happens to ask it.
  function wordsOfBreakers() {
    const now = Date.now();
    const parts = [];
    let closed = 0;
    for (const [worker, { open, several: many, at }] of model.breakers) {
      if (now - at > BREAKER_NEWS) model.breakers.delete(worker);
      else if (!open.length) closed += 1;
      for (const { since, levels } of open) {
        const of = many ? ` for ${list(levels).join(", ")}` : "";
        parts.push(`open in ${worker} since ${clock(count(since)).slice(0, 8)}${of}`);
      }
    }
    const all = processes().length;
    // Those that have not been asked by this page are not known.
    if (closed && model.breakers.size < all) parts.push(`closed where asked: ${closed} of ${all} processes`);
    else if (closed) parts.push(`closed in ${several(closed, "process", "processes")}`);
    return parts.join(", ");
  }

  function tellNews() {
    const { requests, hits, misses, ended } = model.news;
    model.news = newNews();
    if (paused || document.hidden || !(requests || ended)) return;
    say(
      byId("news"),
      `Last ${NEWS_EVERY / 1000} seconds: ${several(requests, "request")}, ${several(hits, "hit")}, ` +
        `${several(misses, "miss", "misses")}, ${several(ended, "key")} expired, evicted or deleted.`,
    );
  }

  // Show and expire ------------------------------------------------------------------------------

  async function post(url, key, level) {
    const token = byId("token").elements.csrfmiddlewaretoken.value;
    const response = await fetch(url, {
      method: "POST",
      headers: { "X-CSRFToken": token },
      body: new URLSearchParams({ key, level }),
    });
    const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
    const answer = isJson ? await response.json() : {};
    if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
    return answer;
  }

  async function show(key, level) {
    const dialog = byId("shown");
    let facts = "";
    let value = "";
    try {
      const answer = await post(config.urls.show, key, level);
      facts = [
        answer.type,
        answer.bytes === null ? "" : bytes(answer.bytes),
        answer.memory === null ? "" : `${bytes(answer.memory)} of memory`,
        answer.ttl < 0 ? "no timeout" : `${duration(Math.ceil(answer.ttl / 1000))} left`,
      ].filter(Boolean).join(" · ");
      value = answer.text ?? answer.why;
    } catch (error) {
      value = error.message;
    }
    say(byId("shown-title"), key);
    say(byId("shown-facts"), facts);
    say(byId("shown-text"), value);
    dialog.showModal();
  }

  // The key of the button that opened it may have expired meanwhile.
  byId("shown")?.addEventListener("close", () => {
    if (document.activeElement === document.body) keyList.focus({ preventScroll: true });
  });

  async function expire(key, level, button) {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // Not `disabled`, which would take the focus away.
    let words = `Told Redis that ${key} expires now.`;
    try {
      await post(config.urls.expire, key, level);
      const entry = model.keys.get(key);
      if (entry) entry.deadline = Date.now() + model.offset;
    } catch (error) {
      words = error.message;
    }
    button.ariaDisabled = null;
    say(byId("news"), words);
    Object.assign(model, { told: words, toldUntil: Date.now() + 10000 });
    slowDrawn = -1000;
    wish();
  }

  // Where events come from: the stream, or asking --------------------------------------------------

  let last = config.after;
  let source = null;
  let poll = null;
  let pollingSince = 0;
  let mode = "waiting"; // live, polling, down, lost
  let lookTimer = null;
  let leaving = null;

  const isDown = () => mode === "down";

  // Stream IDs are two numbers that may not fit into a double.
  function isNewer(id) {
    if (!last) return true;
    const [a, b] = [id, last].map((value) => value.split("-").map(BigInt));
    return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
  }

  function arrive(id, event) {
    if (!isNewer(id)) return;
    last = id;
    try {
      take(event());
    } catch {
      // Other programs may write into the stream.
    }
    if (paused) drawState();
    else wish();
  }

  function enter(next) {
    if (mode === next) return;
    mode = next;
    drawState();
    drawFacts();
  }

  function openStream() {
    closeAll();
    source = new EventSource(last ? `${config.urls.stream}?after=${last}` : config.urls.stream);
    const own = source;
    source.onopen = () => enter("live");
    source.onmessage = (message) => arrive(message.lastEventId, () => JSON.parse(message.data));
    source.addEventListener("down", () => {
      closeAll();
      startPolling();
    });
    source.onerror = () => {
      if (own !== source || own.readyState !== EventSource.CLOSED) {
        // The browser comes back by itself: a stream ends after a while so that places go round.
        setTimeout(() => own === source && own.readyState === EventSource.CONNECTING && enter("lost"), 4000);
        return;
      }
      // 204: all places are taken.
      closeAll();
      startPolling();
    };
  }

  function startPolling() {
    pollingSince = Date.now();
    ask();
  }

  async function ask() {
    const own = {};
    poll = own;
    let wait = POLL_EVERY;
    try {
      const query = last ? `?after=${last}` : "";
      const response = await fetch(config.urls.events + query, { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      const answer = await response.json();
      if (poll !== own) return;
      if (answer.redis !== "up") {
        wait = POLL_WHEN_DOWN;
        enter("down");
      } else {
        const wasDown = mode === "down" || mode === "lost";
        for (const { id, event } of answer.events) arrive(id, () => event);
        if (answer.last && !answer.events.length) last = answer.last;
        // A full answer: there is more.
        if (answer.events.length >= 200) wait = DRAW_EVERY;
        enter("polling");
        if (wasDown || Date.now() - pollingSince > STREAM_AGAIN) {
          openStream();
          return;
        }
      }
    } catch {
      if (poll !== own) return;
      wait = POLL_WHEN_DOWN;
      enter("lost");
    }
    // Not all walls in the same moment.
    own.timer = setTimeout(ask, wait * (0.9 + 0.2 * Math.random()));
  }

  function closeAll() {
    source?.close();
    source = null;
    if (poll) clearTimeout(poll.timer);
    poll = null;
  }

  async function look() {
    clearTimeout(lookTimer);
    let wait = LOOK_EVERY;
    try {
      const response = await fetch(config.urls.state, { cache: "no-store" });
      const state = await response.json();
      if (state.redis !== "up") wait = POLL_WHEN_DOWN;
      takeState(state);
    } catch {
      wait = POLL_WHEN_DOWN;
    }
    wish();
    if (!document.hidden) lookTimer = setTimeout(look, wait * (0.9 + 0.2 * Math.random()));
  }

  const WORDS = {
    waiting: "Connecting",
    live: "Live",
    polling: "Live, asking every 2 seconds",
    down: "Redis does not answer",
    lost: "No connection to the server, trying again",
  };

  function drawState() {
    const fresh = model.fresh.length + model.skipped;
    byId("state").dataset.state = paused ? "paused" : mode;
    say(byId("state-words"), paused ? `Paused, ${several(fresh, "new event")}` : WORDS[mode]);
  }

  const pause = byId("pause");
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    // The label stays and the state changes: that is what aria-pressed is for.
    pause.setAttribute("aria-pressed", String(paused));
    drawState();
    slowDrawn = -1000;
    wish();
  });

  document.addEventListener("visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) {
      leaving = setTimeout(closeAll, LEAVE_AFTER);
      return;
    }
    if (!source && !poll) openStream();
    look();
  });

  // Bars run down and times pass without an event, too.
  setInterval(wish, 1000);
  setInterval(tellNews, NEWS_EVERY);
  new ResizeObserver(() => {
    slowDrawn = -1000;
    wish();
  }).observe(plot);
  drawState();
  drawPlot();
  openStream();
  look();
})();
