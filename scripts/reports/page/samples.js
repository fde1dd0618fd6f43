// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// The slider through the pictures of training, of any number of kinds.

const PLAY_MS = 350;
const player = { at: 0, timer: null, figures: [], slider: null };

/** A run's picture at a position of the slider: the last one that is not later; before its first one, that. */
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
  for (const { img, caption, frames, title, link } of player.figures) {
    const frame = frameAt(frames, kimg);
    img.src = DATA.pictures[frame.image];
    img.alt = `${title} at ${formatKimg(frame.kimg)} kimg`;
    caption.textContent = `${formatKimg(frame.kimg)} kimg`;
    link.href = frame.link;
  }
  viewer.refresh?.();
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

/** The pictures of one kind and run, which follow the slider. */
function steppingFigure(kind, run, isOneOfSeveral) {
  const { frames } = kind.runs[run];
  const title = `${kind.title} of ${DATA.runs[run].name}`;
  const img = pictureElement(frames[0], "");
  const caption = el("span", { className: "muted" });
  const link = el("a", { className: "muted" }, "original");
  const current = () => frameAt(frames, DATA.samples.kimg[player.at]);
  const open = pictureButton(title, img, () => openViewer(title, current, (key) => sampleKey(key)));
  player.figures.push({ img, caption, frames, title, link });
  const name = isOneOfSeveral ? el("span", {}, kind.title) : null;
  return el("figure", {}, el("figcaption", {}, runName(run), name, caption, link), open);
}

const steppingFigures = (kind, isOneOfSeveral) =>
  kind.runs.flatMap(({ frames }, run) => (frames.length ? [steppingFigure(kind, run, isOneOfSeveral)] : []));

/** The pictures of a kind that is made once. Runs on the same data have the same one: once is enough. */
function stillFigures(kind) {
  const runsOf = new Map();
  kind.runs.forEach(({ frames }, run) =>
    frames.forEach(({ image }) => runsOf.set(image, [...(runsOf.get(image) ?? []), run])),
  );
  return [...runsOf.values()].map((runs) => {
    const [picture] = kind.runs[runs[0]].frames;
    const isOfAll = runs.length === DATA.runs.length;
    const names = isOfAll ? "all runs" : runs.map((run) => DATA.runs[run].name).join(", ");
    const title = DATA.runs.length > 1 ? `${kind.title} of ${names}` : kind.title;
    const open = pictureButton(title, pictureElement(picture, title), () => openViewer(title, () => picture));
    return el("figure", { className: "still" }, el("figcaption", {}, el("span", { className: "run" }, title)), open);
  });
}

function makeSlide() {
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
  return el(
    "div",
    { className: "slide" },
    playButton,
    el("label", { for: "sample-slider", className: "hidden" }, "Samples at"),
    player.slider,
    el("output", { id: "sample-kimg", htmlFor: "sample-slider" }),
  );
}

/** A button that shows and hides the pictures of a kind. */
function kindToggle(kind, figures, isOn) {
  const show = (on) => figures.forEach((figure) => (figure.hidden = !on));
  show(isOn);
  return toggleButton(kind.title, `Show or hide ${kind.title}`, isOn, show);
}

/** Which pictures of runs are left out. */
function thinnedText(kinds) {
  const left = kinds.flatMap(({ title, runs }) =>
    runs.flatMap(({ frames, total }, run) =>
      frames.length < total ? [`${title} of ${DATA.runs[run].name}: ${frames.length} of ${total}`] : [],
    ),
  );
  return left.length ? ` Evenly thinned: ${left.join(", ")}.` : "";
}

function makeSamples() {
  const stepping = DATA.samples.kinds.filter((kind) => !kind.once);
  const still = DATA.samples.kinds.filter((kind) => kind.once);
  const card = byId("sample-card");
  if (!DATA.samples.kinds.length) {
    card.textContent = "No pictures yet.";
    return;
  }
  const figures = el("div", { className: "figures" });
  const toggles = [];
  stepping.forEach((kind, i) => {
    const own = steppingFigures(kind, stepping.length > 1);
    figures.append(...own);
    if (stepping.length > 1) toggles.push(kindToggle(kind, own, i === 0));
  });
  // On a small screen they would push the others out of sight.
  const withStills = matchMedia("(min-width: 700px)").matches || !stepping.length;
  still.forEach((kind) => {
    const own = stillFigures(kind);
    figures.append(...own);
    toggles.push(kindToggle(kind, own, withStills));
  });
  const choice = toggles.length
    ? el("div", { className: "kinds", role: "group", "aria-label": "Pictures shown" }, ...toggles)
    : null;
  card.append(el("div", { className: "sample-tools" }, stepping.length ? makeSlide() : null, choice), figures);
  if (!stepping.length) return;
  card.append(el("p", { className: "hint" }, `Arrow keys step, a click enlarges.${thinnedText(stepping)}`));
  play(false);
  showSamples(DATA.samples.kimg.length - 1);
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
