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

  article.addEventListener("lab:row", ({ detail: { table } }) => {
    for (const part of parts) part.hidden = part.dataset.part !== table;
  });

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
