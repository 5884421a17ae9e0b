/* The outage's timeline: what lab/outage.py tells four times a second, drawn by plot.js. */
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const place = article.querySelector("[data-plot]");
  const CROWDS = [
    { name: "this blog’s", shape: "dot", level: "site" },
    { name: "plain", shape: "cross", level: "fragment" },
  ];
  let plot;

  function clear() {
    plot = {
      label: "Latency and pages per second of both crowds over the seconds of the run. The table below has the numbers.",
      seconds: 22,
      bands: [],
      states: [],
      series: CROWDS.map((crowd) => ({ ...crowd, points: [] })),
    };
    LabPlot.timeline(place, plot);
  }

  function tick({ at, open, crowds }) {
    const before = plot.series[0].points.at(-1)?.at ?? 0;
    crowds.forEach(({ pages, median, worst }, index) => {
      const rate = at > before ? pages / (at - before) : 0;
      plot.series[index].points.push({ at, median, worst, rate });
    });
    plot.seconds = Math.max(plot.seconds, at); // It may come late.
    const last = plot.states.at(-1);
    if (open && last?.to === before) last.to = at;
    else if (open) plot.states.push({ from: before, to: at, label: "breaker open" });
    LabPlot.timeline(place, plot);
  }

  article.addEventListener("lab:start", clear);
  article.addEventListener("lab:plan", ({ detail }) => {
    plot.seconds = Math.ceil(detail.seconds);
  });
  article.addEventListener("lab:phase", ({ detail }) => {
    if (detail.name === "works") return;
    plot.bands.push({ from: detail.at, to: detail.at + detail.seconds, label: detail.name });
  });
  article.addEventListener("lab:tick", ({ detail }) => tick(detail));
  clear();
})();
