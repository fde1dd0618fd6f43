// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// The head of a page: its sections, and its light and dark colours.

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Says what the button does; colours that plotly draws are for `onChange` to renew. */
function showTheme(onChange) {
  byId("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
  byId("theme").setAttribute("aria-label", isDark() ? "Change to light colours" : "Change to dark colours");
  onChange();
}

function makeTheme(onChange) {
  byId("theme").onclick = () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme(onChange);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showTheme(onChange));
  showTheme(onChange);
}

/** Links to the sections that are there. */
function makeNav(sections) {
  byId("nav").append(
    ...Object.entries(sections)
      .filter(([id]) => byId(id))
      .map(([id, name]) => el("a", { href: `#${id}` }, name)),
  );
}
