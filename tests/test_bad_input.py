"""What a user gets for bad data, networks and weights: which file, layer or sample, what to do, no traceback."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.own_project import NO_COMPARISON, Karui, draw, squares
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

# ── data files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def refused_set(karui: Karui, x: object, y: object, *words: str, more: str = "") -> None:
    karui.npz_card({"x": np.asarray(x), "y": np.asarray(y)}, more=more)
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml", "--until", "train").refused(4, *words)


def test_a_label_out_of_range(karui: Karui) -> None:
    x, y = squares(60, 3)
    y[7] = 3
    more = 'classes = ["a", "b", "c"]\n'
    refused_set(karui, x, y, "set.npz: y: sample 7 has the label 3, expected 0 … 2", "correct the labels", more=more)


def test_one_class_only(karui: Karui) -> None:
    x, y = squares(60, 3)
    refused_set(karui, x, 0 * y, "all 60 samples are of one class, '0'; there is nothing to tell apart")


def test_no_samples_at_all(karui: Karui) -> None:
    x, y = squares(60, 3)
    refused_set(karui, x[:0], y[:0], "set: the training split is empty: 0 samples", more='classes = ["a", "b"]\n')


def test_an_empty_split(karui: Karui) -> None:
    x, y = squares(60, 3)
    karui.npz_card({"x_train": x, "y_train": y, "x_test": x[:0], "y_test": y[:0]})
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml", "--until", "train").refused(4, "the test split is empty: 0 samples")


def test_a_sample_that_is_no_number_and_one_of_another_shape(karui: Karui) -> None:
    x, y = squares(60, 3)
    floats = x.astype(np.float32)
    floats[3, 0, 2, 5] = np.nan
    refused_set(karui, floats, y, "set.npz: x: sample 3 holds nan at (0, 2, 5)")
    refused_set(karui, x[:, :, :4], y, "samples have the shape (1, 4, 8), expected (1, 8, 8)")


def test_a_missing_and_an_altered_file(karui: Karui) -> None:
    x, y = squares(60, 3)
    card = karui.npz_card({"x": x, "y": y})
    expected, found = "a" * 64, hashlib.sha256(Path("set.npz").read_bytes()).hexdigest()
    card.write_text(card.read_text().replace('"set.npz"', f'"set.npz"\nsha256 = "{expected}"'))
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml").refused(
        4, "set.npz: is not the file", f"expected sha256 {expected}, found {found}", "put the right one in its place"
    )
    Path("set.npz").unlink()
    said = karui("run", "mine.toml")
    said.refused(
        4, "'set.npz' of the data set 'set' is missing", f"expected sha256 {expected}", "KARUI_DATA", "looked for"
    )
    assert not Path("runs").exists()


def test_a_truncated_file(karui: Karui) -> None:
    x, y = squares(60, 3)
    karui.npz_card({"x": x, "y": y})
    Path("set.npz").write_bytes(Path("set.npz").read_bytes()[:900])
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml").refused(4, "set.npz: is no readable .npz file", "the file is damaged")


def test_pictures_that_cannot_be_meant(karui: Karui) -> None:
    draw(Path("pictures"), ["cat", "dog"], 12, side=8)
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    victim = Path("pictures/dog/007.png")
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    karui("run", "mine.toml").refused(4, "dog/007.png: is no readable picture (PNG, JPEG", "replace the file")
    Image.new("RGB", (9, 8)).save(victim)
    karui("run", "mine.toml").refused(4, "dog/007.png: is 9×8 pixels (width×height), expected 8×8")
    victim.write_bytes(whole)
    Path("pictures/bird").mkdir()
    karui("run", "mine.toml").refused(4, "pictures/bird: holds no pictures")


def test_a_folder_whose_name_is_no_text(karui: Karui) -> None:
    draw(Path("pictures"), ["cat", "dog"], 12, side=8)
    os.rename(b"pictures/dog", b"pictures/d\xf6g")  # noqa: PTH104  bytes on purpose: Latin-1
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    karui("run", "mine.toml").refused(4, "the folder's name is no UTF-8 text", "rename it")
    karui("run", "digits", "--out", os.fsdecode(b"runs/d\xf6g")).refused(2, "a name or path is no UTF-8 text")


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────


NETWORK = """import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(64, classes)
        self.odd = nn.FractionalMaxPool2d(2, output_size=4)

    def forward(self, x):
        BODY

