// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// The slider through the sample grids, and the viewer of enlarged pictures.

const PLAY_MS = 350;
const player = { at: 0, timer: null, figures: [], slider: null, onChange: null };

/** An <img> of one of the page's pictures. */
function pictureElement(picture, alt) {
  const className = picture.enlarged ? "pixelated" : "";
  return el("img", { src: DATA.pictures[picture.image], alt, width: picture.width, height: picture.height, className });
}

/** A run's grid at a position of the slider: the last one that is not later; before its first one, that. */
function frameAt(frames, kimg) {
  return frames.findLast((frame) => frame.kimg <= kimg) ?? frames[0];
}

function showSamples(at) {
  const kimgs = DATA.samples.kimg;
  player.at = Math.min(Math.max(at, 0), kimgs.length - 1);
  const kimg = kimgs[player.at];
  player.slider.value = player.at;
  const text = `${formatKimg(kimg)} kimg`;
  player.slider.setAttribute("aria-valuetext", text);
  byId("sample-kimg").textContent = text;
  for (const { img, caption, frames, name, link } of player.figures) {
    const frame = frameAt(frames, kimg);
    img.src = DATA.pictures[frame.image];
    img.alt = `Samples of ${name} at ${formatKimg(frame.kimg)} kimg`;
    caption.textContent = `${formatKimg(frame.kimg)} kimg`;
    link.href = frame.link;
  }
  player.onChange?.();
}

function play(on) {
  clearInterval(player.timer);
  player.timer = null;
  const button = byId("play");
  button.textContent = on ? "❚❚" : "▶";
  button.setAttribute("aria-label", on ? "Pause" : "Play");
  button.setAttribute("aria-pressed", String(on));
  if (!on) return;
  const last = DATA.samples.kimg.length - 1;
  if (player.at === last) showSamples(0);
  player.timer = setInterval(() => (player.at === last ? play(false) : showSamples(player.at + 1)), PLAY_MS);
}

/** Moves the slider by a key; whether it was one of its keys. */
function sampleKey(key) {
  const last = DATA.samples.kimg.length - 1;
  const target = { ArrowLeft: player.at - 1, ArrowRight: player.at + 1, Home: 0, End: last }[key];
  if (target === undefined) return false;
  play(false);
  showSamples(target);
  return true;
}

function sampleFigure(run) {
  const { frames } = DATA.samples.runs[run];
  const { name } = DATA.runs[run];
  const img = pictureElement(frames[0], "");
  const caption = el("span", { className: "muted" });
  const link = el("a", { className: "muted" }, "original");
  const open = el(
    "button",
    { type: "button", className: "picture", "aria-label": `Enlarge the samples of ${name}` },
    img,
  );
  open.onclick = () =>
    openViewer(
      name,
      () => frameAt(frames, DATA.samples.kimg[player.at]),
      (key) => sampleKey(key),
    );
  player.figures.push({ img, caption, frames, name, link });
  return el("figure", {}, el("figcaption", {}, runName(run), caption, link), open);
}

function realFigure(run, names) {
  const picture = DATA.samples.runs[run].reals;
  const text = DATA.runs.length > 1 ? `Real images of ${names}` : "Real images";
  const open = el(
    "button",
    { type: "button", className: "picture", "aria-label": "Enlarge the real images" },
    pictureElement(picture, text),
  );
  open.onclick = () => openViewer(text, () => picture);
  return el("figure", { className: "reals" }, el("figcaption", {}, el("span", { className: "run" }, text)), open);
}

function makeSamples() {
  const runs = DATA.samples.runs.map((_, run) => run);
  const shown = runs.filter((run) => DATA.samples.runs[run].frames.length);
  if (!shown.length) {
    byId("sample-card").textContent = "No sample grid yet.";
    return;
  }
  const figures = el("div", { className: "figures" }, ...shown.map(sampleFigure));
  // Runs on the same data show the same real images: once is enough.
  const reals = new Map();
  runs
    .filter((run) => DATA.samples.runs[run].reals)
    .forEach((run) => {
      const { image } = DATA.samples.runs[run].reals;
      reals.set(image, [...(reals.get(image) ?? []), run]);
    });
  for (const group of reals.values())
    figures.append(
      realFigure(group[0], reals.size > 1 ? group.map((run) => DATA.runs[run].name).join(", ") : "all runs"),
    );

  const last = DATA.samples.kimg.length - 1;
  player.slider = el("input", { type: "range", id: "sample-slider", min: 0, max: last, step: 1, value: last });
  player.slider.oninput = () => {
    play(false);
    showSamples(+player.slider.value);
  };
  const playButton = el(
    "button",
    { type: "button", id: "play", className: "round", onclick: () => play(player.timer === null) },
    "▶",
  );
  const slide = el(
    "div",
    { className: "slide" },
    playButton,
    el("label", { for: "sample-slider", className: "hidden" }, "Samples at"),
    player.slider,
    el("output", { id: "sample-kimg", htmlFor: "sample-slider" }),
  );
  const withReals = matchMedia("(min-width: 700px)").matches;
  const setReals = (on) => figures.classList.toggle("without-reals", !on);
  const toggle = reals.size
    ? toggleButton("Real images", "Show real images beside the samples", withReals, setReals)
    : null;
  setReals(withReals);
  byId("sample-card").append(el("div", { className: "sample-tools" }, slide, toggle), figures);
  const left = DATA.samples.runs.flatMap(({ frames, total }, run) =>
    frames.length < total ? [`${DATA.runs[run].name}: ${frames.length} of ${total} grids`] : [],
  );
  const thinned = left.length ? ` Evenly thinned: ${left.join(", ")}.` : "";
  byId("sample-card").append(
    el(
      "p",
      { className: "hint" },
      `The same latents at every step, by the averaged generator. Arrow keys step, a click enlarges.${thinned}`,
    ),
  );
  play(false);
  showSamples(last);
  document.addEventListener("keydown", (event) => {
    const bounds = byId("samples").getBoundingClientRect();
    const inView = bounds.top < innerHeight / 2 && bounds.bottom > innerHeight / 2;
    const isTyping = event.target.closest?.("input, textarea, select, dialog, .scroll");
    if (
      !isTyping &&
      inView &&
      !event.ctrlKey &&
      !event.metaKey &&
      !event.altKey &&
      event.key.startsWith("Arrow") &&
      sampleKey(event.key)
    )
      event.preventDefault();
  });
}

/** Shows a picture in full size; `current()` is asked again after keys that `onKey` knows. */
function openViewer(title, current, onKey = () => false) {
  const dialog = byId("viewer");
  const img = el("img", {});
  const text = el("span", {});
  const refresh = () => {
    const picture = current();
    img.src = DATA.pictures[picture.image];
    img.className = picture.enlarged ? "pixelated" : "";
    text.textContent = picture.kimg === undefined ? title : `${title}, ${formatKimg(picture.kimg)} kimg`;
    img.alt = text.textContent;
  };
  const close = el("button", { type: "button", className: "quiet", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    el("div", { className: "viewer-head" }, text, close),
    el("div", { className: "viewer-picture" }, img),
  );
  dialog.onkeydown = (event) => {
    if (!onKey(event.key)) return;
    event.preventDefault();
    refresh();
  };
  dialog.onclick = (event) => event.target === dialog && dialog.close();
  player.onChange = refresh;
  dialog.onclose = () => (player.onChange = null);
  refresh();
  dialog.showModal();
}
