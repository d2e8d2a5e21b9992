"""Every shipped recipe in every runtime: trained a little, calibrated, exported, run, loaded again.

Data sets are cut down to a few hundred samples; the one that is not shipped is replaced by a drawn set of its form.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.artifacts.files import Exported, ExportSet
from pipeline.artifacts.networks import DataRef, NetworkRef
from pipeline.artifacts.training import Checkpoint, Quantized, Start
from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard
from pipeline.declare.recipe import FinetuneSpec, Recipe, TrainSpec
from pipeline.declare.words import RuntimeName
from pipeline.networks.checkpoints import restore_float, restore_quantized
from pipeline.onboard.frontend.normalize import normalize
from pipeline.runs.run import Work
from pipeline.runtimes import open_session, unavailable
from pipeline.stages.export import export
from pipeline.stages.finetune import finetune
from pipeline.stages.quantize import quantize
from pipeline.stages.train import train
from tests import learnable

RECIPES = catalog.names("recipe")
RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "litert", "tflite-runtime")
SHORT = {
    "train.epochs": 3,
    "train.batch_size": 32,
    "prune.amount": 0,
    "prune.unstructured_sparsity": 0,
    "quantize.method": "ptq",
}
SHORT_FINETUNING = {"finetune.train.epochs": 3, "finetune.compare_labels_per_class": []}
FEW = {
    "samples": 600,
    "split": {"val": 100, "test": 150},
    "calibration": {"samples": 64},
}  # of printed and drawn digits
SAME_CLASS = 0.99  # a tie of two classes may break the other way in LiteRT, which rounds once more


@dataclass(frozen=True, kw_only=True)
class Made:
    """A recipe's network after every stage, and test samples with what torch makes of them."""

    work: Work
    checkpoint: Checkpoint
    quantized: Quantized
    exports: ExportSet
    inputs: NDArray[np.float32]  # (N, *sample)

    def wanted(self, precision: str) -> NDArray[np.float32]:
        network = (
            restore_float(self.checkpoint, self.work.store)
            if precision == "fp32"
            else restore_quantized(self.quantized, self.work.store)
        )
        with torch.no_grad():
            logits: NDArray[np.float32] = network(torch.from_numpy(self.inputs)).numpy()
        return logits

    def files(self, runtime: RuntimeName) -> list[Exported]:
        wanted = "onnx" if runtime == "onnxruntime" else "tflite"
        return [file for file in self.exports.files if file.format == wanted]


def data_of(recipe: Recipe, beside: Path, folder: Path) -> DataRef:
    """Return the recipe's data set, cut down; what is not shipped is drawn."""
    card, home = catalog.load_card(recipe.data, beside=beside)
    if card.kind == "idx":
        return drawn_idx(card, folder)
    if card.kind == "printed-digits":
        return reference(DatasetCard.model_validate({**card.model_dump(), **FEW}), home)
    return reference(card, home)


