"""A new user's way: a folder of photographs, ``karui init``, ``karui run``, ``karui predict`` on a new one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.instruments import here
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

COLOURS = {"leaf": (40, 160, 50), "rust": (190, 90, 30), "sky": (60, 110, 220)}
SIZES = ((64, 48), (48, 64), (90, 120), (160, 90), (300, 400))
ON_ITS_SIDE = 6  # EXIF: the phone was held upright


def photograph(colour: tuple[int, ...], random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw a spot of about this colour somewhere on grey noise."""
    width, height = size
    picture = Image.fromarray(random.integers(70, 150, (height, width, 3)).astype(np.uint8))
    across = 0.7 * min(size)
    left, top = ((side - across) * random.uniform(0.2, 0.8) for side in size)
    shade = tuple(int(np.clip(value + random.integers(-20, 21), 0, 255)) for value in colour)
    ImageDraw.Draw(picture).ellipse((left, top, left + across, top + across), fill=shade)
    return picture


def take_photographs(folder: Path, count: int, seed: int) -> None:
    """Write photographs of every class as phones and chats leave them."""
    random = np.random.default_rng(seed)
    note = Image.Exif()
    note[0x0112] = ON_ITS_SIDE
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = photograph(colour, random, SIZES[number % len(SIZES)])
            path = folder / name / f"IMG_{number:04}.JPG"
            if number % 3 == 1:
                picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=note)
            elif number == 3:
                picture.putalpha(230)
                picture.save(path.with_suffix(".png"))
            elif number == 5:
                picture.save(path.with_suffix(".webp"))
            else:
                picture.save(path)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "notes.txt").write_text("from my phone")


def test_two_commands_lead_from_photographs_to_a_verdict(karui: Karui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "SESSIONS", 2)  # what is measured does not matter here
    take_photographs(karui.folder / "walk", 30, seed=0)
    said = karui("init", "walk")
    assert said.status == 0, said.err
    assert "90 pictures in 3 classes" in said.out
    assert "karui run walk.toml" in said.out
    short = (
        "--set",
        "train.epochs=20",
        "--set",
        "quantize.epochs=1",
        "--allow-open",
    )  # few test pictures settle little
    said = karui("run", "walk.toml", "--threads", "1", *short)
    assert said.status == 0, said.err
    assert "left out: 1 hidden or of the system, 1 of type .txt" in said.err
    take_photographs(karui.folder / "new", 6, seed=1)
    said = karui("predict", "walk", "new", "--json")
    assert said.status == 0, said.err
    found = [Path(each["input"]).parent.name == each["class"] for each in json.loads(said.out)]
    assert len(found) == 18
    assert np.mean(found) > 0.8
