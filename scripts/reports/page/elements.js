// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Elements and texts. All text from a run folder becomes text nodes, never HTML.
"use strict";

/** An element; `props` are properties, attributes if their names have a dash or are role, and listeners (onclick). */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else if (name === "style") Object.entries(value).forEach(([key, text]) => node.style.setProperty(key, text));
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** A number with four significant digits, of steady width. */
function formatValue(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2);
  return value.toPrecision(4);
}

/** kimg without needless decimals. */
const formatKimg = (kimg) => kimg.toLocaleString("en", { maximumFractionDigits: kimg < 10 ? 3 : 1 });

/** 41s, 5m 02s, 1h 05m, 2d 01h. */
function formatSeconds(seconds) {
  const pad = (number) => String(number).padStart(2, "0");
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days) return `${days}d ${pad(hours)}h`;
  if (hours) return `${hours}h ${pad(minutes)}m`;
  return minutes ? `${minutes}m ${pad(whole % 60)}s` : `${whole}s`;
}

function formatBytes(bytes) {
  const [size, unit] =
    bytes < 2 ** 20 ? [bytes / 2 ** 10, "KB"] : bytes < 2 ** 30 ? [bytes / 2 ** 20, "MB"] : [bytes / 2 ** 30, "GB"];
  return `${size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
}

/** The mark of a run's or curve's colour. */
const swatch = (index) =>
  el("span", { className: "swatch", style: { background: `var(--color-${index})` }, "aria-hidden": "true" });

/** A table that scrolls by itself where it is too wide. */
const tableBox = (label, table) =>
  el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label }, table);

/** A value of a CSS variable as a colour that plotly understands. */
function cssColor(name) {
  const probe = el("span", { style: { color: `var(${name})` } });
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** `run` at most once a frame. */
function oncePerFrame(run) {
  let waits = false;
  return () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      run();
    });
  };
}

/** A button that is on or off. */
function toggleButton(text, label, isOn, onToggle) {
  const button = el(
    "button",
    { type: "button", className: "quiet small", "aria-pressed": String(isOn), "aria-label": label, title: label },
    text,
  );
  button.onclick = () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    onToggle(on);
  };
  return button;
}

/** A command that can be copied. */
function commandBox(command) {
  const copy = el("button", { type: "button", className: "quiet small" }, "Copy");
  copy.onclick = async () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    // Some browsers refuse it to pages without a server; the selection is then ready for Ctrl-C.
    copy.textContent =
      (await navigator.clipboard?.writeText(command).then(
        () => "Copied",
        () => "Selected",
      )) ?? "Selected";
  };
  const code = el("code", {}, command);
  return el("div", { className: "command" }, el("pre", { tabIndex: 0 }, code), copy);
}

/** Buttons of which one is chosen. */
function choiceGroup(label, names, chosen, onChoose) {
  const buttons = names.map((name) => {
    const isOn = String(name === chosen);
    return el("button", { type: "button", className: "quiet small", "aria-pressed": isOn }, name);
  });
  buttons.forEach((button, i) => {
    button.onclick = () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      onChoose(names[i]);
    };
  });
  return el("div", { className: "choice", role: "group", "aria-label": label }, ...buttons);
}

/** A name and its value, for a list of facts. */
function fact(name, value, title) {
  return el("div", { className: "fact", title: title ?? "" }, el("dt", {}, name), el("dd", {}, value));
}
