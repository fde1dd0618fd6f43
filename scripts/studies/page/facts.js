// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// What is known of the study besides: cost, runs, commands, versions, machine, notes.

const STATES = ["finished", "running", "stopped", "failed", "missing"];

/** Hours as 12m 30s or 1h 05m; days after two of them. */
const formatHours = (hours) => formatSeconds(hours * 3600);

function factTable(label, heads, rows) {
  const head = el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell))));
  return tableBox(label, el("table", { className: "data" }, el("thead", {}, head), el("tbody", {}, ...body)));
}

function costRows() {
  const base = DATA.variants[0];
  return DATA.variants.map((variant, i) => {
    const change = i && base.rate && variant.rate ? formatChange(variant.rate / base.rate - 1) : i ? "–" : "baseline";
    const hours = variant.hours === null ? "–" : formatHours(variant.hours);
    return [variantName(i), formatValue(variant.rate), change, hours, formatFixed(variant.gib, 2)];
  });
}

/** Who reaches whose last value, and after how much; both ways for each pair and metric. */
function reachRows() {
  return DATA.pairs.flatMap((pair) =>
    DATA.metrics.flatMap(({ name, decimals }, i) => {
      const reach = pair.metrics[i]?.reach;
      if (!reach) return [];
      const row = (of, by, last, kimg, hours) => {
        const share = DATA.budget && kimg ? `${formatFixed((kimg / DATA.budget) * 100, 0)} %` : "–";
        const reached = kimg === null ? ["not reached", "–", "–"] : [`${formatKimg(kimg)} kimg`, share];
        if (kimg !== null) reached.push(hours === null ? "–" : formatHours(hours));
        return [variantName(by), `${formatFixed(last, decimals)} of ${DATA.variants[of].name}`, name, ...reached];
      };
      const { a_last, b_kimg, b_hours, b_last, a_kimg, a_hours } = reach;
      return [
        ...(a_last === null ? [] : [row(pair.a, pair.b, a_last, b_kimg, b_hours)]),
        ...(b_last === null ? [] : [row(pair.b, pair.a, b_last, a_kimg, a_hours)]),
      ];
    }),
  );
}

function makeCost() {
  const isKnown = DATA.variants.some(({ rate, hours, gib }) => [rate, hours, gib].some((value) => value !== null));
  const reached = reachRows();
  if (!isKnown && !reached.length) return byId("cost").remove();
  const cards = [];
  if (isKnown) {
    const heads = ["Variant", "s/kimg", "against baseline", "time of a run", "GiB"];
    cards.push(["What a run takes", factTable("Cost", heads, costRows())]);
  }
  if (reached.length) {
    const heads = ["Variant", "reaches", "by", "at", "of the images", "in"];
    cards.push(["To reach the other's last value", factTable("To reach the other's last value", heads, reached)]);
  }
  const articles = cards.map(([title, table]) => el("article", { className: "card" }, el("h3", {}, title), table));
  byId("cost").append(
    el("div", { className: "cards" }, ...articles),
    el("p", { className: "hint" }, "Means over seeds; time is of training alone, without snapshots and metrics."),
  );
}

function makeCommands() {
  if (!DATA.variants.length) return byId("commands").remove();
  const rows = DATA.variants.flatMap(({ runs }, i) =>
    runs.map(({ seed, state, kimg, hours, note }) => [
      variantName(i),
      seed,
      el("span", { className: `badge ${state}` }, state),
      kimg === null ? "–" : formatKimg(kimg),
      hours === null ? "–" : formatHours(hours),
      note,
    ]),
  );
  const heads = ["Variant", "seed", "state", "kimg", "time", ""];
  const table = rows.length ? el("article", { className: "card" }, factTable("Runs", heads, rows)) : null;
  const cards = DATA.variants.map(({ command, runs, name }, i) => {
    const commands = runs.filter((run) => run.command);
    const every = commands.map((run) => el("li", {}, el("span", {}, `seed ${run.seed}`), commandBox(run.command)));
    const details = el(
      "details",
      {},
      el("summary", {}, `The command of each run of ${name}`),
      el("ul", { className: "plain" }, ...every),
    );
    return el(
      "article",
      { className: "card" },
      el("h3", {}, variantName(i)),
      command ? commandBox(command) : el("p", { className: "hint" }, "Its command is unknown."),
      commands.length ? details : null,
    );
  });
  byId("commands").append(...[table, el("div", { className: "cards" }, ...cards)].filter(Boolean));
}

function makeAbout() {
  const groups = [
    ["Versions", DATA.versions],
    ["Machine", DATA.machine],
  ].filter(([, facts]) => facts.length);
  const cards = groups.map(([title, facts]) => {
    const rows = facts.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)));
    return el(
      "article",
      { className: "card group" },
      el("h3", {}, title),
      tableBox(title, el("table", { className: "settings" }, el("tbody", {}, ...rows))),
    );
  });
  const notes = DATA.notes.map((note) => el("li", {}, note));
  const noteCard = notes.length
    ? el("article", { className: "card notes" }, el("h3", {}, "Notes"), el("ul", {}, ...notes))
    : null;
  if (!cards.length && !noteCard) return byId("about").remove();
  byId("about").append(noteCard ?? "", el("div", { className: "cards" }, ...cards));
}
