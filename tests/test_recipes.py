"""Every shipped recipe in every runtime: trained a little, calibrated, exported, run, loaded again.

Data sets are cut down to a few hundred samples by cards of the same names in the working folder, which come first; data
that is not shipped is replaced by a drawn set of its form.
"""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.artifacts.evidence import Answered, Observed
from pipeline.artifacts.outcome import Outcome
from pipeline.cli import main
from pipeline.data.load import load
from pipeline.data.source import everything
from pipeline.declare.words import RuntimeName
from pipeline.instruments import here
from pipeline.onboard.frontend import prepare
from pipeline.runs.finished import load_outcome, store_of
from pipeline.runtimes import open_session, unavailable

RECIPES = catalog.names("recipe")
RUNTIMES = ("onnxruntime", "litert", "tflite-runtime")
EPOCHS = {"segment": 10}  # all others learn something in three
SHORT = (
    "train.batch_size=32",
    "prune.amount=0",
    "prune.unstructured_sparsity=0",
    "quantize.method=ptq",
    "quantize.margin_pp=100",  # all int8: that is what is compared
    "threads=1",
)
SHORT_FINETUNING = ("finetune.train.epochs=3", "finetune.compare_labels_per_class=[]")
# a tie of two classes may break the other way in another runtime, which rounds once more; a network of a few steps has
# many near ties (every pixel of a border between two masks is one), and one that answers with numbers has a step of the
# output between two equal ones
SAME_DECISION = {"classification": 0.99, "binary": 0.97, "regression": 0.9, "segmentation": 0.97}
OLD_KERNELS = 0.01  # of decisions may be others in tflite-runtime, whose kernels of 2023 round twice
ITEMS = 600  # pictures of the drawn stand-in of Fashion-MNIST


@dataclass(frozen=True, kw_only=True)
class Made:
    """A recipe after every stage, and the folder of its run."""

    folder: Path
    outcome: Outcome

    @property
    def observed(self) -> Observed:
        [observed] = [each for each in self.outcome.observed if each.place.how == "measured"]
        return observed

    def ways(self, runtime: str) -> list[Answered]:
        return [each for each in self.observed.answers if each.way.program == runtime]


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shipped_card(name: str, changes: Mapping[str, str]) -> str:
    """Return the text of a shipped card with some texts replaced, each of which is there; sums and addresses go."""
    text = catalog.find("data", name).read_text()
    for old, new in changes.items():
        assert old in text, (name, old)
        text = text.replace(old, new)
    return re.sub(r"^(sha256|url) = .*\n", "", text, flags=re.MULTILINE)


def draw_items(folder: Path) -> None:
    """Write files of the names and form of Fashion-MNIST: blots under noise, symmetric, for recipes may mirror them."""
    rng = np.random.default_rng(0)
    half = rng.normal(0, 60, (10, 4, 2))  # (K, 4, 2)
    blots = np.kron(np.concatenate([half, half[:, :, ::-1]], 2), np.ones((7, 7)))  # (K, H, W)
    labels = np.arange(ITEMS) % 10
    pixels = np.clip(128 + blots[labels] + rng.normal(0, 30, (ITEMS, 28, 28)), 0, 255).astype(np.uint8)
    for name, values in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels.astype(np.uint8))):
        header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(header + values.tobytes()))


def draw_houses(folder: Path) -> None:
    """Write a table of the columns of California housing, with gaps, whose value follows from the others."""
    rng = np.random.default_rng(0)
    kinds = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")
    columns = "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income"
    rows = [f"{columns},median_house_value,ocean_proximity"]
    for number, values in enumerate(rng.uniform(1, 10, (600, 8))):
        kind = number % len(kinds)
        worth = 50_000 + 30_000 * values[7] + 20_000 * kind + rng.normal(0, 5_000)
        texts = [f"{value:.2f}" for value in values]
        texts[4] = "" if number % 20 == 3 else texts[4]
        rows.append(",".join([*texts, f"{worth:.0f}", kinds[kind]]))
    (folder / "housing.csv").write_text("\n".join(rows))


