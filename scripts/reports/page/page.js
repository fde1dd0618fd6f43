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

if (!DATA.clusters.length) byId("clusters").remove();
makeNav(SECTIONS);
makeStatus();
makeCharts();
makeSamples();
makeClusters();
byId("snapshots").append(el("div", { className: "cards" }, ...DATA.runs.map(snapshotTable)));
makeCommands();
makeGroups("settings", DATA.settings, true);
makeGroups("machine", DATA.machines, false);
makeLog();
makeTheme(() => {
  if (!view.panels.length) return;
  view.colors = plotColors();
  drawAll();
});
byId("footer").textContent = `Written by ggdr report on ${DATA.written}. Charts by plotly.js.`;
