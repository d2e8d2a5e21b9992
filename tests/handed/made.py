"""Small runs of every kind of raw input, what they answered themselves, and inputs as a user would have them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.evidence import Answered
from pipeline.artifacts.outcome import Outcome
from pipeline.cli import main
from pipeline.data.load import load
from pipeline.instruments import here
from pipeline.runs.finished import load_outcome, store_of
from tests.own_project import draw

NAMES = ("pics", "yes-no", "prices", "eights", "raws")
TRAIN = (
    "[train]\nepochs = 30\nlearning_rate = 1e-2\nbatch_size = 32\n"
    "[quantize]\nepochs = 1\nmethod = 'ptq'\nmargin_pp = 100\n"
)
RAW = "[export]\ninput = 'uint8'\n"
LIMITS = "[limits]\naccuracy_drop_pp = 100\n"
TABLE_LIMITS = "[limits.metrics.{metric}]\nworse_by_percent = 1000\n"
PICTURES = (
    'name = "pictures"\ntitle = "Patches"\nkind = "image-folder"\nfolder = "pictures"\n'
    "[input]\nshape = [3, 16, 16]\ndivide = 255\nmean = [0.2, 0.25, 0.3]\nstd = [0.3, 0.25, 0.2]\n"
)
SCENES = (
    'name = "scenes"\ntitle = "Scenes"\nkind = "image-folder"\ntask = "segmentation"\nfolder = "scenes"\n'
    "classes = ['ground', 'bright', 'dark']\n[input]\nshape = [1, 16, 16]\nresize = 'squash'\nnormalize = 'train'\n"
)
TABLE = (
    'name = "rows"\ntitle = "Rows"\nkind = "csv"\ntask = "{task}"\n{label}missing = "median"\n'
    "[categories]\ncolour = ['red', 'green', 'blue']\n[files.all]\npath = 'rows.csv'\n"
    "[input]\nnormalize = 'train'\nclip = 4\n[split]\ntest = 0.3\n"
)


def write_rows(path: Path) -> None:
    """Write a table whose class and number follow from its columns; some values are missing."""
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["size", "colour", "weight", "kind", "price"])
        for row in range(240):
            size, weight = random.normal(size=2)
            colour = ("red", "green", "blue")[row % 3]
            kind = "big" if size + 0.5 * weight > 0.1 else "small"
            shown = "" if row % 11 == 0 else f"{size:.4f}"
            out.writerow([shown, colour, f"{weight:.4f}", kind, f"{10 * size + 3 * (row % 3):.4f}"])


def draw_masked(folder: Path) -> None:
    """Draw grey pictures (images/) with a bright and a dark patch, and the class of each pixel (masks/)."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(60):
        pixels = random.integers(90, 150, (20, 16)).astype(np.uint8)  # (H, W)
        mask = np.zeros_like(pixels)
        for label, grey in ((1, 240), (2, 10)):
            top, left = random.integers(0, 12, 2)
            pixels[top : top + 6, left : left + 6], mask[top : top + 6, left : left + 6] = grey, label
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")


def make_runs(folder: Path) -> Path:
    """Run six small recipes in a folder and return it."""
    draw_masked(folder / "scenes")
    (folder / "scenes.toml").write_text(SCENES)
    draw(folder / "pictures", ["adder", "red fox", "wren"], 40, side=16)
    write_rows(folder / "rows.csv")
    (folder / "pictures.toml").write_text(PICTURES)
    label, targets = "label_column = 'kind'\n", "target_columns = ['price']\ntarget_divide = 10\n"
    named = "classes = ['small', 'big']\n"
    (folder / "yes.toml").write_text(TABLE.format(task="binary", label=label + named + "ignored_columns = ['price']\n"))
    (folder / "price.toml").write_text(TABLE.format(task="regression", label=targets + "ignored_columns = ['kind']\n"))
    recipes = {
        "pics": ("pictures.toml", "cnn", "width = 8, stages = 2, convs_per_stage = 1", LIMITS),
        "yes-no": ("yes.toml", "mlp", "hidden = '8'", TABLE_LIMITS.format(metric="AUC")),
        "prices": ("price.toml", "mlp", "hidden = '8'", TABLE_LIMITS.format(metric="RMSE")),
        "eights": ("digits", "mlp", "hidden = '16'", LIMITS + RAW),
        "raws": ("pictures.toml", "cnn", "width = 8, stages = 2, convs_per_stage = 1", LIMITS + RAW),
        "masks": ("scenes.toml", "unet", "width = 4, depth = 1", TABLE_LIMITS.format(metric="mIoU")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "SESSIONS", 2)  # what is measured does not matter: all of them take half a minute a run
        patch.chdir(folder)
        for name, (data, network, options, limits) in recipes.items():
            (folder / f"{name}.toml").write_text(
                f'name = "{name}"\ndata = "{data}"\nthreads = 1\n[network]\nfile = "{network}"\n'
                f"options = {{ {options} }}\n{TRAIN}{limits}"
            )
            assert main(["run", f"{name}.toml", "--quiet", "--allow-open"]) == 0
    return folder


def own_answers(runs: Path, name: str) -> tuple[Outcome, Answered]:
    """Return a run and what the file that it ships answered on the test split."""
    outcome = load_outcome(runs / "runs" / name)
    ship = outcome.targets[0].verdict.ship
    assert ship is not None, outcome.targets[0].verdict.why
    return outcome, next(each for each in outcome.observed[0].answers if each.way == ship)


def decisions(runs: Path, name: str) -> list[float]:
    """Return the run's own decisions on its test split."""
    _, answered = own_answers(runs, name)
    found: list[float] = np.asarray(store_of(runs / "runs" / name).get_array(answered.decisions)).ravel().tolist()
    return found


def inputs_of(runs: Path, name: str, folder: Path, most: int = 40) -> list[Path]:
    """Write the first test inputs of a run as files that a user would have; tables and arrays are one file each."""
    outcome, _ = own_answers(runs, name)
    held = load(outcome.data)
    raw = held.test.read(np.arange(min(len(held.test), most))).inputs["input"]
    about = outcome.files[0].about
    assert about is not None
    columns = about.inputs[0].raw.columns
    if name in ("pics", "raws", "masks"):
        for number, pixels in enumerate(raw):
            Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).save(folder / f"{number:03}.png")
        return sorted(folder.glob("*.png"))
    if not columns:
        np.save(folder / "samples.npy", raw)
        return [folder / "samples.npy"]
    with (folder / "new.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["unasked", *(column.name for column in columns)])
        for row in raw.tolist():
            cells = [
                "" if np.isnan(value) else column.categories[int(value)] if column.categories else repr(value)
                for value, column in zip(row, columns, strict=True)
            ]
            out.writerow(["x", *cells])
    return [folder / "new.csv"]
