// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Everything that is text: status, clusters, snapshots, settings, machine, log.

const STATES = { running: "Running", finished: "Finished", stopped: "Stopped", unfinished: "Not finished" };

/** A run's name with its colour, where there is more than one. */
function runName(index) {
  const name = DATA.runs[index].name;
  return DATA.runs.length > 1
    ? el("span", { className: "run" }, swatch(index), name)
    : el("span", { className: "run" }, name);
}

function statusCard(run, index) {
  const { state, kimg, total, sec_per_kimg: rate, left, spent, written } = run.status;
  const done = total ? Math.min(kimg / total, 1) : null;
  const badge = el("span", { className: `badge ${state}` }, STATES[state]);
  const facts = [
    fact(
      "Trained",
      total ? `${formatKimg(kimg)} of ${formatKimg(total)} kimg` : `${formatKimg(kimg)} kimg`,
      "Thousands of real images shown to the discriminator",
    ),
    rate === null ? null : fact("Speed", `${formatValue(rate)} s/kimg`, "Median of the last ticks"),
    left === null ? null : fact("Time left", `about ${formatSeconds(left)}`),
    fact("Time trained", formatSeconds(spent), "Without snapshots and metrics"),
    ...run.metrics
      .slice(0, 2)
      .map(({ name, key, best }) =>
        fact(`Best ${name}`, `${formatValue(bestValue(run, key, best))} at ${formatKimg(best)} kimg`),
      ),
    fact("Last written", written),
  ];
  const bar =
    done === null
      ? null
      : el(
          "div",
          {
            className: "bar",
            role: "progressbar",
            "aria-label": `Progress of ${run.name}`,
            "aria-valuenow": Math.round(done * 100),
            "aria-valuemin": 0,
            "aria-valuemax": 100,
          },
          el("div", {
            style: {
              width: `${done * 100}%`,
              background: DATA.runs.length > 1 ? `var(--color-${index})` : "var(--accent)",
            },
          }),
        );
  return el(
    "article",
    { className: "card" },
    el("div", { className: "status-head" }, el("h2", {}, runName(index)), badge),
    bar,
    el("dl", { className: "facts" }, ...facts.filter(Boolean)),
    el("p", { className: "folder" }, run.folder),
  );
}

const bestValue = (run, key, kimg) =>
  run.snapshots.find((snapshot) => snapshot.kimg === kimg && key in snapshot.values)?.values[key];

function makeStatus() {
  byId("status").append(el("div", { className: "cards" }, ...DATA.runs.map(statusCard)));
  for (const [kind, title, lines] of [
    ["faults", "Not everything could be read", DATA.notes],
    ["hints", "What else could be shown", DATA.hints],
  ]) {
    if (lines.length) {
      byId("status").append(
        el(
          "div",
          { className: `card notes ${kind}` },
          el("h3", {}, title),
          el("ul", {}, ...lines.map((line) => el("li", {}, line))),
        ),
      );
    }
  }
}

/** One picture at a time, chosen by tabs. */
function sheetTabs(cluster, id) {
  const panel = el("div", { role: "tabpanel", id: `${id}-panel`, tabIndex: 0 });
  const tabs = cluster.sheets.map((sheet, i) => {
    const tab = el(
      "button",
      { type: "button", role: "tab", id: `${id}-tab${i}`, "aria-controls": panel.id },
      sheet.title,
    );
    tab.onclick = () => {
      tabs.forEach((other) => {
        other.setAttribute("aria-selected", String(other === tab));
        other.tabIndex = other === tab ? 0 : -1;
      });
      panel.setAttribute("aria-labelledby", tab.id);
      const open = el(
        "button",
        { type: "button", className: "picture", "aria-label": `Enlarge ${sheet.title}` },
        pictureElement(sheet, `${cluster.title}: ${sheet.title}`),
      );
      open.onclick = () => openViewer(`${cluster.title}: ${sheet.title}`, () => sheet);
      panel.replaceChildren(
        open,
        el("p", { className: "hint" }, sheet.note ? `${sheet.note} ` : "", el("a", { href: sheet.link }, "original")),
      );
    };
    return tab;
  });
  const list = el("div", { className: "tabs", role: "tablist", "aria-label": cluster.title }, ...tabs);
  list.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  };
  tabs[0]?.click();
  return tabs.length ? el("div", {}, list, panel) : null;
}

function animationFigure(animation) {
  const { title, image, is_video: isVideo, link, bytes } = animation;
  const source = DATA.pictures[image];
  const shown =
    image === null
      ? null
      : isVideo
        ? el("video", { src: source, controls: true, loop: true, muted: true, playsInline: true, "aria-label": title })
        : el("img", { src: source, alt: title });
  const original = el(
    "a",
    { href: link },
    image === null ? `open it (${formatBytes(bytes)}, too large for this page)` : "original",
  );
  return el("figure", {}, el("figcaption", {}, el("span", { className: "run" }, title), original), shown);
}

function numberTable(title, rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const text = (value) =>
    Number.isInteger(value)
      ? String(value)
      : typeof value === "number"
        ? formatValue(value)
        : value === null || value === undefined
          ? "–"
          : String(value);
  const cell = (value) => el("td", { className: typeof value === "number" ? "number" : "" }, text(value));
  const head = el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)));
  return tableBox(
    `Numbers of ${title}`,
    el(
      "table",
      { className: "data" },
      el("thead", {}, head),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...columns.map((name) => cell(row[name]))))),
    ),
  );
}

