// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Puts the page together.

const SECTIONS = {
  curves: "Curves",
  samples: "Samples",
  clusters: "Clusters",
  snapshots: "Snapshots",
  settings: "Settings",
  machine: "Machine",
  log: "Log",
};

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  byId("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
  byId("theme").setAttribute("aria-label", isDark() ? "Change to light colours" : "Change to dark colours");
  if (!view.panels.length) return;
  readColors();
  drawAll();
}

function makeTheme() {
  byId("theme").onclick = () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
}

if (!DATA.clusters.length) byId("clusters").remove();
byId("nav").append(
  ...Object.entries(SECTIONS)
    .filter(([id]) => byId(id))
    .map(([id, name]) => el("a", { href: `#${id}` }, name)),
);
makeStatus();
makeCharts();
makeSamples();
makeClusters();
byId("snapshots").append(el("div", { className: "cards" }, ...DATA.runs.map(snapshotTable)));
makeCommands();
makeGroups("settings", DATA.settings, true);
makeGroups("machine", DATA.machines, false);
makeLog();
makeTheme();
byId("footer").textContent = `Written by ggdr report on ${DATA.written}. Charts by plotly.js.`;
