// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Pictures of all variants beside each other, for one seed at a time.

/** Which decoders a variant has on its discriminator, for cluster sheets; nothing if no run says it. */
function decoderText(variant) {
  const names = DATA.variants[variant].regularizers;
  if (names === null) return null;
  return names.length ? `D's decoder: ${names.join(", ")}` : "no decoder on D";
}

/** The picture of a variant, or why there is none; arrow keys go on to the next variant in the viewer. */
function galleryFigure(pictures, at, textOf) {
  const { variant, seed, picture, why } = pictures[at];
  const name = variantName(variant);
  const line = (text) => (text ? el("p", { className: "about-picture" }, text) : null);
  const about = line(textOf(variant));
  if (!picture) {
    const none = el("p", { className: "no-picture" }, why ?? "no picture yet");
    const caption = el("figcaption", {}, name, el("span", { className: "muted" }, `seed ${seed}`));
    return el("figure", {}, caption, about, none);
  }
  const headingOf = (shown) => `${shown.picture.title} of ${DATA.variants[shown.variant].name}, seed ${shown.seed}`;
  const title = headingOf(pictures[at]);
  const where = picture.kimg === null ? `seed ${seed}` : `seed ${seed}, ${formatKimg(picture.kimg)} kimg`;
  const open = pictureButton(title, pictureElement(picture, title), () => {
    const known = pictures.filter((shown) => shown.picture);
    let now = known.indexOf(pictures[at]);
    const current = () => ({ ...known[now].picture, heading: headingOf(known[now]) });
    openViewer(title, current, (key) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (step) now = (now + step + known.length) % known.length;
      return step !== undefined;
    });
  });
  const link = el("a", { className: "muted", href: picture.link }, "original");
  const caption = el("figcaption", {}, name, el("span", { className: "muted" }, where), link);
  const isOther = pictures.some((other) => other.picture && other.picture.title !== picture.title);
  const note = picture.note ? el("p", { className: "hint" }, picture.note) : null;
  return el("figure", {}, caption, about, isOther ? line(picture.title) : null, open, note);
}

/** A picture that is the same in all runs. */
function commonFigure(kind, picture) {
  const open = pictureButton(kind, pictureElement(picture, kind), () => openViewer(kind, () => picture));
  const link = el("a", { className: "muted", href: picture.link }, "original");
  return el("figure", {}, el("figcaption", {}, el("span", { className: "run" }, kind), link), open);
}

/** Fills a section with pictures; without any it goes. `textOf(variant)` stands above each. */
function makeGallery(id, kinds, hint, textOf = () => null) {
  const own = kinds.filter(({ pictures }) => pictures.some(({ variant }) => variant !== null));
  const common = kinds.filter(({ pictures }) => pictures.some(({ variant }) => variant === null));
  const titles = own.map(({ title }) => title);
  const shown = own.flatMap(({ pictures }) => pictures);
  const seeds = DATA.seeds.filter((seed) => shown.some((picture) => picture.seed === seed));
  if (!own.length && !common.length) return byId(id).remove();
  const chosen = { kind: titles[0], seed: seeds[0], common: new Set() };
  const figures = el("div", { className: "figures" });
  const show = () => {
    const kind = own.find(({ title }) => title === chosen.kind);
    const pictures = DATA.variants.map((_, variant) => {
      const isOfRun = (entry) => entry.variant === variant && entry.seed === chosen.seed;
      return {
        variant,
        seed: chosen.seed,
        picture: kind?.pictures.find(isOfRun),
        why: kind?.missing.find(isOfRun)?.why,
      };
    });
    figures.replaceChildren(
      ...(kind ? pictures.map((_, at) => galleryFigure(pictures, at, textOf)) : []),
      ...common.flatMap(({ title, pictures }) =>
        chosen.common.has(title) || !own.length ? pictures.map((picture) => commonFigure(title, picture)) : [],
      ),
    );
  };
  const choose = (key) => (value) => {
    chosen[key] = value;
    show();
  };
  const stills = own.length ? common : [];
  const toggles = stills.map(({ title }) =>
    toggleButton(title, `Show or hide ${title}`, false, (on) => {
      if (on) chosen.common.add(title);
      else chosen.common.delete(title);
      show();
    }),
  );
  const enlarge = toggleButton("Large", "Show large pictures", false, (on) => figures.classList.toggle("large", on));
  enlarge.classList.add("enlarge");
  const tools = [
    seeds.length ? el("span", { className: "muted", "aria-hidden": "true" }, "seed") : null,
    seeds.length ? choiceGroup("Seed", seeds, chosen.seed, choose("seed")) : null,
    titles.length > 1 ? choiceGroup("Pictures", titles, chosen.kind, choose("kind")) : null,
    ...toggles,
    enlarge,
  ];
  byId(id).append(
    el(
      "div",
      { className: "card" },
      el("div", { className: "gallery-tools" }, ...tools.filter(Boolean)),
      figures,
      el("p", { className: "hint" }, `${hint} A click enlarges; arrow keys then change variants.`),
    ),
  );
  show();
}
