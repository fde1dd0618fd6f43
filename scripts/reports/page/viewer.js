// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Pictures, and the viewer of enlarged ones.

const viewer = { refresh: null };

/** An <img> of one of the page's pictures. */
function pictureElement(picture, alt) {
  const className = picture.enlarged ? "pixelated" : "";
  return el("img", { src: DATA.pictures[picture.image], alt, width: picture.width, height: picture.height, className });
}

/** A picture that enlarges at a click. */
function pictureButton(title, img, onclick) {
  return el("button", { type: "button", className: "picture", "aria-label": `Enlarge ${title}`, onclick }, img);
}

/**
 * Shows a picture in full size; `current()` is asked again after keys that `onKey` knows. A picture with a `heading`
 * of its own is called by that in place of `title`.
 */
function openViewer(title, current, onKey = () => false) {
  const dialog = byId("viewer");
  const img = el("img", {});
  const text = el("span", {});
  const refresh = () => {
    const picture = current();
    img.src = DATA.pictures[picture.image];
    img.className = picture.enlarged ? "pixelated" : "";
    const { kimg = null, heading = title } = picture;
    text.textContent = kimg === null ? heading : `${heading}, ${formatKimg(kimg)} kimg`;
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
  viewer.refresh = refresh;
  dialog.onclose = () => (viewer.refresh = null);
  refresh();
  dialog.showModal();
}
