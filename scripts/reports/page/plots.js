// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// What all charts share: margins, colours, axes, and reading them off.

const MARGIN = { l: 54, r: 12, t: 8, b: 38 };
const HEIGHT = 220;
const TALL = 460;
const NUM_COLORS = 7; // of the style: more curves or dashes than there are begin again
const PLOT_OPTIONS = { displayModeBar: false, doubleClick: false, responsive: true, showTips: false };

/** Where in `x`, which ascends, the number nearest to `kimg` is. */
function nearest(x, kimg) {
  let [low, high] = [0, x.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= kimg) low = middle;
    else high = middle;
  }
  return kimg - x[low] <= x[high] - kimg ? low : high;
}

/** The value of the point nearest to `at`; null further than a part of `span` from any. Without `at` the last value. */
function valueAt({ x, y }, at, span) {
  if (at === null) return y.findLast((value) => value !== null) ?? null;
  const i = nearest(x, at);
  return Math.abs(x[i] - at) > (span[1] - span[0]) / 20 ? null : y[i];
}

/** The range of a y axis on which `low` to `high` has some room. Axes of other than logarithms may begin at zero. */
function paddedRange(low, high, isLog, isFromZero = false) {
  if (low > high) return isLog ? [-1, 1] : [0, 1];
  const fromZero = isFromZero && !isLog;
  if (isLog) [low, high] = [Math.log10(low), Math.log10(high)];
  else if (fromZero) low = Math.min(low, 0);
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [fromZero && low === 0 ? 0 : low - room, high + room];
}

/** The style's colours, as plotly understands them. */
function plotColors() {
  return {
    runs: Array.from({ length: NUM_COLORS }, (_, i) => cssColor(`--color-${i}`)),
    grid: cssColor("--grid"),
    line: cssColor("--line"),
    muted: cssColor("--muted"),
  };
}

/** The layout of a chart that shows `range` of its x axis; `yaxis` is what its y axis has of its own. */
function chartLayout(colors, height, title, range, yaxis) {
  const axis = {
    gridcolor: colors.grid,
    linecolor: colors.line,
    zeroline: false,
    tickfont: { size: 11 },
    automargin: false,
  };
  return {
    height,
    margin: MARGIN,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 11, color: colors.muted },
    showlegend: false,
    hovermode: false,
    dragmode: false,
    xaxis: { ...axis, range: [...range], nticks: 7, title: { text: title, standoff: 4, font: { size: 11 } } },
    yaxis: { ...axis, ...yaxis },
  };
}

/** A y axis that shows `range`, of powers of ten if it is logarithmic. */
function yAxis(isLog, range) {
  const axis = { range, fixedrange: true, nticks: 6, exponentformat: "power" };
  if (!isLog) return axis;
  // Only powers of ten are labelled where there are several; where there is one, also twice and five times it.
  const decades = range[1] - range[0];
  return { ...axis, type: "log", ...(decades > 1.5 ? { dtick: 1 } : decades > 0.7 ? { dtick: "D2" } : {}) };
}

/**
 * Mouse, finger and arrow keys move the cursor of all charts, from point to point of this one.
 * `chart` has its `plot` and its `stops`; `range()` is what is shown, `cursor()` where the cursor is, or null.
 */
function readOff(box, chart, { range, cursor, setCursor }) {
  const move = (event) => {
    const bounds = chart.plot.getBoundingClientRect();
    const share = (event.clientX - bounds.left - MARGIN.l) / (bounds.width - MARGIN.l - MARGIN.r);
    const [from, to] = range();
    const isOutside = share < 0 || share > 1 || !chart.stops.length;
    setCursor(isOutside ? null : chart.stops[nearest(chart.stops, from + share * (to - from))]);
  };
  box.addEventListener("pointermove", move);
  box.addEventListener("pointerdown", move);
  box.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && setCursor(null));
  box.addEventListener("blur", () => setCursor(null));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") setCursor(null);
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const last = chart.stops.length - 1;
    const at = cursor() === null ? (step > 0 ? -1 : last + 1) : nearest(chart.stops, cursor());
    // A hundred steps, at most, from end to end.
    setCursor(chart.stops[Math.min(Math.max(at + step * Math.ceil((last + 1) / 100), 0), last)] ?? null);
  });
}
