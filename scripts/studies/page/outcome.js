// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// What came of the study: a sentence, and the table of variants and metrics.

const VERDICTS = {
  better: ["Better", "finished"],
  worse: ["Worse", "stopped"],
  unclear: ["Not clear", ""],
  single: ["One seed", ""],
  none: ["No result yet", ""],
};

/** A number with a fixed count of decimals and a true minus; a plus too if `signed`. */
function formatFixed(value, decimals, signed = false) {
  if (value === null) return "–";
  const shown = Math.abs(value) < 1e9 ? value.toFixed(decimals) : value.toPrecision(3);
  return (signed && value > 0 ? `+${shown}` : shown).replace("-", "−");
}

/** A share as a change: −23 %. */
const formatChange = (share) => `${formatFixed(share * 100, Math.abs(share) < 0.1 ? 1 : 0, true)} %`;

/** A variant's name with its colour. */
const variantName = (index) =>
  el("span", { className: "run" }, swatch(index % NUM_COLORS), DATA.variants[index].name);

/** A metric's name and which direction of it is better. */
const metricHead = ({ name, better }) => [
  el("span", { className: "metric" }, name),
  el("span", { className: "unit" }, `${better === "higher" ? "↑" : "↓"} ${better} is better`),
];

function verdictBadge(verdict) {
  const [text, className] = VERDICTS[verdict];
  return el("span", { className: `badge ${className}` }, text);
}

/** What came of a pair by each metric that it has an outcome of. */
const outcomesOf = (pair) =>
  DATA.metrics.flatMap((metric, i) => {
    const found = pair.metrics[i];
    return found?.outcome ? [{ metric, pair, found, ...found.outcome }] : [];
  });

/** What the headline means in shares: of the metric, of time and of images. */
function headlineFacts({ metric, pair, found }) {
  const [a, b] = [DATA.variants[pair.a], DATA.variants[pair.b]];
  const { a_last: last, b_kimg: kimg } = found.reach;
  // A run ends with a whole batch, a little after its budget.
  const part = DATA.budget ? Math.min(kimg / DATA.budget, 1) : null;
  const share = kimg !== null && part !== null ? `, ${formatFixed(part * 100, 0)} % of the images` : "";
  return [
    last
      ? fact(`${metric.name} of ${b.name}`, formatChange(found.mean / Math.abs(last)), `Against ${a.name}`)
      : null,
    a.rate && b.rate ? fact("Time per image", formatChange(b.rate / a.rate - 1), `Against ${a.name}`) : null,
    a.gib && b.gib ? fact("Memory", formatChange(b.gib / a.gib - 1), `Against ${a.name}`) : null,
    kimg === null || last === null
      ? null
      : fact(`Reaches ${formatFixed(last, metric.decimals)} of ${a.name} at`, `${formatKimg(kimg)} kimg${share}`),
  ].filter(Boolean);
}

/** The outcomes of the metrics after the first. */
function otherOutcomes(others) {
  if (!others.length) return null;
  const line = ({ verdict, text }) => el("li", {}, verdictBadge(verdict), el("span", {}, text));
  return el("ul", { className: "outcomes" }, ...others.map(line));
}

function outcomeCard(pair) {
  const [headline, ...others] = outcomesOf(pair);
  if (!headline) return null;
  return el(
    "article",
    { className: `card outcome ${headline.verdict}` },
    verdictBadge(headline.verdict),
    el("p", { className: "sentence" }, headline.text),
    el("dl", { className: "facts" }, ...headlineFacts(headline)),
    otherOutcomes(others),
  );
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** How many runs are in which state. */
function runCounts() {
  const states = DATA.variants.flatMap(({ runs }) => runs.map(({ state }) => state));
  const counts = STATES.map((state) => [states.filter((other) => other === state).length, state]);
  return counts
    .filter(([count]) => count)
    .map(([count, state]) => `${count} ${state}`)
    .join(", ");
}

function makeOutcome() {
  const cards = DATA.pairs.map(outcomeCard).filter(Boolean);
  if (!cards.length)
    cards.push(
      el(
        "article",
        { className: "card outcome none" },
        verdictBadge("none"),
        el("p", { className: "sentence" }, DATA.outcome.text),
      ),
    );
  const about = [
    counted(DATA.variants.length, "variant"),
    counted(DATA.seeds.length, "seed"),
    DATA.budget === null ? "" : `${formatKimg(DATA.budget)} kimg each`,
    DATA.command,
    `runs: ${runCounts() || "none"}`,
  ];
  byId("outcome").append(...cards, el("p", { className: "hint" }, about.filter(Boolean).join(" · ")));
}

/** The best of the means of a metric; null unless two variants have one. */
function bestMean({ better }, i) {
  const means = DATA.variants.map(({ summary }) => summary[i].mean).filter((mean) => mean !== null);
  return means.length < 2 ? null : better === "higher" ? Math.max(...means) : Math.min(...means);
}

function meanCell({ decimals }, { mean, sd, values }, best) {
  const seeds = values.flatMap((value, i) =>
    value === null ? [] : [`seed ${DATA.seeds[i]}: ${formatFixed(value, decimals)}`],
  );
  const isBest = best !== null && mean === best;
  return el(
    "td",
    { className: isBest ? "best" : "", title: seeds.join("\n") },
    formatFixed(mean, decimals),
    sd === null ? null : el("span", { className: "sd" }, ` ± ${formatFixed(sd, decimals)}`),
    isBest ? el("span", { className: "star" }, " ★", el("span", { className: "hidden" }, "best")) : null,
  );
}

/** The rows of a variant: its means, and below, hidden at first, each seed. */
function resultRows(variant, index, best) {
  const rows = DATA.seeds.flatMap((seed, s) => {
    if (!variant.runs.some((run) => run.seed === seed)) return [];
    const cells = DATA.metrics.map(({ decimals }, i) =>
      el("td", {}, formatFixed(variant.summary[i].values[s], decimals)),
    );
    const props = { className: "seed", hidden: true, id: `result-${index}-${s}` };
    return [el("tr", props, el("th", { scope: "row" }, `seed ${seed}`), ...cells)];
  });
  const button = el(
    "button",
    { type: "button", className: "expand", "aria-expanded": "false", title: "Show every seed" },
    el("span", { className: "arrow", "aria-hidden": "true" }, "▸"),
    variantName(index),
  );
  if (rows.length) button.setAttribute("aria-controls", rows.map(({ id }) => id).join(" "));
  button.onclick = () => {
    const isOpen = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(isOpen));
    rows.forEach((row) => (row.hidden = !isOpen));
  };
  const name = el("th", { scope: "row" }, button, el("code", { className: "options" }, variant.options));
  const cells = DATA.metrics.map((metric, i) => meanCell(metric, variant.summary[i], best[i]));
  return [el("tr", {}, name, ...cells), ...rows];
}

function makeResults() {
  if (!DATA.variants.length || !DATA.metrics.length) return byId("results").remove();
  const best = DATA.metrics.map(bestMean);
  const heads = DATA.metrics.map((metric) => el("th", { scope: "col" }, ...metricHead(metric)));
  const table = el(
    "table",
    { className: "results" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Variant"), ...heads)),
    el("tbody", {}, ...DATA.variants.flatMap((variant, i) => resultRows(variant, i, best))),
  );
  const hint =
    "Mean ± standard deviation over seeds, at the last kimg that all finished ones have; ★ is the best mean. " +
    "A variant's name opens its seeds.";
  byId("results").append(
    el("div", { className: "card" }, tableBox("Results", table), el("p", { className: "hint" }, hint)),
  );
}
