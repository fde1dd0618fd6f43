// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Puts the page together.

const SECTIONS = {
  results: "Results",
  differences: "Differences",
  curves: "Curves",
  samples: "Samples",
  clusters: "Clusters",
  cost: "Cost",
  commands: "Commands",
  about: "Versions",
};

makeOutcome();
makeResults();
makeDifferences();
makeCurves();
makeGallery("samples", DATA.samples, "The last pictures of each run. A seed has the same latents in all variants.");
makeGallery(
  "clusters",
  DATA.clusters,
  "Sheets of ggdr clusters, of the same latents in all runs. Without a decoder they show D's own features alone.",
  decoderText,
);
makeCost();
makeCommands();
makeAbout();
makeNav(SECTIONS);
makeTheme(() => {
  if (!curveView.charts.length) return;
  curveView.colors = plotColors();
  drawCharts();
});
const when = DATA.generated.match(/^([\d-]{10})T([\d:]{5})/);
byId("footer").textContent =
  `Written by ggdr compare${when ? ` on ${when[1]} ${when[2]}` : ""}. Charts by plotly.js.`;
