/*
  The page x-ray: who answered the request for this page, drawn from the headers of this very
  response. A page that comes without Server-Timing is left as it is.

  Everything from outside (keys, paths, lines) gets into the page as text, never as markup, and
  nothing is styled inline, so `default-src 'self'` is policy enough.
*/
(() => {
  "use strict";

  const codeURL = document.currentScript.dataset.code;
  // [[name, title], ...], outermost first.
  const GIVEN = JSON.parse(document.currentScript.dataset.levels || "[]");
  const LEVELS = GIVEN.map(([name]) => name);
  const TITLES = new Map([["browser", "Browser"], ...GIVEN]);
  const SIGNS = { hit: "✓", miss: "✗", mixed: "◐", down: "!", confirmed: "✓", bypass: "↷" };
  const REASONS = {
    "never-cache": "the view says never_cache",
    private: "the response is private",
    cookie: "the response sets a cookie",
    method: "only GET and HEAD are cached",
    streaming: "a stream is not cached",
    "opted-out": "this page is not cached here",
    "not-reached": "answered before the cache was asked",
    collapsed: "another request was building it, and this one waited",
  };
  const WAITED = "collapsed: another request built it";
  // Of the rings: a full one is a minute or more.
  const FULL_RING = 60;

  /* What the headers say ---------------------------------------------------------- */

  /** Text as the instrument meant it, without what could hide or reorder what follows. */
  function decoded(text) {
    try {
      text = decodeURIComponent(text);
    } catch {
      // A key that was cut within an escape.
    }
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  }

  /** The metrics of a Server-Timing header, in the form that PerformanceServerTiming has. */
  function parse(header) {
    return [...header.matchAll(/([^\s,;="]+)((?:;[^,;"]+(?:"[^"]*")?)*)/g)].map(([, name, rest]) => ({
      name,
      duration: Number(/;dur=([\d.]+)/.exec(rest)?.[1] ?? 0),
      description: /;desc="([^"]*)"/.exec(rest)?.[1] ?? "",
    }));
  }

  /** The browser's own copy of this page, without a request to the server; null if it has none. */
  async function copyOfBrowser() {
    try {
      return await fetch(location.href, { cache: "only-if-cached", mode: "same-origin" });
    } catch {
      return null;
    }
  }

  /** {metrics, answer}: those of this response, or null when this browser doesn't tell. */
  async function read(navigation) {
    if ("serverTiming" in navigation) {
      return navigation.serverTiming;
    }
    // Firefox tells it to secure pages only. Any page may read the browser's own copy.
    const copy = await copyOfBrowser();
    if (!copy) {
      return null;
    }
    const size = (await copy.clone().arrayBuffer()).byteLength;
    // Of another size it is an older response: this one was not stored.
    return size === navigation.decodedBodySize ? parse(copy.headers.get("server-timing") ?? "") : null;
  }

  /** "hit n=2 ttl=19 b=336 at=..." as {word, n, ttl, b, at}. */
  function fields(description) {
    const [word, ...pairs] = description.split(" ");
    const found = { word };
    for (const pair of pairs) {
      const [, name, value] = /^(\w+)=(.*)$/.exec(pair) ?? [];
      if (name) {
        found[name] = name === "at" || name === "in" ? decoded(value) : Number(value);
      }
    }
    return found;
  }

  /** One key that was asked for: "hit KEY SOURCE ttl=19 b=202". */
  function keyOf(metric) {
    const [word, key = "", source = "-", ...rest] = metric.description.split(" ");
    const name = decoded(key);
    return {
      ...fields([word, ...rest].join(" ")),
      key: name,
      fragment: /^template\.cache\.(.*)\.[^.]*$/.exec(name)?.[1],
      at: source === "-" ? "" : decoded(source),
      collapsed: rest.includes("collapsed"),
      ms: metric.duration,
    };
  }

  /** Everything the panel shows, from the navigation, its metrics and how the page came. */
  function xray(navigation, metrics, restored) {
    const all = (name) => metrics.filter((metric) => metric.name === name);
    const one = (name) => metrics.find((metric) => metric.name === name);
    const [id, born] = (one("req")?.description ?? "@").split("@");
    const names = [...LEVELS];
    for (const metric of metrics) {
      if (/^\S+ n=\d/.test(metric.description) && !names.includes(metric.name)) {
        names.push(metric.name);
      }
    }
    const whys = Object.fromEntries(all("why").map((metric) => metric.description.split(" ")));
    const fragments = all("f").map(keyOf);
    const keys = grouped([
      ...fragments.map((key) => ({ ...key, level: key.in ?? "fragment" })),
      ...all("l").map(keyOf).map((key) => ({ ...key, level: key.in ?? "low-level" })),
    ], (key) => key.level);
    const browser = ringOfBrowser(navigation, restored);
    const found = {
      id, names, fragments, browser, born: Number(born),
      app: one("app")?.duration, cost: one("watch")?.duration,
      dropped: Number(one("dropped")?.description ?? 0),
      rings: [browser], answered: browser.state === "hit" ? "browser" : "",
    };
    for (const name of names) {
      const ring = ringOf(name, one(name), whys[name], keys.get(name) ?? [], found.answered);
      found.rings.push(ring);
      if (ring.page && (ring.state === "hit" || ring.collapsed)) {
        found.answered = name;
      }
    }
    return found;
  }

  function ringOfBrowser(navigation, restored) {
    const ring = { name: "browser", keys: [], ms: navigation.responseStart - navigation.requestStart };
    const { transferSize: sent, encodedBodySize: size } = navigation;
    if (restored) {
      return { ...ring, state: "hit", word: "hit", ms: undefined, note: "Back or Forward brought the page from memory. Django was not asked." };
    }
    if (sent === 0 && navigation.decodedBodySize > 0) {
      return { ...ring, state: "hit", word: "hit", ms: undefined, note: "Its own copy. Django was not asked." };
    }
    // A 304 counts as 300 bytes, and Chromium calls it a 200 that came from its cache.
    if (sent > 0 && (sent === 300 || sent < size)) {
      return { ...ring, state: "confirmed", word: "confirmed", note: "Django said that the browser’s copy is still right (304)." };
    }
    return { ...ring, state: "miss", word: "miss", size: sent, note: "Came over the network." };
  }

  function ringOf(name, metric, why, keys, answered) {
    const ring = { name, keys, state: "idle" };
    if (answered) {
      return { ...ring, keys: [], word: `not reached: ${called(answered)} answered`, note: "" };
    }
    if (!metric) {
      return why && why !== "redis-down"
        ? { ...ring, state: "bypass", word: "bypass", note: sentence(reason(why)) }
        : { ...ring, word: "not used", note: "" };
    }
    const { word, n, ttl, b, at } = fields(metric.description);
    const mixed = /^\d+\/\d+$/.test(word);
    const notes = [];
    if (word === "down") {
      notes.push("Redis did not answer.");
    } else if (why) {
      notes.push(sentence(reason(why)));
    } else if (at && word === "miss") {
      notes.push(b > 0 ? "Stored for the next request." : "Not stored.");
    }
    if (ttl < -1) {
      notes.push(`Served ${-ttl} s after its time, while a new one is made.`);
    }
    const collapsed = why === "collapsed";
    const said = mixed ? `${word} hit` : collapsed ? `${word}, collapsed` : word;
    return {
      ...ring, collapsed, state: mixed ? "mixed" : word, word: said, page: at !== undefined,
      lookups: n, ttl: ttl >= 0 ? ttl : undefined, size: b || undefined, ms: metric.duration, at: at ?? "", note: notes.join(" "),
    };
  }

  function reason(why) {
    const level = /^cached-by-(.*)$/.exec(why)?.[1];
    const status = /^status-(\d+)$/.exec(why)?.[1];
    if (level) return `${called(level)} caches this page`;
    if (status) return `a page of status ${status} is not cached`;
    return REASONS[why] ?? decoded(why);
  }

  const titleOf = (name) => TITLES.get(name) ?? name;
  /** What a sentence calls it. */
  const called = (name) => (name === "browser" ? "the browser" : `the level “${titleOf(name)}”`);
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

  /* Words ------------------------------------------------------------------------- */

  const bytes = (size) => (size < 1000 ? `${size} B` : size < 1e6 ? `${(size / 1000).toFixed(1)} KB` : `${(size / 1e6).toFixed(1)} MB`);
  const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(2) : Math.round(ms)} ms`;

  function duration(seconds) {
    if (seconds < 120) return `${seconds} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  }

  /** With seconds for less than an hour, so that it is seen to run down. */
  function left(seconds) {
    if (seconds <= 0) return "due";
    const rest = seconds >= 120 && seconds < 3600 ? ` ${seconds % 60} s` : "";
    return `${duration(seconds)}${rest} left`;
  }

  const ago = (seconds) => `${duration(Math.max(0, seconds))} ago`;

  function headline({ answered, rings }) {
    if (answered === "browser") return "Your browser answered";
    if (answered) {
      const waited = rings.some((ring) => ring.collapsed);
      return `${titleOf(answered)}: ${waited ? "waited for another request" : "hit"}`;
    }
    if (rings.some((ring) => ring.state === "down")) return "Redis is down: Django made this page";
    if (rings.some((ring) => ring.name !== "browser" && (ring.state === "hit" || ring.state === "mixed"))) {
      return "Django made this page from cached parts";
    }
    return "Django made this page";
  }

  /* The panel ---------------------------------------------------------------------- */

  /** An element: make("b", {class: "word"}, "text", child, ...). */
  function make(tag, attributes = {}, ...children) {
    const element = tag === "svg" || tag === "circle" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== "" && child != null));
    return element;
  }

  // Where it stands beside the page, which makes room. Elsewhere it is a sheet at the bottom.
  const beside = matchMedia("(min-width: 70rem) and (min-height: 30rem)");

  const memory = {
    read(name) {
      try {
        return localStorage.getItem(name);
      } catch {
        return null; // Storage may be forbidden.
      }
    },
    write(name, value) {
      try {
        localStorage.setItem(name, value);
      } catch {
        // Then it is forgotten.
      }
    },
    get open() {
      const said = memory.read("xray");
      if (said) return said === "open";
      // Not chosen yet: open where it stands beside the page.
      return beside.matches;
    },
    set open(value) {
      memory.write("xray", value ? "open" : "closed");
    },
  };

  let ticks = []; // What changes every second: functions of the current time on the server.
  let panel = null;

  function draw(found, navigation) {
    ticks = [];
    panel?.remove();
    const received = performance.timeOrigin + navigation.responseStart;
    // By the server's clock where the server has just said what it reads; with a copy of the
    // browser's, which may be of yesterday, the two clocks have to agree.
    const offset = found.answered === "browser" || !found.born ? 0 : found.born * 1000 - received;
    const now = () => Math.max(found.born || 0, Math.floor((Date.now() + offset) / 1000));

    const facts = [];
    if (found.answered === "browser") {
      facts.push("Django was not asked");
    } else {
      if (found.app !== undefined) facts.push(`${milliseconds(found.app)} in Django`);
      if (found.cost !== undefined) facts.push(`${milliseconds(found.cost).replace(" ", "\u00a0")} of it watching`);
    }
    const answering = found.rings.find((ring) => ring.name === found.answered);
    const short = make("span", { class: "xray-short" });
    if (answering) {
      ticking(short, answering, found, (text) => (text ? ` · ${text}` : ""));
    }
    const toggle = make("button", { type: "button", class: "xray-toggle", "aria-controls": "xray-body" },
      figure(found),
      make("span", { class: "xray-title" },
        make("span", { class: "xray-label" }, "Cache x-ray"),
        make("b", { class: "xray-headline" }, headline(found), short),
        make("span", { class: "xray-facts" }, facts.join(", "))),
      make("span", { class: "xray-arrow", "aria-hidden": "true" }));
    const body = make("div", { id: "xray-body", class: "xray-body" },
      make("ol", { class: "xray-levels" }, ...found.rings.map((ring) => row(ring, found))),
      make("div", { class: "xray-foot" },
        codeURL && navigation.responseStatus !== 404 ? make("a", { class: "xray-code", href: linkToCode(found) }, "Show the code") : null,
        found.id ? make("span", { class: "xray-id" }, "Request ", make("code", {}, decoded(found.id))) : null));
    panel = make("aside", { id: "xray", "aria-label": "Cache x-ray" }, toggle, body);

    const show = (open) => {
      panel.classList.toggle("xray-closed", !open);
      document.documentElement.classList.toggle("xray-open", open);
      toggle.setAttribute("aria-expanded", String(open));
      body.hidden = !open;
    };
    toggle.addEventListener("click", () => {
      memory.open = body.hidden;
      show(body.hidden);
    });
    panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !body.hidden) {
        memory.open = false;
        show(false);
        toggle.focus();
      }
    });
    show(memory.open);
    markFragments(found);
    tick(now());
    document.body.append(panel);
    makeRoom();
    clearInterval(draw.timer);
    draw.timer = setInterval(() => document.hidden || tick(now()), 1000);
  }

  const tick = (time) => ticks.forEach((change) => change(time));

  /** Let `element` say how much time is left, from second to second. */
  function ticking(element, { ttl }, { born }, words = (text) => text) {
    if (ttl === undefined) return element;
    ticks.push((time) => {
      element.textContent = words(left(ttl - (time - (born || time))));
    });
    return element;
  }

  /** Five rings, outermost first. The list beside them says the same in words. */
  function figure(found) {
    const step = 46 / found.rings.length;
    const svg = make("svg", { class: "xray-rings", viewBox: "0 0 100 100", "aria-hidden": "true", focusable: "false" });
    found.rings.forEach((ring, index) => {
      const circle = { cx: 50, cy: 50, r: (47 - index * step).toFixed(2) };
      svg.append(make("circle", { ...circle, class: `xray-track xray-is-${ring.state} xray-of-${ring.name}` }));
      if (["hit", "mixed", "miss", "confirmed"].includes(ring.state) && (ring.state !== "miss" || ring.ttl)) {
        const arc = make("circle", { ...circle, class: `xray-arc xray-is-${ring.state} xray-of-${ring.name}`, pathLength: 100, transform: "rotate(-90 50 50)", "stroke-dasharray": "100 100" });
        if (ring.ttl !== undefined) {
          ticks.push((time) => {
            const part = Math.max(0, Math.min(1, (ring.ttl - (time - (found.born || time))) / FULL_RING));
            arc.setAttribute("stroke-dasharray", `${(part * 100).toFixed(1)} 100`);
          });
        }
        svg.append(arc);
      }
    });
    return svg;
  }

  /** What was asked for: the name of a fragment, or the key. A hash in it is cut short. */
  function nameOf(key) {
    const name = key.fragment ?? key.key;
    return make("span", { class: "xray-key", title: key.key }, name.replace(/[0-9a-f]{24,}/g, (hash) => `${hash.slice(0, 8)}…`));
  }

  const word = (state, text) => make("b", { class: `xray-word xray-is-${state}` },
    SIGNS[state] ? make("span", { "aria-hidden": "true" }, SIGNS[state]) : "", text);

  function row(ring, found) {
    const numbers = make("span", { class: "xray-numbers" });
    numbers.append(...[
      ring.ttl === undefined ? null : ticking(make("span"), ring, found),
      ring.size === undefined ? null : make("span", {}, bytes(ring.size)),
      ring.ms === undefined ? null : make("span", {}, milliseconds(ring.ms)),
    ].filter(Boolean));
    const item = make("li", { class: `xray-level xray-of-${ring.name}`, "data-level": ring.name, "data-state": ring.state },
      make("span", { class: "xray-name" }, titleOf(ring.name)), word(ring.state, ring.word), numbers);
    const sources = [...new Set(ring.keys.map((key) => key.at).filter(Boolean))];
    const source = ring.at || (ring.keys.length === 1 ? sources[0] : "");
    const only = ring.keys.length === 1 ? ring.keys[0] : null;
    const parts = [
      only ? nameOf(only) : null,
      only?.collapsed ? WAITED : null,
      ring.note || null,
      source ? make("code", {}, source) : null,
    ].filter(Boolean);
    if (parts.length) item.append(make("span", { class: "xray-note" }, ...parts.flatMap((part) => [" ", part]).slice(1)));
    if (ring.name === "browser") {
      if (ring.state === "hit") {
        item.append(ageOfCopy(ring, found), askAgain());
      }
    } else if (ring.keys.length > 1 || (found.dropped && ring.lookups > 1)) {
      item.append(listOfKeys(ring, found));
    }
    return item;
  }

  /** When the browser's copy was made, and, once that is read, how long it may be used. */
  function ageOfCopy(ring, found) {
    const age = make("span", { class: "xray-note" });
    let timeLeft = () => "";
    ticks.push((time) => {
      const parts = found.born ? [`Answered by Django ${ago(time - found.born)}`] : [];
      if (timeLeft(time)) parts.push(timeLeft(time));
      age.textContent = parts.length ? `${parts.join(", ")}.` : "";
    });
    copyOfBrowser().then((copy) => {
      const control = copy?.headers.get("cache-control") ?? "";
      const lifetime = Number(/max-age=(\d+)/.exec(control)?.[1]) - Number(copy?.headers.get("age") ?? 0);
      if (lifetime > 0 && found.born) {
        timeLeft = (time) => {
          const rest = lifetime - (time - found.born);
          return rest > 0 ? left(rest) : "its time is over";
        };
        tick(Math.floor(Date.now() / 1000));
      }
    });
    return age;
  }

  function askAgain() {
    const button = make("button", { type: "button", class: "xray-again" }, "Ask Django again");
    button.addEventListener("click", () => location.reload());
    return button;
  }

  function listOfKeys(ring, found) {
    const list = make("ul", { class: "xray-keys" });
    // Keys that one line asked for, with the same answer, are one entry.
    const groups = grouped(ring.keys, (key) => `${key.word} ${key.at} ${key.fragment ?? ""} ${key.collapsed}`);
    for (const group of groups.values()) {
      const [key] = group;
      const rest = make("span", { class: "xray-numbers" });
      // Together: what expires first, and all the bytes.
      const ttls = group.map(({ ttl }) => ttl).filter((ttl) => ttl !== undefined);
      const size = group.reduce((sum, { b }) => sum + (b || 0), 0);
      if (ttls.length) rest.append(ticking(make("span"), { ttl: Math.min(...ttls) }, found));
      if (size) rest.append(make("span", {}, bytes(size)));
      list.append(make("li", {}, word(key.word, key.word), " ",
        make("span", {}, nameOf(key), group.length > 1 ? ` and ${group.length - 1} more` : "", key.collapsed ? ` ${WAITED}` : ""), " ",
        make("span", { class: "xray-where" }, make("code", {}, key.at), " ", rest)));
    }
    // Where one alias has pages and values, the page is one of the lookups and not of the keys.
    const lookups = (ring.lookups ?? ring.keys.length) - (ring.page ? 1 : 0);
    const missing = lookups - ring.keys.length;
    if (found.dropped && missing > 0) {
      list.append(make("li", {}, `${missing} more, for which the header had no room`));
    }
    const keys = ring.keys.length && ring.keys.every((key) => key.fragment) ? "fragments" : "keys";
    const few = list.children.length < 5 ? { open: "" } : {};
    return make("details", { class: "xray-details", ...few }, make("summary", {}, `${lookups} ${keys}`), list);
  }

  /** The code viewer, with each line that asked and what it got. */
  function linkToCode(found) {
    const query = new URLSearchParams({ path: location.pathname });
    if (found.answered) query.set("answered", found.answered);
    for (const ring of found.rings) {
      if (ring.name === "browser") continue;
      // A level of pages and values: after a hit of the page, no value would have been asked for.
      const page = ring.page ? [{ word: ring.state === "mixed" ? "miss" : ring.state, at: ring.at }] : [];
      for (const { word: got, at } of [...page, ...ring.keys]) {
        if (at) query.append(got, at);
      }
    }
    return `${codeURL}?${query}`;
  }

  /* Fragments: [data-fragment="its name"][data-rendered="Unix time"] ------------------ */

  function markFragments(found) {
    document.querySelectorAll(".xray-tag").forEach((tag) => tag.remove());
    const asked = grouped(found.fragments, (key) => key.fragment);
    for (const element of document.querySelectorAll("[data-fragment][data-rendered]")) {
      const key = found.answered ? null : asked.get(element.dataset.fragment)?.shift();
      const outer = element.parentElement.closest("[data-fragment]");
      let state = key?.word ?? "unknown";
      let inside = "";
      let says = { hit: "hit", miss: "miss", down: "down" }[state];
      if (found.answered) {
        state = "frozen";
        says = "frozen";
        inside = ` inside the copy of ${called(found.answered)}`;
      } else if (!key && outer) {
        state = "frozen";
        says = "frozen";
        inside = ` inside ${outer.dataset.fragment}`;
      }
      if (!says) {
        state = "unknown";
        says = "not told";
      }
      element.dataset.xray = state;
      const age = make("span");
      const rendered = Number(element.dataset.rendered);
      if (rendered) {
        ticks.push((time) => {
          age.textContent = ago(time - rendered);
        });
      }
      const tag = make("p", { class: "xray-tag" }, make("b", {}, SIGNS[state] ? make("span", { "aria-hidden": "true" }, `${SIGNS[state]} `) : "", state === "down" ? make("span", { class: "xray-wide" }, "Redis ") : "", says, make("span", { class: "xray-wide" }, inside)),
        rendered ? make("span", {}, " · ", make("span", { class: "xray-wide" }, "rendered "), age) : null);
      tag.classList.toggle("xray-slim", element.offsetWidth < 420);
      element.append(tag);
    }
  }

  function grouped(keys, by) {
    const groups = new Map();
    for (const key of keys) groups.set(by(key), [...(groups.get(by(key)) ?? []), key]);
    return groups;
  }

  /* Room for it: the page can be scrolled clear of the panel, and so can what has the focus. */

  const observer = new ResizeObserver(makeRoom);

  function makeRoom() {
    observer.disconnect();
    observer.observe(panel);
    document.documentElement.classList.add("xray-drawn");
    document.documentElement.style.setProperty("--xray-height", `${Math.ceil(panel.getBoundingClientRect().height)}px`);
  }

  /** Where nothing can be read, say what to do. */
  function drawHint() {
    if (memory.read("xray-hint") === "hidden") return;
    const hide = make("button", { type: "button" }, "Hide this");
    hide.addEventListener("click", () => {
      memory.write("xray-hint", "hidden");
      panel.remove();
      document.documentElement.classList.remove("xray-drawn");
    });
    panel = make("aside", { id: "xray", class: "xray-hint xray-closed", "aria-label": "Cache x-ray" },
      make("p", {}, make("b", {}, "Cache x-ray: "),
        isSecureContext
          ? "this browser doesn’t let a page read its Server-Timing header. Any current browser does."
          : "over plain http this browser hides the Server-Timing header from the page. Open the site as http://localhost or by https, or read the headers with curl -I."), hide);
    document.body.append(panel);
    makeRoom();
  }

  async function start(restored) {
    const [navigation] = performance.getEntriesByType("navigation");
    const metrics = navigation ? await read(navigation) : null;
    if (metrics === null) {
      if (!panel) drawHint();
    } else if (metrics.some((metric) => metric.name === "req")) {
      draw(xray(navigation, metrics, restored), navigation);
    }
  }

  // The room beside the page is made before there is a page, so that nothing jumps. What
  // stands in it has to wait for the end of the response: only then its size is known.
  const [navigation] = performance.getEntriesByType("navigation");
  if (memory.open && navigation?.serverTiming?.some((metric) => metric.name === "req")) {
    document.documentElement.classList.add("xray-open");
  }
  addEventListener("DOMContentLoaded", () => {
    const [{ responseEnd } = {}] = performance.getEntriesByType("navigation");
    if (responseEnd > 0) start(false);
    else addEventListener("load", () => setTimeout(start, 0, false), { once: true });
  });
  // From the back/forward cache, where the page has slept with its panel.
  addEventListener("pageshow", (event) => event.persisted && start(true));
})();
