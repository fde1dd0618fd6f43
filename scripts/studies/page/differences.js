// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Paired differences: each seed a dot, their mean and its interval, and zero.

/** Round numbers that part a range into about five. */
function ticksOf(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return { step, ticks: Array.from({ length: Math.max(count, 0) }, (_, i) => (first + i) * step) };
}

/** What the axis of a metric shows: everything of all pairs, and zero. */
function rangeOf(found) {
  const numbers = found.flatMap(({ differences, low, high, mean }) => [...differences, low, high, mean]);
  const known = [0, ...numbers.filter((number) => number !== null)];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low) * 0.08 || 1;
  return [low - room, high + room];
}

/** A mark at a share of the track's width, in per cent. */
const mark = (className, left, title, style = {}) =>
  el("span", { className, title: title ?? "", style: { left: `${left}%`, ...style } });

/** The row of a pair: what it says in words is in its label and below it. */
function differenceRow(metric, pair, found, [from, to]) {
  const at = (value) => ((value - from) / (to - from)) * 100;
  const [a, b] = [DATA.variants[pair.a], DATA.variants[pair.b]];
  const shown = (value) => formatFixed(value, metric.decimals, true);
  const zero = at(0);
  const side = metric.better === "lower" ? { left: "0%", width: `${zero}%` } : { left: `${zero}%`, right: "0" };
  const seeds = found.differences.map((value, i) => `seed ${found.seeds[i]}: ${shown(value)}`);
  const label = `${b.name} minus ${a.name} of ${metric.name}: ${seeds.join(", ")}`;
  const hasInterval = found.low !== null && found.high !== null;
  const interval = hasInterval ? `95 % interval ${shown(found.low)} to ${shown(found.high)}` : "no interval";
  const track = el(
    "div",
    { className: "track", role: "img", "aria-label": label },
    el("span", { className: "better-side", style: side }),
    mark("zero", zero),
    // At three heights, so that dots of near values can be told apart.
    ...found.differences.map((value, i) =>
      mark("dot", at(value), seeds[i], { background: colorOf(pair.b), top: `${6 + (i % 3) * 7}px` }),
    ),
    hasInterval
      ? mark("interval", at(found.low), interval, {
          width: `${at(found.high) - at(found.low)}%`,
          color: colorOf(pair.b),
        })
      : null,
    found.mean === null ? null : mark("mean", at(found.mean), `mean ${shown(found.mean)}`),
  );
  const sign = metric.better === "lower" ? -1 : 1;
  const wins = found.differences.filter((value) => sign * value > 0).length;
  const minus = el("span", { className: "muted" }, `− ${a.name}`);
  return el(
    "div",
    { className: "difference" },
    el("div", { className: "difference-head" }, variantName(pair.b), minus),
    el(
      "p",
      { className: "difference-text" },
      el("strong", {}, shown(found.mean)),
      el("span", {}, interval),
      el("span", {}, `better in ${wins} of ${found.differences.length}`),
    ),
    track,
  );
}

const colorOf = (index) => `var(--color-${index % NUM_COLORS})`;

function differenceCard(metric, index) {
  const pairs = DATA.pairs.filter((pair) => pair.metrics[index]?.differences.length);
  if (!pairs.length) return null;
  const range = rangeOf(pairs.map((pair) => pair.metrics[index]));
  const { step, ticks } = ticksOf(...range);
  const decimals = Math.min(Math.max(-Math.floor(Math.log10(step) + 1e-9), 0), 9);
  const axis = ticks
    .map((tick) => [tick, ((tick - range[0]) / (range[1] - range[0])) * 100])
    .filter(([, left]) => left > 5 && left < 95) // nearer to an end a number would be cut off
    .map(([tick, left]) => el("span", { style: { left: `${left}%` } }, formatFixed(tick, decimals, true)));
  const sides = metric.better === "lower" ? ["← better", "worse →"] : ["← worse", "better →"];
  return el(
    "article",
    { className: "card differences" },
    el("h3", {}, ...metricHead(metric)),
    ...pairs.map((pair) => differenceRow(metric, pair, pair.metrics[index], range)),
    el("div", { className: "axis", "aria-hidden": "true" }, ...axis),
    el("div", { className: "sides", "aria-hidden": "true" }, ...sides.map((side) => el("span", {}, side))),
  );
}

function makeDifferences() {
  const cards = DATA.metrics.map(differenceCard).filter(Boolean);
  if (!cards.length) return byId("differences").remove();
  byId("differences").append(
    el("div", { className: "cards" }, ...cards),
    el(
      "p",
      { className: "hint" },
      "Each dot is a seed: the variant's value minus the baseline's of the same seed. The diamond is their mean, the " +
        "bar Student's t interval: where it leaves the line at zero out, chance alone is an unlikely reason.",
    ),
  );
}
