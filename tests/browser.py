# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pages in a real browser: headless Chromium, by playwright. Tests that import this are skipped without them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'ggdr[test]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium, chromium-browser or google-chrome on PATH", allow_module_level=True)


@contextmanager
def launched() -> Iterator:
    """A browser, closed at the end."""
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, which needs rights that containers often lack; the page is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, path: Path, **context):
    """The page in a new window without a network; `page.heard` lists its errors and requests."""
    window = browser.new_context(offline=True, reduced_motion="reduce", **context)
    page = window.new_page()
    page.heard = []
    page.on("console", lambda message: page.heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: page.heard.append(f"error: {error}"))
    page.on("request", lambda request: request.url.startswith("data:") or page.heard.append(request.url))
    page.goto(path.as_uri())
    return page


def next_frame(page) -> None:
    """Waits until what was changed is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def background(page) -> tuple[int, ...]:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))


def unnamed(page) -> list[str]:
    """What can be used and has no name."""
    return page.evaluate(
        """[...document.querySelectorAll("button, input, [role=img], [role=region], [tabindex='0']")]
           .filter((node) => node.tagName !== "PRE" && !node.getAttribute("aria-label") && !node.textContent.trim()
                   && !node.labels?.length && !node.getAttribute("aria-labelledby"))
           .map((node) => node.outerHTML.slice(0, 90))"""
    )


def heading_levels(page) -> list[int]:
    return page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((node) => +node.tagName[1])")
