// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// From numbers to what plotly draws: smoothing, ranges, traces.

const DASHES = ["solid", "dash", "dot", "dashdot"];
const MAX_HALF_LIFE = 0.1; // of the longest run
const MARKED_POINTS = 60; // a curve of no more has its points marked

const view = { halfLife: 0, range: null, cursor: null, hidden: new Set(), panels: [] };
const span = runSpan();

/** First and last kimg of all curves. */
function runSpan() {
  const ends = DATA.plots.flatMap((plot) =>
    plot.curves.flatMap((curve) => curve.series.filter(Boolean).flatMap((s) => [s.x[0], s.x.at(-1)])),
  );
  return ends.length ? [Math.min(0, ...ends), Math.max(...ends)] : [0, 1];
}

/** An average whose weights halve with every `halfLife` kimg, to both sides; gaps stay. As `ggdr curves --smooth`. */
function smoothed(x, y, halfLife) {
  const sums = y.map(() => [0, 0]);
  const forward = y.map((_, i) => i);
  for (const order of [forward, [...forward].reverse()]) {
    let [total, weight, last] = [0, 0, x[order[0]]];
    for (const i of order) {
      const decay = 0.5 ** (Math.abs(x[i] - last) / halfLife);
      [total, weight, last] = [total * decay, weight * decay, x[i]];
      if (y[i] === null) continue;
      // The point itself counts in both passes, half in each.
      sums[i][0] += total + y[i] / 2;
      sums[i][1] += weight + 0.5;
      [total, weight] = [total + y[i], weight + 1];
    }
  }
  return sums.map(([total, weight], i) => (weight && y[i] !== null ? total / weight : null));
}

/** The curve that is read off: smoothed, from the means of a thinned curve, or as it is. */
function readable(series) {
  if (!view.halfLife) return series;
  const [x, y] = series.mean_x ? [series.mean_x, series.mean_y] : [series.x, series.y];
  return { x, y: smoothed(x, y, view.halfLife) };
}

/** All visible curves of a panel: {curve, run, color, dash, series, shown}. */
function curvesOf(panel) {
  const several = DATA.runs.length > 1;
  return panel.curves.flatMap((curve, i) =>
    curve.series.flatMap((series, run) => {
      if (!series || view.hidden.has(run)) return [];
      return [
        {
          curve: i,
          run,
          color: several ? run : i % NUM_COLORS,
          dash: several ? DASHES[i % DASHES.length] : "solid",
          series,
          shown: panel.shown[i][run],
        },
      ];
    }),
  );
}

/** The range of the y axis that shows all that lies in the range of the x axis. */
function fittedRange(panel, curves, [from, to]) {
  let [low, high] = [Infinity, -Infinity];
  for (const { series, shown } of curves) {
    for (const { x, y } of [series, shown]) {
      y.forEach((value, i) => {
        if (value === null || x[i] < from || x[i] > to || (panel.isLog && value <= 0)) return;
        [low, high] = [Math.min(low, value), Math.max(high, value)];
      });
    }
  }
  return paddedRange(low, high, panel.isLog, panel.axis === "zero");
}

/** What plotly draws of a panel. */
function figure(panel) {
  const curves = curvesOf(panel);
  const range = view.range ?? span;
  const colors = view.colors;
  const traces = curves.flatMap(({ color, dash, series, shown }) => {
    const line = { color: colors.runs[color], width: 1.8, dash };
    const few = series.num <= MARKED_POINTS && panel.is_metric;
    const main = {
      x: shown.x,
      y: shown.y,
      line,
      mode: series.num === 1 || few ? "lines+markers" : "lines",
      marker: { size: 5, color: line.color },
    };
    const raw = { x: series.x, y: series.y, line: { ...line, width: 1, dash: "solid" }, mode: "lines", opacity: 0.28 };
    return shown === series ? [main] : [raw, main];
  });
  const yaxis = yAxis(panel.isLog, fittedRange(panel, curves, range));
  const layout = chartLayout(colors, panel.isTall ? TALL : HEIGHT, "kimg", range, yaxis);
  // Where there is no mouse, dragging scrolls the page and moves the cursor.
  layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  return [
    traces.map((trace) => ({ type: "scatter", hoverinfo: "skip", connectgaps: false, cliponaxis: false, ...trace })),
    layout,
  ];
}