function makeClusters() {
  DATA.clusters.forEach((cluster, i) => {
    const card = el("article", { className: "card" });
    const name = DATA.runs.length > 1 ? runName(DATA.runs.findIndex((run) => run.name === cluster.run)) : null;
    card.append(el("div", { className: "status-head" }, el("h3", {}, cluster.title), name ?? ""));
    if (cluster.note) card.append(el("p", {}, cluster.note));
    card.append(sheetTabs(cluster, `cluster${i}`) ?? "");
    if (cluster.animations.length)
      card.append(el("div", { className: "figures" }, ...cluster.animations.map(animationFigure)));
    if (cluster.numbers.length) card.append(numberTable(cluster.title, cluster.numbers));
    if (cluster.command) card.append(commandBox(cluster.command));
    byId("clusters").append(card);
  });
}

function snapshotTable(run, index) {
  const { snapshots, metrics, name } = run;
  if (!snapshots.length) return el("p", { className: "card" }, runName(index), " has no snapshot yet.");
  const head = el(
    "tr",
    {},
    ...["kimg", ...metrics.map((metric) => metric.name), "size", "file"].map((text) =>
      el("th", { scope: "col" }, text),
    ),
  );
  const rows = [...snapshots].reverse().map((snapshot) => {
    const values = metrics.map(({ key, best }) => {
      const isBest = snapshot.kimg === best && key in snapshot.values;
      return el(
        "td",
        { className: `number ${isBest ? "best" : ""}` },
        formatValue(snapshot.values[key]),
        isBest ? el("span", { className: "star" }, " ★ best") : "",
      );
    });
    const kimg = snapshot.kimg === null ? "–" : formatKimg(snapshot.kimg);
    return el(
      "tr",
      {},
      el("td", { className: "number" }, kimg),
      ...values,
      el("td", { className: "number" }, formatBytes(snapshot.bytes)),
      el("td", {}, el("a", { href: snapshot.link }, snapshot.file)),
    );
  });
  const table = el("table", { className: "data" }, el("thead", {}, head), el("tbody", {}, ...rows));
  return el(
    "article",
    { className: "card" },
    DATA.runs.length > 1 ? el("h3", {}, runName(index)) : null,
    tableBox(`Snapshots of ${name}`, table),
  );
}

/** Settings of one run as lists, of several as one table whose differing rows are marked. */
function groupCards(groups, onlyDifferent) {
  const cards = groups.map(({ title, rows }) => {
    const shown = onlyDifferent ? rows.filter((row) => row.differs) : rows;
    if (!shown.length) return null;
    const body = shown.map(({ name, values, differs }) =>
      el(
        "tr",
        { className: differs ? "differs" : "" },
        el(
          "th",
          { scope: "row" },
          name.replaceAll("_", " "),
          differs ? el("span", { className: "mark", title: "differs" }, " ≠") : "",
        ),
        ...values.map((value) => el("td", {}, value ?? "–")),
      ),
    );
    const head =
      DATA.runs.length > 1
        ? el("thead", {}, el("tr", {}, el("td"), ...DATA.runs.map((_, i) => el("th", { scope: "col" }, runName(i)))))
        : null;
    return el(
      "article",
      { className: "card group" },
      el("h3", {}, title),
      tableBox(title, el("table", { className: "settings" }, head, el("tbody", {}, ...body))),
    );
  });
  return cards.filter(Boolean);
}

function makeGroups(id, groups, onlyDifferent) {
  const several = DATA.runs.length > 1;
  const box = el("div", { className: several ? "groups wide" : "groups" });
  const show = (onlyDifferent) => {
    const cards = groupCards(groups, onlyDifferent);
    box.replaceChildren(
      ...(cards.length
        ? cards
        : [el("p", { className: "card" }, groups.length ? "No difference." : "Nothing is known of it.")]),
    );
  };
  if (several && groups.length) {
    const check = el("input", {
      type: "checkbox",
      id: `${id}-differ`,
      checked: onlyDifferent,
      onchange: () => show(check.checked),
    });
    byId(id).append(el("p", { className: "check" }, check, el("label", { for: check.id }, "Only what differs")));
  }
  byId(id).append(box);
  show(several && onlyDifferent);
}

function makeCommands() {
  DATA.runs.forEach((run, i) => {
    if (run.command === null && !run.history.length) return;
    const card = el("article", { className: "card" }, el("h3", {}, DATA.runs.length > 1 ? runName(i) : "Command"));
    if (run.command !== null) card.append(commandBox(run.command));
    if (run.history.length)
      card.append(el("h4", {}, "How it went on"), el("ol", {}, ...run.history.map((entry) => el("li", {}, entry))));
    byId("settings").append(card);
  });
}

function makeLog() {
  DATA.runs.forEach((run, i) => {
    const last = run.log.at(-1) ?? "No log.txt.";
    const text = el("pre", { tabIndex: 0 }, run.log.join("\n"));
    byId("log").append(
      el(
        "details",
        { className: "card" },
        el("summary", {}, DATA.runs.length > 1 ? runName(i) : "", el("span", { className: "last" }, last)),
        text,
      ),
    );
  });
}
