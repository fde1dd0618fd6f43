// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Curves over training: of each variant the mean over seeds, and the band from the least to the greatest value.

const MARKED_POINTS = 40; // a metric with no more has its points marked
const MANY_TIMES = 8; // a metric that changes by more begins with a logarithmic axis
const curveView = {
  axis: "kimg",
  hidden: new Set(),
  withSeeds: false,
  cursor: null,
  span: [0, 1],
  charts: [],
  colors: null,
};

/** What one kimg is on the x axis; null if a variant's speed is unknown. */
const scaleOf = (variant) => (curveView.axis === "kimg" ? 1 : DATA.variants[variant].hours_per_kimg);

const formatAt = (x) => (curveView.axis === "kimg" ? `${formatKimg(x)} kimg` : formatHours(x));

/** A chart's curves on the x axis as it is chosen: {variant, x, mean, low, high, seeds}. */
function scaled(chart) {
  return chart.curves.flatMap((curve, variant) => {
    const scale = scaleOf(variant);
    return curve && scale ? [{ ...curve, variant, x: curve.x.map((kimg) => kimg * scale) }] : [];
  });
}

function setSpan() {
  const ends = curveView.charts.flatMap(({ shown }) => shown.flatMap(({ x }) => [x[0], x.at(-1)]));
  const [low, high] = ends.length ? [Math.min(0, ...ends), Math.max(...ends)] : [0, 1];
  curveView.span = high > low ? [low, high] : [low, low + 1];
}

/** The traces of a variant: its band, the seeds if wanted, and the mean over them. */
function variantTraces(chart, { variant, x, mean, low, high, seeds }) {
  const color = curveView.colors.runs[variant % NUM_COLORS];
  const few = chart.is_metric && x.length <= MARKED_POINTS;
  const edge = { x, mode: "lines", line: { width: 0, color } };
  const band = [
    { ...edge, y: low },
    { ...edge, y: high, fill: "tonexty", fillcolor: color.replace("rgb(", "rgba(").replace(")", ", 0.16)") },
  ];
  const thin = seeds.map(({ y }) => ({ x, y, mode: "lines", line: { width: 1, color }, opacity: 0.55 }));
  const line = {
    x,
    y: mean,
    mode: few || x.length === 1 ? "lines+markers" : "lines",
    line: { width: 2.2, color },
    marker: { size: 5.5, color },
  };
  return [...(seeds.length > 1 ? band : []), ...(curveView.withSeeds && seeds.length > 1 ? thin : []), line];
}

/** Ticks at 1, 2 and 5 times powers of ten, written out; none of its own where they would be too many or too few. */
function logTicks([low, high]) {
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => Math.floor(low) + i);
  const ticks = powers.flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power));
  const tickvals = ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  if (tickvals.length < 2 || tickvals.length > 8) return {};
  return { tickmode: "array", tickvals, ticktext: tickvals.map((tick) => String(+tick.toPrecision(1))) };
}

function drawChart(chart) {
  const visible = chart.shown.filter(({ variant }) => !curveView.hidden.has(variant));
  chart.stops = [...new Set(visible.flatMap(({ x }) => x))].sort((a, b) => a - b);
  const values = visible
    .flatMap(({ low, high }) => [...low, ...high])
    .filter((value) => value !== null && (value > 0 || !chart.isLog));
  const range = paddedRange(Math.min(...values), Math.max(...values), chart.isLog);
  const yaxis = { ...yAxis(chart.isLog, range), ...(chart.isLog ? logTicks(range) : {}) };
  const title = curveView.axis === "kimg" ? "kimg" : "hours of training";
  const layout = chartLayout(curveView.colors, chart.isTall ? TALL : HEIGHT, title, curveView.span, yaxis);
  const traces = visible.flatMap((curve) => variantTraces(chart, curve));
  Plotly.react(
    chart.plot,
    traces.map((trace) => ({ type: "scatter", hoverinfo: "skip", cliponaxis: false, ...trace })),
    layout,
    PLOT_OPTIONS,
  );
  showChartValues(chart);
}

const drawCharts = oncePerFrame(() => curveView.charts.forEach(drawChart));

/** The least and the greatest value at the cursor, and of how many seeds, where some did not get so far. */
function rangeText({ x, seeds }, low, high) {
  const at = curveView.cursor === null ? x.length - 1 : nearest(x, curveView.cursor);
  const count = seeds.filter(({ y }) => y[at] !== null).length;
  const values = count > 1 ? `${low} to ${high}` : "";
  return count < seeds.length ? `${values} (${count} of ${seeds.length})`.trim() : values;
}

/** Shows numbers at the cursor, or the last ones, and the cursor's line. */
function showChartValues(chart) {
  const { cursor, span } = curveView;
  const text = (value) => (chart.decimals === null ? formatValue(value) : formatFixed(value, chart.decimals));
  for (const { variant, row, mean, range } of chart.cells) {
    const curve = chart.shown.find((other) => other.variant === variant);
    const [middle, low, high] = ["mean", "low", "high"].map((key) =>
      curve ? valueAt({ x: curve.x, y: curve[key] }, cursor, span) : null,
    );
    mean.textContent = text(middle);
    range.textContent = middle === null || curve.seeds.length < 2 ? "" : rangeText(curve, text(low), text(high));
    row.classList.toggle("off", curveView.hidden.has(variant));
  }
  const width = chart.plot.clientWidth - MARGIN.l - MARGIN.r;
  chart.line.hidden = cursor === null;
  if (cursor !== null) chart.line.style.left = `${MARGIN.l + ((cursor - span[0]) / (span[1] - span[0])) * width}px`;
}

