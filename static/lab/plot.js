/*
  Two plots, drawn as SVG by the numbers they are given and again when their place changes width.

    LabPlot.strips(place, {label, rows: [{name, level, sets: [{name, shape, values}]}]})
      milliseconds on a log scale: one row per series, in it one lane per set, one mark per
      value. The line is the median, the triangle the 95th percentile
    LabPlot.timeline(place, {label, seconds, bands, states, series})
      over seconds: a bar from the median to the worst latency (log scale), a lane for states,
      and pages per second
        bands, states: [{from, to, label}]
        series: [{name, shape, level, points: [{at, median, worst, rate}]}]
    LabPlot.quantile(values, 0.95)

  `shape` is dot, ring or cross; `level` chooses the colour, as level-<level> in css/site.css.
  Each plot needs a table with the same numbers beside it: that is the page's own.
*/
"use strict";

const LabPlot = (() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const AXIS = 26; // pixels below a plot for the numbers
  const LANE = 18;
  const GLYPHS = { dot: "●", ring: "○", cross: "×" };
  const STEPS = [-3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((power) => [1, 2, 5].map((factor) => Number(`${factor}e${power}`)));
  const drawings = new Map(); // place: how to draw it

  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) drawings.get(target)?.();
  });

  function element(name, attributes = {}, text) {
    const made = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function quantile(values, share) {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  }

  /* Milliseconds to pixels, and where the axis has a number: 1, 2, 5, 10, or only each power of ten. */
  function logScale(values, from, to) {
    const some = values.filter((value) => value > 0);
    const [least, most] = [Math.min(1, ...some), Math.max(10, ...some)];
    const low = STEPS.findLast((step) => step <= least) || STEPS[0];
    const high = STEPS.find((step) => step >= most) || STEPS.at(-1);
    const decades = Math.log10(high / low);
    const scale = (value) => from + (Math.log10(Math.max(value, low) / low) / decades) * (to - from);
    const isFine = Math.abs(to - from) / decades > 110; // pixels a decade
    const ticks = STEPS.filter((step) => step >= low && step <= high);
    return { scale, ticks: isFine ? ticks : ticks.filter((tick) => Number.isInteger(Math.log10(tick))) };
  }

  function number(value) {
    return String(Number(value.toPrecision(3)));
  }

  function mark(shape, x, y) {
    if (shape === "cross") {
      return element("path", { class: "plot-cross", d: `M${x - 3} ${y - 3}l6 6m0 -6l-6 6` });
    }
    return element("circle", { class: `plot-${shape}`, cx: x, cy: y, r: 3.2 });
  }

  /* Keep `draw(svg, width)` for this place, and draw now. */
  function keep(place, label, draw) {
    const redraw = () => {
      const width = Math.max(240, Math.floor(place.clientWidth));
      const svg = element("svg", { class: "plot-svg", width, role: "img", "aria-label": label });
      draw(svg, width);
      place.replaceChildren(svg);
    };
    if (!drawings.has(place)) resized.observe(place);
    drawings.set(place, redraw);
    redraw();
  }

  function vertical(svg, x, top, bottom, text) {
    svg.append(element("line", { class: "plot-grid", x1: x, x2: x, y1: top, y2: bottom }));
    if (text) svg.append(element("text", { class: "plot-tick", x, y: bottom + 15, "text-anchor": "middle" }, text));
  }

  function horizontal(svg, y, left, right, text) {
    svg.append(element("line", { class: "plot-grid", x1: left, x2: right, y1: y, y2: y }));
    svg.append(element("text", { class: "plot-tick", x: left - 6, y: y + 4, "text-anchor": "end" }, text));
  }

  function strips(place, { label, rows }) {
    keep(place, label, (svg, width) => {
      const wide = width >= 480;
      const left = wide ? 96 : 6;
      const head = wide ? 6 : 20; // The name stands above its lanes where it has no room beside.
      const height = (row) => head + row.sets.length * LANE + 6;
      const bottom = rows.reduce((sum, row) => sum + height(row), 4);
      const all = rows.flatMap((row) => row.sets.flatMap((set) => set.values));
      const { scale, ticks } = logScale(all, left + 8, width - 16);
      svg.setAttribute("height", bottom + AXIS);
      for (const tick of ticks) vertical(svg, scale(tick), 4, bottom, number(tick));
      let top = 4;
      for (const row of rows) {
        const group = element("g", { class: `level-${row.level}` });
        const middle = top + head + (row.sets.length * LANE) / 2;
        group.append(element("text", { class: "plot-name", x: 0, y: wide ? middle + 4 : top + 15 }, row.name));
        row.sets.forEach((set, lane) => {
          const y = top + head + lane * LANE + LANE / 2;
          set.values.forEach((value, index) => {
            const spread = ((index * 7) % 11) / 10 - 0.5; // So that equal ones don't hide each other.
            group.append(mark(set.shape, scale(value), y + spread * (LANE - 9)));
          });
          if (!set.values.length) return;
          const median = scale(quantile(set.values, 0.5));
          const p95 = scale(quantile(set.values, 0.95));
          group.append(element("line", { class: "plot-median", x1: median, x2: median, y1: y - LANE / 2, y2: y + LANE / 2 }));
          group.append(element("path", { class: "plot-p95", d: `M${p95 - 4} ${y - LANE / 2}h8l-4 7z` }));
        });
        svg.append(group);
        top += height(row);
        if (row !== rows.at(-1)) svg.append(element("line", { class: "plot-grid", x1: 0, x2: width, y1: top, y2: top }));
      }
    });
  }

  function timeline(place, { label, seconds, bands, states, series }) {
    keep(place, label, (svg, width) => {
      const [left, right] = [44, width - 6];
      const latency = { top: 34, bottom: 194 };
      const lane = { top: 206, bottom: 224 };
      const rate = { top: 248, bottom: 350 };
      const x = (at) => left + (at / seconds) * (right - left);
      const points = series.flatMap((one) => one.points);
      svg.setAttribute("height", rate.bottom + AXIS);
      for (const { from, to, label: name } of bands) {
        const [start, end] = [x(from), x(Math.min(to, seconds))];
        svg.append(element("rect", { class: "plot-band", x: start, y: 18, width: Math.max(0, end - start), height: rate.bottom - 18 }));
        svg.append(element("text", { class: "plot-band-name", x: start + 3, y: 13 }, name));
      }
      const step = width < 480 ? 5 : 2;
      for (let at = 0; at <= seconds; at += step) vertical(svg, x(at), rate.top, rate.bottom, at);
      svg.append(element("text", { class: "plot-unit", x: 0, y: rate.bottom + 15 }, "s"));
      svg.append(element("text", { class: "plot-unit", x: left + 3, y: latency.top - 4 }, "ms per page: median to worst"));
      svg.append(element("text", { class: "plot-unit", x: left + 3, y: rate.top - 7 }, "pages per second"));

      const values = points.flatMap(({ median, worst }) => (median ? [median, worst] : []));
      const { scale, ticks } = logScale(values, latency.bottom, latency.top);
      for (const tick of ticks) horizontal(svg, scale(tick), left, right, number(tick));
      const most = Math.max(10, ...points.map((point) => point.rate));
      const y = (value) => rate.bottom - (value / most) * (rate.bottom - rate.top);
      for (const value of [0, most / 2, most]) horizontal(svg, y(value), left, right, Math.round(value));
      for (const { from, to, label: name } of states) {
        const [start, end] = [x(from), x(Math.min(to, seconds))];
        svg.append(element("rect", { class: "plot-state", x: start, y: lane.top, width: Math.max(2, end - start), height: lane.bottom - lane.top }));
        if (end - start > 8 * name.length) svg.append(element("text", { class: "plot-state-name", x: start + 4, y: lane.bottom - 5 }, name));
      }
      for (const [index, one] of series.entries()) {
        const group = element("g", { class: `level-${one.level} plot-series-${index}` });
        for (const { at, median, worst } of one.points) {
          if (!median) continue;
          group.append(element("line", { class: "plot-range", x1: x(at), x2: x(at), y1: scale(median), y2: scale(worst) }));
          group.append(mark(one.shape, x(at), scale(median)));
        }
        const line = one.points.map((point) => `${x(point.at)} ${y(point.rate)}`).join("L");
        if (line) group.append(element("path", { class: "plot-line", d: `M${line}` }));
        svg.append(group);
      }
    });
  }

  return { strips, timeline, quantile, glyphs: GLYPHS };
})();
