/*
  Runs an experiment: posts the form, reads the lines of the answer while they come (see
  lab/run.py), and puts them where the page has a place for them.

    progress  {done, of, text}      the bar, and a word about it
    row       {table, key, cells}   a row of <table data-table="...">; the same key replaces it
    value     {name, text}          <... data-value="...">
    say       {text}                what a screen reader hears too
    came      {value}               the answer to "What do you expect?": see expect.js
    end, error {text}

  Every line is also an event "lab:<kind>" on the article, and a new run is "lab:start": a page's
  own script listens to these.
*/
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const form = article.querySelector("form[data-run]");
  if (!form) return;
  const start = form.querySelector("[data-start]");
  const stop = form.querySelector("[data-stop]");
  const said = article.querySelector(".lab-said");
  const progress = article.querySelector(".lab-progress");
  let running = null; // The AbortController of the run.

  const handlers = {
    progress({ done, of, text }) {
      progress.hidden = false;
      progress.querySelector("progress").max = of;
      progress.querySelector("progress").value = done;
      progress.querySelector("[data-progress]").textContent = text || `${done} of ${of}`;
    },
    row({ table, key, cells }) {
      const body = article.querySelector(`[data-table="${CSS.escape(table)}"] tbody`);
      const row = document.createElement("tr");
      row.dataset.key = key;
      for (const [index, text] of cells.entries()) {
        const cell = document.createElement(index ? "td" : "th");
        if (!index) cell.scope = "row";
        // A name may break after an underscore, so that a phone has room for the numbers.
        for (const part of String(text).split(/(?<=_)/)) cell.append(part, document.createElement("wbr"));
        row.append(cell);
      }
      const old = body.querySelector(`[data-key="${CSS.escape(key)}"]`);
      old ? old.replaceWith(row) : body.append(row);
    },
    value({ name, text }) {
      article.querySelector(`[data-value="${CSS.escape(name)}"]`).textContent = text;
    },
    say({ text }) {
      said.textContent = text;
    },
    error({ text }) {
      fail(text);
    },
  };

  /* Say what went wrong, where it can be seen. */
  function fail(text) {
    said.textContent = text;
    said.scrollIntoView({ block: "nearest" });
  }

  function clear() {
    said.textContent = "";
    progress.hidden = true;
    form.querySelectorAll(".errorlist").forEach((list) => list.remove());
    article.querySelectorAll("[data-table] tbody").forEach((body) => body.replaceChildren());
    article.querySelectorAll("[data-value]").forEach((place) => {
      place.textContent = "";
    });
  }

  function take(line) {
    handlers[line.kind]?.(line);
    article.dispatchEvent(new CustomEvent(`lab:${line.kind}`, { detail: line }));
  }

  /* Form errors, by name of the field; "" and __all__ are the form's own. */
  function complain(errors) {
    for (const [name, texts] of Object.entries(errors)) {
      const field = name && form.elements[name];
      const list = document.createElement("ul");
      list.className = "errorlist";
      for (const text of texts) {
        const item = document.createElement("li");
        item.textContent = text;
        list.append(item);
      }
      field ? field.closest(".lab-field").append(list) : form.append(list);
    }
    const first = Object.keys(errors).find((name) => name && form.elements[name]);
    fail("It did not run: see the form.");
    if (first) form.elements[first].focus(); // Scrolls to it, too.
  }

  async function run() {
    clear();
    running = new AbortController();
    start.ariaDisabled = "true"; // Not `disabled`, which would take the focus away.
    stop.hidden = false;
    article.dataset.state = "running";
    take({ kind: "start" });
    try {
      const response = await fetch(form.action, {
        method: "POST",
        body: new FormData(form),
        signal: running.signal,
      });
      const type = response.headers.get("Content-Type") || "";
      if (response.ok) await read(response.body);
      else if (type.includes("json")) complain((await response.json()).errors);
      else fail(`The server answered ${response.status}. Reload the page and try again.`);
    } catch (error) {
      fail(error.name === "AbortError" ? "Stopped." : "The connection was lost.");
    } finally {
      running = null;
      start.ariaDisabled = null;
      if (document.activeElement === stop) start.focus();
      stop.hidden = true;
      progress.hidden = true;
      article.dataset.state = "done";
      take({ kind: "done" });
    }
  }

  async function read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) take(JSON.parse(line));
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) run();
  });
  stop.addEventListener("click", () => running?.abort());
})();
