"""The kinds of files that karui reads: valid ones to start from, how they are changed, and through what they go.

Each ``use`` is an entry of the library as the commands use it, or of what goes onto a device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.catalog import load_card, load_recipe, load_target
from pipeline.data.calibration import read_indices
from pipeline.data.kinds.idx import read_idx
from pipeline.data.load import load, reference
from pipeline.networks.weights import fit_start, read_weights, without_wrapper
from pipeline.onboard.arrays import PictureForm
from pipeline.onboard.metadata import about_file
from pipeline.onboard.pictures import check_picture, read_mask, read_picture
from pipeline.onboard.samples import samples_of
from pipeline.predict import answers_text, model_for, predicted
from pipeline.starting.files import project
from pipeline.starting.look import look
from tests.fuzz import containers, mutations, seeds

Use = Callable[[Path], object]  # the file → anything, or a refusal
Mutate = Callable[[random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file."""

    file: str  # its name in the folder that ``seeds.write_beside`` prepares
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutate
    uses: tuple[Use, ...]


def _card(file: Path) -> object:
    card, folder = load_card(str(file))
    return load(reference(card, folder))


def _of_card(name: str) -> Use:
    """Load the data set of a sound card, in the working folder, that names the file."""
    return lambda _: _card(Path(name).absolute())


def _init(file: Path) -> object:
    seen = look(file, label=None, choose=lambda _, likeliest: likeliest)
    return project(seen, name="mine", target="host", default_target="host")


def _init_folder(file: Path) -> object:
    return _init(file.parents[1])


def _samples(model: str) -> Use:
    """Read the file as inputs of a sound network."""
    return lambda file: list(samples_of(file, about_file(Path(model))))


def _weights(file: Path) -> object:
    own = seeds.network().state_dict()
    found, _ = without_wrapper(read_weights(file), own)
    return fit_start(own, found, "2", str(file))


def _predict(sample: str) -> Use:
    """Let the file answer for a sound input."""

    def use(file: Path) -> object:
        answered = list(predicted(model_for(str(file)), [sample]))
        return [answers_text(answered, style) for style in ("text", "json", "csv")]

    return use


def _described(sample: str, model: str) -> Use:
    """Put the file's text into a sound model file, and let that answer for a sound input."""

    def use(file: Path) -> object:
        described = file.with_suffix(".onnx")
        described.write_bytes(seeds.with_description(seeds.undescribed(model), file.read_bytes()))
        return _predict(sample)(described)

    return use


def _handover(file: Path) -> object:
    return _predict("rows.csv")(file.with_name("rows.onnx"))


def _picture(shape: tuple[int, int, int], resize: str) -> Use:
    return lambda file: read_picture(file, PictureForm(shape, resize))


def _pictures_of(*more: Use) -> tuple[Use, ...]:
    forms = (_picture((3, 8, 8), "fit"), _picture((1, 8, 8), "crop"), _picture((3, 8, 8), ""))
    return (*forms, lambda file: check_picture(file, PictureForm((3, 8, 8))), *more)


_ARRAYS = (_of_card("npz.toml"), _of_card("numbers.toml"), _init, _samples("numbers.onnx"), _weights)
_NPZ = containers.mutated_zip(containers.mutated_npy)

KINDS: dict[str, Kind] = {
    "recipe": Kind(
        file="recipe.toml",
        seeds=seeds.recipes,
        mutate=mutations.mutated_toml,
        uses=(lambda file: load_recipe(str(file)), lambda file: load_recipe(str(file), ["train.epochs=5"])),
    ),
    "card": Kind(file="card.toml", seeds=seeds.cards, mutate=mutations.mutated_toml, uses=(_card,)),
    "target": Kind(
        file="target.toml",
        seeds=seeds.targets,
        mutate=mutations.mutated_toml,
        uses=(lambda file: load_target(str(file)),),
    ),
    "csv": Kind(
        file="table.csv",
        seeds=seeds.tables,
        mutate=mutations.mutated_text,
        uses=(_of_card("csv.toml"), _of_card("prices.toml"), _init, _samples("rows.onnx")),
    ),
    "npz": Kind(file="arrays.npz", seeds=seeds.archives, mutate=_NPZ, uses=_ARRAYS),
    "npy": Kind(
        file="array.npy",
        seeds=seeds.arrays,
        mutate=containers.mutated_npy,
        uses=(_samples("numbers.onnx"), lambda file: read_indices(file, 60)),
    ),
    "idx": Kind(
        file="train-images-idx3-ubyte.gz",
        seeds=seeds.idx,
        mutate=containers.mutated_gzip(mutations.mutated_bytes),
        uses=(read_idx, _of_card("idx.toml"), _init),
    ),
    "safetensors": Kind(
        file="weights.safetensors", seeds=seeds.safetensors, mutate=containers.mutated_safetensors, uses=(_weights,)
    ),
    "pt": Kind(
        file="weights.pt",
        seeds=seeds.torch_files,
        mutate=containers.mutated_zip(mutations.mutated_bytes),
        uses=(_weights,),
    ),
    "picture": Kind(
        file="pics/dog/odd.png",
        seeds=seeds.pictures,
        mutate=containers.mutated_picture,
        uses=_pictures_of(_of_card("pics.toml"), _init_folder, _samples("picture.onnx")),
    ),
    "mask": Kind(
        file="scenes/masks/0.png",
        seeds=seeds.masks,
        mutate=containers.mutated_picture,
        uses=(lambda file: read_mask(file, PictureForm((3, 8, 8))), _of_card("masks.toml")),
    ),
    "onnx": Kind(
        file="odd.onnx", seeds=seeds.onnx_files, mutate=containers.mutated_model, uses=(_predict("rows.csv"),)
    ),
    "tflite": Kind(
        file="odd.tflite", seeds=seeds.tflite_files, mutate=containers.mutated_model, uses=(_predict("rows.csv"),)
    ),
    "metadata": Kind(
        file="odd.json",
        seeds=lambda: [seeds.description("picture")],
        mutate=containers.mutated_json,
        uses=(_described("pics/cow/0.png", "picture"),),
    ),
    "metadata-rows": Kind(
        file="odd.json",
        seeds=lambda: [seeds.description("rows")],
        mutate=containers.mutated_json,
        uses=(_described("rows.csv", "rows"),),
    ),
    "model.json": Kind(file="model.json", seeds=seeds.handovers, mutate=containers.mutated_json, uses=(_handover,)),
}