const showCurveCursor = oncePerFrame(() => {
  curveView.charts.forEach(showChartValues);
  byId("cursor-text").textContent =
    curveView.cursor === null ? "Values: the last" : `Values at ${formatAt(curveView.cursor)}`;
});

function setCurveCursor(x) {
  curveView.cursor = x;
  showCurveCursor();
}

/** Rows of a chart's variants: mean, and least to greatest value over seeds. */
function curveTable(chart) {
  const rows = DATA.variants.flatMap((_, variant) => {
    if (!chart.curves[variant]) return [];
    const [mean, range] = [el("td"), el("td", { className: "muted" })];
    const row = el("tr", {}, el("th", { scope: "row" }, variantName(variant)), mean, range);
    chart.cells.push({ variant, row, mean, range });
    return [row];
  });
  const several = chart.curves.some((curve) => curve?.seeds.length > 1);
  const heads = (several ? ["mean", "over seeds"] : ["value"]).map((name) => el("th", { scope: "col" }, name));
  const head = el("thead", {}, el("tr", {}, el("td"), ...heads));
  return el("table", { className: "values" }, head, el("tbody", {}, ...rows));
}

function makeChart(about, parent) {
  const values = about.curves
    .flatMap((curve) => (curve ? [...curve.low, ...curve.high] : []))
    .filter((value) => value !== null);
  const canLog = values.every((value) => value > 0);
  const isLog = about.is_metric && canLog && Math.max(...values) > MANY_TIMES * Math.min(...values);
  const chart = { ...about, cells: [], stops: [], isLog, isTall: false };
  chart.plot = el("div", { className: "plot" });
  chart.line = el("div", { className: "cursor", hidden: true });
  const label = `${about.title} over training, by variant. Left and right arrow keys read values off.`;
  const props = { className: "plot-box", tabIndex: 0, role: "img", "aria-label": label };
  const box = el("div", props, chart.plot, chart.line);
  const card = el("article", { className: "card panel" });
  const log = canLog
    ? toggleButton("log", `Logarithmic axis of ${about.title}`, isLog, (on) => {
        chart.isLog = on;
        drawChart(chart);
      })
    : null;
  const tall = toggleButton("⤢", `Enlarge ${about.title}`, false, (on) => {
    chart.isTall = on;
    card.classList.toggle("tall", on);
    drawChart(chart);
    Plotly.Plots.resize(chart.plot);
  });
  const unit = el("span", { className: "unit" }, about.unit);
  const title = el("div", { className: "panel-title" }, el("h4", {}, about.title), unit);
  const head = el("div", { className: "panel-head" }, title, el("div", { className: "buttons" }, log, tall));
  card.append(head, box, curveTable(chart));
  parent.append(card);
  readOff(box, chart, { range: () => curveView.span, cursor: () => curveView.cursor, setCursor: setCurveCursor });
  return chart;
}

function setAxis(axis) {
  Object.assign(curveView, { axis, cursor: null });
  curveView.charts.forEach((chart) => (chart.shown = scaled(chart)));
  setSpan();
  drawCharts();
  showCurveCursor();
}

function makeCurveTools() {
  const variants = DATA.variants.map(({ name }, i) => {
    const props = { type: "button", className: "chip", "aria-pressed": "true", title: `Show or hide ${name}` };
    const button = el("button", props, swatch(i % NUM_COLORS), name);
    button.onclick = () => {
      if (!curveView.hidden.delete(i)) curveView.hidden.add(i);
      button.setAttribute("aria-pressed", String(!curveView.hidden.has(i)));
      drawCharts();
    };
    return button;
  });
  const canHours = DATA.variants.some(({ hours_per_kimg: hours }) => hours);
  const axes = choiceGroup("Horizontal axis", ["kimg", "hours"], "kimg", setAxis);
  const seeds = toggleButton("Each seed", "Show a line for each seed", false, (on) => {
    curveView.withSeeds = on;
    drawCharts();
  });
  byId("curve-tools").append(
    el("div", { className: "tool chips", role: "group", "aria-label": "Variants shown" }, ...variants),
    canHours ? el("div", { className: "tool" }, el("span", { "aria-hidden": "true" }, "over"), axes) : "",
    el("div", { className: "tool" }, seeds),
    el("div", { className: "tool push", id: "cursor-text" }),
  );
}

function makeCurves() {
  if (!DATA.charts.length) return byId("curves").remove();
  curveView.colors = plotColors();
  makeCurveTools();
  for (const [title, isMetric] of [
    ["Metrics", true],
    ["Losses and regularisers", false],
  ]) {
    const charts = DATA.charts.filter((chart) => chart.is_metric === isMetric);
    if (!charts.length) continue;
    const grid = el("div", { className: "panels" });
    byId("curves").append(el("h3", { className: "part" }, title), grid);
    curveView.charts.push(...charts.map((about) => makeChart(about, grid)));
  }
  setAxis("kimg");
  byId("curves").append(
    el(
      "p",
      { className: "hint" },
      "Lines are means over the seeds that got so far, bands reach from the least to the greatest value. Hours are " +
        "of training alone, by each variant's mean speed.",
    ),
  );
}