def build(input_shape, classes):
    return Net(classes)
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return self.fc(x)",
            [
                "net.py:12: forward() raised RuntimeError",
                "return self.fc(x)",
                "must return (2, 10): one row per sample",
            ],
        ),
        ("return self.fc(x.flatten(1))[:, :7]", ["forward() returned shape (2, 7), expected (2, 10)"]),
        ("return self.fc(x.flatten(1)), 1", ["forward() returned a tuple, not a tensor"]),
        (
            "return self.fc(x.flatten(1)) if not self.training else x.no_such_thing",
            ["net.py:12: a training step raised AttributeError", "no_such_thing", "in training mode"],
        ),
        (
            "return self.fc(x.flatten(1)) * (2 if x.sum() > 0 else 1)",
            ["net.py:12: the network cannot be traced", "x.sum() > 0", "may not branch"],
        ),
        (
            "return self.fc(torch.special.i0e(x.flatten(1)))",
            ["net.py:12: layer", "special_i0e is not supported", "i0e(x.flatten(1))"],
        ),
        (
            "return self.fc(self.odd(x).repeat(1, 4, 1, 1).flatten(1))",
            ["net.py:12: layer 'odd': nn.FractionalMaxPool2d is not"],
        ),
        ("return self.fc(torch.sort(x.flatten(1))[0])", ["net.py:12: layer 'sort'", "sort is not supported"]),
        ("return self.fc(F.relu(x.flatten(1))).detach()", ["a training step raised", "a gradient must flow back"]),
    ],
)
def test_a_network_that_cannot_be_used_is_told_before_any_training(body: str, words: list[str], karui: Karui) -> None:
    karui.write("net.py", NETWORK.replace("BODY", body))
    karui.recipe(network="net.py")
    said = karui("run", "mine.toml")
    said.refused(4, *words)
    assert not list(Path("runs/.cache/steps").glob("train*"))
    assert not any(line.startswith("train") for line in said.err.splitlines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(input_shape, classes)\n    pass\n", ["net.py:1: importing the file raised SyntaxError"]),
        ("import no_such_module\n", ["net.py:1:", "ModuleNotFoundError", "import no_such_module"]),
        ("x = 1\n", ["there is no function build", "write: def build("]),
        ("def build(input_shape, classes):\n    pass\n", ["build() returned None"]),
        ("def build(input_shape, classes):\n    return input_shape[9]\n", ["net.py:2: build() raised IndexError"]),
        ("def build(input_shape, classes):\n    raise SystemExit\n", ["net.py:2: build() raised SystemExit"]),
    ],
)
def test_a_file_that_is_no_network(text: str, words: list[str], karui: Karui) -> None:
    karui.write("net.py", text)
    karui.recipe(network="net.py")
    karui("run", "mine.toml").refused(4, *words)


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"hidden.0.weight": torch.zeros(48, 64), "odd": torch.zeros(3)},
            [
                "weights:w.pt: the weights are those of another network",
                "'hidden.0.weight': expected (128, 64), found (48",
            ],
        ),
        ({"fc.bias": torch.tensor([float("nan")])}, ["w.pt: 'fc.bias' holds values that are no finite numbers"]),
        (
            torch.nn.Linear(2, 2),
            ["w.pt: holds a whole pickled object with its code (torch.nn.modules.linear.Linear)", "state_dict()"],
        ),
        ([1, 2], ["w.pt: holds a list, not a state dict"]),
        (None, ["w.pt: no readable .pt file", "copy or download it again"]),
    ],
)
def test_weights_of_something_else(content: object, words: list[str], karui: Karui) -> None:
    if content is None:
        Path("w.pt").write_bytes(b"PK\3\4 half of it")
    else:
        torch.save(content, "w.pt")
    karui.recipe()
    start = ("--set", "finetune.start=weights:w.pt")
    karui("run", "mine.toml", "--until", "finetune", *NO_COMPARISON, *start).refused(4, *words)


def test_a_run_of_another_network(karui: Karui) -> None:
    karui.recipe("first", options='hidden = "16"')
    assert karui("run", "first.toml", "--until", "train").status == 0
    karui.recipe()
    said = karui("run", "mine.toml", "--until", "finetune", *NO_COMPARISON, "--set", "finetune.start=run:first")
    said.refused(4, "run:first: the weights are those of another network", "'hidden.0.weight': expected (128, 64)")
