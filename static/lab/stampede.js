/*
  Shows the part that has rows, and draws how long each request waited, as the bursts come in.
  The tables have the numbers.
*/
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const parts = [...article.querySelectorAll("[data-part]")];
  const plot = article.querySelector("[data-plot]");
  let rows = [];

  article.addEventListener("lab:start", () => {
    rows = [];
    plot.replaceChildren();
    for (const part of parts) part.hidden = true;
  });

  article.addEventListener("lab:row", ({ detail: { table, key } }) => {
    for (const part of parts) part.hidden = part.dataset.part !== table;
    const shown = article.querySelector(`[data-table="${table}"]`);
    const heads = [...shown.tHead.rows[0].cells];
    const cell = shown.querySelector(`[data-key="${CSS.escape(key)}"]`).cells[heads.findIndex((head) => "meter" in head.dataset)];
    cell.append(meter(Number(cell.textContent)));
  });

  /* A bar beside the number. Short is good: at best one computes. */
  function meter(value) {
    const bar = document.createElement("meter");
    const max = Number(article.querySelector('[name="requests"]').value);
    Object.assign(bar, { max, high: max / 2, low: 1, optimum: 0, value });
    bar.ariaHidden = "true";
    return bar;
  }

  article.addEventListener("lab:burst", ({ detail: { guard, is_cold: isCold, values } }) => {
    let row = rows.find(({ name }) => name === guard);
    if (!row) {
      row = { name: guard, level: "none", sets: [] };
      rows.push(row);
    }
    row.sets.push({ name: isCold ? "cold" : "expiry", shape: isCold ? "dot" : "ring", values });
    const label = "How long each request waited, for each guard. The table has the numbers.";
    LabPlot.strips(plot, { label, rows });
  });
})();