FEW_OF_SPLITS = {"test = 10000": "test = 150", "val = 2000": "val = 100", "samples = 512": "samples = 64"}
CUT_DOWN: Mapping[str, Mapping[str, str]] = {
    "fashion-mnist": FEW_OF_SPLITS,
    "printed-digits": {"samples = 6000": "samples = 600", "test = 1000": "test = 150", "val = 500": "val = 100"},
    "scenes": {"train = 3000, val = 300, test = 600": "train = 96, val = 24, test = 24"},
    "housing": {},
}
DRAWN: Mapping[str, Callable[[Path], None]] = {
    "fashion-mnist": draw_items,
    "scenes": draw_items,
    "housing": draw_houses,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working folder whose cards hide the shipped ones of the same names."""
    folder = tmp_path_factory.mktemp("project")
    cards = folder / "calibration_data"
    cards.mkdir()
    for name, changes in CUT_DOWN.items():
        (cards / f"{name}.toml").write_text(shipped_card(name, changes))
    for draw in dict.fromkeys(DRAWN.values()):
        draw(cards)
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def made(request: pytest.FixtureRequest, project: Path) -> Made:
    name = str(request.param)
    recipe, _ = catalog.load_recipe(name)
    short = (f"train.epochs={EPOCHS.get(recipe.name, 3)}", *SHORT)
    settings = (*short, *SHORT_FINETUNING) if recipe.finetune else short
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setattr("pipeline.stages.finetune._FEWEST_STEPS", 1)
        patch.setattr(here, "SESSIONS", 2)  # how fast files are is not asked here
        words = [word for setting in settings for word in ("--set", setting)]
        status = main(["run", name, "--quiet", "--json", *words])
    folder = project / "runs" / recipe.name
    outcome = load_outcome(folder)
    assert status == {"met": 0, "missed": 3}.get(outcome.state, 5)  # trained for too short a time to be good
    return Made(folder=folder, outcome=outcome)


# ── what must hold of each ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_file_decides_as_torch_does(made: Made, runtime: str) -> None:
    if runtime in made.observed.not_usable:
        pytest.skip(f"{runtime}: {made.observed.not_usable[runtime]}")
    assert [each.way.variant.precision for each in made.ways(runtime)] == ["fp32", "int8"]
    least = SAME_DECISION[made.outcome.task] - OLD_KERNELS * (runtime == "tflite-runtime")
    [same] = [
        pair.same
        for pair in made.observed.agreements
        if pair.first.program == "torch" and pair.second.program == runtime
    ]
    assert same >= least
    [float_same] = [
        each.comparison.agreement
        for each in made.observed.comparisons
        if each.second.program == runtime and each.second.variant.precision == "fp32"
    ]
    assert float_same >= least


def test_every_file_loads_again_and_gives_the_same(made: Made) -> None:
    test = load(made.outcome.data).test
    inputs = prepare(test.read(everything(test)).inputs, made.outcome.facts.frontend)
    kept = store_of(made.folder)
    for file in made.outcome.files:
        program: RuntimeName = "onnxruntime" if file.variant.format == "onnx" else "litert"
        if unavailable(program):
            continue
        [before] = [each for each in made.ways(program) if each.way.variant == file.variant]
        session = open_session(made.folder / file.filename, program, signature=file.signature, exact=True)
        again: Mapping[str, NDArray[np.float32]] = session.run(inputs)
        session.close()
        for name, digest in before.outputs.items():
            assert np.array_equal(again[name], kept.get_array(digest)), file.filename


def test_it_learned_something_and_int8_keeps_it(made: Made) -> None:
    metric, reference = made.outcome.metric, made.outcome.predicted[0].answered
    nothing_learned = {"accuracy": 0.1, "AUC": 0.5, "mIoU": 0.2, "RMSE": 3.0}[metric.name]
    assert metric.better(reference.value, nothing_learned)
    int8 = made.outcome.predicted[1].answered
    assert metric.worse_by_points(int8.value, reference.value) < 15
    assert made.outcome.quantized[8].float_layers == ()
    assert all(file.float_ops == () for file in made.outcome.files)
    names = [row.layer for row in made.outcome.exports[0].layers]
    assert len(names) == len(set(names))


def test_int8_files_are_smaller(made: Made) -> None:
    sizes = {file.variant.key: file.size_bytes for file in made.outcome.files}
    for file_format in ("onnx", "tflite"):
        assert sizes[f"{file_format}-int8"] < 0.85 * sizes[f"{file_format}-fp32"]


def test_the_page_shows_what_the_task_has_to_show(made: Made) -> None:
    page = (made.folder / "report.html").read_text()
    assert made.outcome.metric.name in page
    assert page.count("<svg") >= 3
