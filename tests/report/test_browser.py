"""The page in a real browser: drawn, inside a phone's width, silent on the console."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.browser import Browser, running_browser
from tests.report.recorded import Recorded
from tests.report.variations import HOSTILE, PI, float_only, untimed, with_targets, with_unpruned

PHONE, DESKTOP = 360, 1280
_OVERFLOW = "return document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, digits: Recorded, plane: Recorded) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    long = "a_very_long_name_without_any_space_" * 6
    names = (HOSTILE, long, "日本 $x$", "", '"><img src=x>', *digits.outcome.facts.classes[5:])
    hostile = digits.but(run=long, facts=dataclasses.replace(digits.outcome.facts, classes=names))
    made = {
        "plain": with_targets(digits, PI),
        "unpruned": with_unpruned(digits),
        "hostile": hostile,
        "many": digits,
        "plane": plane,
        "float": untimed(float_only(digits)),
    }
    for name, run in made.items():
        (folder / f"{name}.html").write_text(run.page(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["plain", "unpruned", "hostile", "many", "plane", "float"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_fits_and_the_console_is_silent(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.open(pages[name], width=width)
    assert browser.script(_OVERFLOW) == width
    assert browser.errors() == []
    assert browser.script("return performance.getEntriesByType('resource').length") == 0
    assert browser.script("return document.scripts.length") == 0


def test_overflow_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text('<!DOCTYPE html><meta name="viewport" content="width=device-width"><p style="width: 700px">x')
    browser.open(page, width=PHONE)
    assert browser.script(_OVERFLOW) > PHONE


def test_all_columns_of_the_layers_fit_a_desktop(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"], width=DESKTOP)
    boxes = browser.script(
        "return [...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth)"
    )
    assert boxes
    assert max(boxes) <= 0


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_a_screenshot_shows_text_and_figures(
    browser: Browser, pages: dict[str, Path], scheme: str, *, bright: bool
) -> None:
    browser.open(pages["plain"], width=DESKTOP, scheme="light" if scheme == "light" else "dark")
    png = browser.screenshot()
    kept = os.environ.get("KARUI_SCREENSHOTS")  # a folder: the pictures of the README are made this way
    if kept:
        (Path(kept) / f"report-{scheme}.png").write_bytes(png)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert pixels.shape[1] == DESKTOP
    assert pixels.shape[0] > 3000
    assert (pixels[2, 2] > 128) == bright
    histogram = np.bincount(pixels.ravel(), minlength=256)
    assert 0.02 < 1 - histogram.max() / pixels.size < 0.6  # text and figures, not a blank or a black page
    assert np.count_nonzero(histogram) > 100  # shades of text, figures and pictures


def test_pictures_and_figures_are_drawn(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"], width=PHONE)
    widths = browser.script("return [...document.images].map(each => each.naturalWidth)")
    assert widths
    assert set(widths) == {8}
    heights = browser.script(
        "return [...document.querySelectorAll('svg.figure')].map(each => each.getBoundingClientRect().height)"
    )
    assert len(heights) == 10
    assert min(heights) > 50


def test_text_in_figures_stays_readable_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"], width=PHONE)
    heights = browser.script(
        "return [...document.querySelectorAll('svg.figure text')].map(each => each.getBoundingClientRect().height)"
    )
    assert min(heights) >= 8  # px; text of 8.5 px has a line box of about 10
