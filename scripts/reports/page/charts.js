// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// The charts: panels that share their zoom, their cursor and their smoothing.

function drawPanel(panel) {
  panel.shown = panel.curves.map((curve) => curve.series.map((series) => series && readable(series)));
  const [from, to] = view.range ?? span;
  const visible = curvesOf(panel).flatMap(({ shown }) => shown.x.filter((kimg) => kimg >= from && kimg <= to));
  panel.stops = [...new Set(visible)].sort((a, b) => a - b);
  Plotly.react(panel.plot, ...figure(panel), PLOT_OPTIONS);
  showValues(panel);
}

const drawAll = oncePerFrame(() => view.panels.forEach(drawPanel));

/** Shows numbers at the cursor, or the last ones, and the cursor's line. */
function showValues(panel) {
  for (const { cell, curve, run } of panel.cells) {
    const series = panel.shown[curve][run];
    cell.textContent = series ? formatValue(valueAt(series, view.cursor, span)) : "–";
    cell.parentElement.classList.toggle("off", view.hidden.has(run));
  }
  const [from, to] = view.range ?? span;
  const width = panel.plot.clientWidth - MARGIN.l - MARGIN.r;
  const inside = view.cursor !== null && view.cursor >= from && view.cursor <= to;
  panel.line.hidden = !inside;
  if (inside) panel.line.style.left = `${MARGIN.l + ((view.cursor - from) / (to - from)) * width}px`;
}

const showCursor = oncePerFrame(() => {
  view.panels.forEach(showValues);
  const kind = view.halfLife ? "Smoothed values" : "Values";
  byId("cursor-text").textContent =
    view.cursor === null ? `${kind}: the last` : `${kind} at ${formatKimg(view.cursor)} kimg`;
});

function setCursor(kimg) {
  view.cursor = kimg;
  showCursor();
}

/** Zooms all panels; null is everything. */
function setRange(range) {
  view.range = range && range[1] > range[0] ? range : null;
  showRange(); // not with the drawing: by then the user may be typing in the other field
  drawAll();
}

function showRange() {
  const [from, to] = view.range ?? span;
  byId("from-kimg").value = +from.toFixed(3);
  byId("to-kimg").value = +to.toFixed(3);
  byId("all-kimg").disabled = view.range === null;
}

/** The numbers of a panel: of several runs a row each and a column for each curve, of one run a row for each curve. */
function valueTable(panel) {
  const cellOf = (curve, run) => {
    const cell = el("td");
    panel.cells.push({ cell, curve, run });
    return cell;
  };
  const mark = (dash, color) =>
    el("span", {
      className: `strip dash-${dash % DASHES.length}`,
      style: color === undefined ? {} : { color: `var(--color-${color % NUM_COLORS})` },
      "aria-hidden": "true",
    });
  if (DATA.runs.length === 1) {
    const rows = panel.curves.map(({ name }, i) =>
      el("tr", {}, el("th", { scope: "row" }, mark(0, i), name), cellOf(i, 0)),
    );
    return el("table", { className: "values" }, el("tbody", {}, ...rows));
  }
  const heads = panel.curves.map(({ name }, i) => el("th", { scope: "col" }, mark(i), name));
  const shown = DATA.runs.map((_, run) => run).filter((run) => panel.curves.some((curve) => curve.series[run]));
  const rows = shown.map((run) =>
    el("tr", {}, el("th", { scope: "row" }, runName(run)), ...panel.curves.map((_, curve) => cellOf(curve, run))),
  );
  const head = panel.curves.length > 1 ? el("thead", {}, el("tr", {}, el("td"), ...heads)) : null;
  return el("table", { className: "values" }, head, el("tbody", {}, ...rows));
}