def drawn_idx(card: DatasetCard, folder: Path) -> DataRef:
    """Write files of the card's names and form: blots under noise, symmetric, for the recipe may mirror them."""
    count, side = 600, card.input.shape[-1]
    rng = np.random.default_rng(0)
    half = rng.normal(0, 60, (len(card.classes), 4, 2))  # (K, 4, 2)
    blots = np.kron(np.concatenate([half, half[:, :, ::-1]], 2), np.ones((side // 4, side // 4)))  # (K, H, W)
    labels = np.arange(count) % len(card.classes)
    pixels = np.clip(128 + blots[labels] + rng.normal(0, 30, (count, side, side)), 0, 255).astype(np.uint8)
    for role, values in (("train-images", pixels), ("train-labels", labels.astype(np.uint8))):
        header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / card.files[role].path).write_bytes(gzip.compress(header + values.tobytes()))
    files = {role: {"path": file.path} for role, file in card.files.items()}
    return reference(DatasetCard.model_validate({**card.model_dump(), **FEW, "files": files}), folder)


def load_recipe(name: str) -> tuple[Recipe, Path]:
    plain, _ = catalog.load_recipe(name)
    settings = SHORT | (SHORT_FINETUNING if plain.finetune else {})
    return catalog.load_recipe(name, [f"{key}={value}" for key, value in settings.items()])


def float_network(work: Work, name: str, folder: Path) -> tuple[Checkpoint, DataRef]:
    """Train the recipe's network, from its start where it has one."""
    recipe, home = load_recipe(name)
    data = data_of(recipe, home, folder)
    ref = network_of(recipe, home, data)
    if recipe.finetune is None:
        return train(work, data=data, network=ref, spec=recipe.train, seed=recipe.seed), data
    assert recipe.finetune.start.startswith("recipe:")
    before, _ = float_network(work, recipe.finetune.start.removeprefix("recipe:"), folder)
    start = Start(label=recipe.finetune.start, weights=before.weights, edits=before.edits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages.finetune._FEWEST_STEPS", 1)
        return tuned(learnable.again(work, folder / "finetune"), data, ref, start, recipe), data


def network_of(recipe: Recipe, home: Path, data: DataRef) -> NetworkRef:
    card = data.card
    return catalog.network_ref(recipe.network, beside=home, input_shape=card.input.shape, classes=len(card.classes))


def tuned(work: Work, data: DataRef, ref: NetworkRef, start: Start, recipe: Recipe) -> Checkpoint:
    assert isinstance(recipe.finetune, FinetuneSpec)
    result = finetune(
        work, data=data, network=ref, start=start, spec=recipe.finetune, scratch=recipe.train, seed=recipe.seed
    )
    assert result.replaced_head == ()  # the start is this network's, digits and all
    return result.checkpoint


@pytest.fixture(scope="module", params=RECIPES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("recipe")
    name = str(request.param)
    recipe, _ = load_recipe(name)
    work = learnable.work(folder)
    checkpoint, data = float_network(work, name, folder)
    quantized = quantize(
        learnable.again(work, folder / "quantize"),
        data=data,
        checkpoint=checkpoint,
        spec=recipe.quantize.model_copy(update={"margin_pp": 100}),  # all int8: that is what is compared
        train=TrainSpec(),
        weight_bits=8,
        seed=recipe.seed,
    )
    test = load(data).test
    raw = test.read(np.arange(min(len(test), 200)))
    return Made(
        work=work,
        checkpoint=checkpoint,
        quantized=quantized,
        exports=export(work, name=recipe.name, checkpoint=checkpoint, quantized=quantized),
        inputs=normalize(raw, data.card.input),
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_file_gives_the_classes_that_torch_gives(made: Made, runtime: RuntimeName) -> None:
    if unavailable(runtime):
        pytest.skip(f"{runtime}: {unavailable(runtime)}")
    assert [file.precision for file in made.files(runtime)] == ["fp32", "int8"]
    for file in made.files(runtime):
        path = made.work.store.path(file.file)
        got = open_session(path, runtime, threads=1).run(made.inputs)
        assert (got.argmax(1) == made.wanted(file.precision).argmax(1)).mean() >= SAME_CLASS, file.key
        assert np.array_equal(open_session(path, runtime, threads=1).run(made.inputs), got)  # loaded again


def test_it_learned_something_and_int8_keeps_it(made: Made) -> None:
    assert made.checkpoint.val_accuracy > 0.4  # ten classes, three epochs on a few hundred samples
    assert made.quantized.checkpoint.val_accuracy > made.checkpoint.val_accuracy - 0.1
    assert made.quantized.float_layers == ()
    assert all(file.float_ops == () for file in made.exports.files)
    names = [row.layer for row in made.exports.layers]
    assert len(names) == len(set(names))


def test_int8_files_are_smaller(made: Made) -> None:
    sizes = {file.key: file.size_bytes for file in made.exports.files}
    for file_format in ("onnx", "tflite"):
        assert sizes[f"{file_format}-int8"] < 0.6 * sizes[f"{file_format}-fp32"]