function makePanel(about) {
  const values = about.curves.flatMap((curve) =>
    curve.series.filter(Boolean).flatMap((series) => series.y.filter((value) => value !== null)),
  );
  const canLog = values.every((value) => value > 0);
  const panel = {
    ...about,
    cells: [],
    isLog: about.axis === "log" && canLog,
    isTall: false,
  };
  panel.plot = el("div", { className: "plot" });
  panel.line = el("div", { className: "cursor", hidden: true });
  const names = about.curves.map((curve) => curve.name).join(", ");
  const label = `${about.title} over kimg: ${names}. Left and right arrow keys read values off.`;
  const box = el(
    "div",
    { className: "plot-box", tabIndex: 0, role: "img", "aria-label": label },
    panel.plot,
    panel.line,
  );
  const log = canLog
    ? toggleButton("log", `Logarithmic axis of ${about.title}`, panel.isLog, (on) => {
        panel.isLog = on;
        drawPanel(panel);
      })
    : null;
  const card = el("article", { className: "card panel" });
  const tall = toggleButton("⤢", `Enlarge ${about.title}`, false, (on) => {
    panel.isTall = on;
    card.classList.toggle("tall", on);
    drawPanel(panel);
    Plotly.Plots.resize(panel.plot);
  });
  const title = el(
    "div",
    { className: "panel-title" },
    el("h3", {}, about.title),
    el("span", { className: "unit" }, about.unit),
  );
  card.append(
    el("div", { className: "panel-head" }, title, el("div", { className: "buttons" }, log, tall)),
    box,
    valueTable(panel),
  );
  byId("panels").append(card);
  readOff(box, panel, { range: () => view.range ?? span, cursor: () => view.cursor, setCursor });
  drawPanel(panel);
  panel.plot.on("plotly_relayout", (change) => {
    if (!("xaxis.range[0]" in change)) return;
    setRange([Math.max(change["xaxis.range[0]"], span[0]), Math.min(change["xaxis.range[1]"], span[1])]);
  });
  panel.plot.on("plotly_doubleclick", () => setRange(null));
  return panel;
}

function makeTools() {
  const slider = el("input", { type: "range", id: "smooth", min: 0, max: 100, value: 0 });
  const amount = el("output", { htmlFor: "smooth" }, "off");
  slider.oninput = () => {
    // Squared: most of the way for little smoothing.
    view.halfLife = (slider.value / 100) ** 2 * MAX_HALF_LIFE * (span[1] - span[0]);
    amount.textContent = view.halfLife ? `half-life ${formatKimg(+view.halfLife.toPrecision(2))} kimg` : "off";
    slider.setAttribute("aria-valuetext", amount.textContent);
    drawAll();
    showCursor();
  };
  const input = (id, label) =>
    el("input", { type: "number", id, min: span[0], max: span[1], step: "any", "aria-label": label });
  const [from, to] = [input("from-kimg", "First kimg shown"), input("to-kimg", "Last kimg shown")];
  from.onchange = to.onchange = () => setRange([from.valueAsNumber || span[0], to.valueAsNumber || span[1]]);
  const all = el(
    "button",
    { type: "button", id: "all-kimg", className: "quiet small", onclick: () => setRange(null) },
    "All",
  );
  const runs = DATA.runs.map((run, i) => {
    const button = el(
      "button",
      { type: "button", className: "chip", "aria-pressed": "true", title: `Show or hide ${run.name}` },
      swatch(i),
      run.name,
    );
    button.onclick = () => {
      if (!view.hidden.delete(i)) view.hidden.add(i);
      button.setAttribute("aria-pressed", String(!view.hidden.has(i)));
      drawAll();
    };
    return button;
  });
  byId("curve-tools").append(
    ...(DATA.runs.length > 1
      ? [el("div", { className: "tool chips", role: "group", "aria-label": "Runs shown" }, ...runs)]
      : []),
    el("div", { className: "tool" }, el("label", { for: "smooth" }, "Smoothing"), slider, amount),
    el("div", { className: "tool", role: "group", "aria-label": "Zoom" }, el("span", {}, "kimg"), from, "–", to, all),
    el("div", { className: "tool push", id: "cursor-text" }),
  );
}

function makeCharts() {
  if (!DATA.plots.length) {
    byId("panels").replaceWith(el("p", { className: "card" }, "No numbers yet: the first tick is not over."));
    byId("curve-tools").remove();
    return;
  }
  view.colors = plotColors();
  makeTools();
  view.panels = DATA.plots.map((about) => makePanel(about));
  showRange();
  showCursor();
  const longest = Math.max(
    ...DATA.plots.flatMap((plot) => plot.curves.flatMap((curve) => curve.series.map((series) => series?.num ?? 0))),
  );
  const thinned =
    `Of the longest curve's ${longest.toLocaleString("en")} points at most ${DATA.max_points.toLocaleString("en")} ` +
    "are drawn; spikes and gaps are kept, and smoothing takes means of all. ";
  const how = matchMedia("(pointer: coarse)").matches
    ? "Touch a chart to read values off; zoom with the two kimg fields."
    : "Drag across a chart to zoom all of them, double-click to see everything.";
  byId("curve-note").textContent = (longest > DATA.max_points ? thinned : "") + how;
}
