"""What ``karui inspect`` is asked about: a model file, a recipe, or a network by file or name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline import catalog
from pipeline.artifacts.networks import NetworkRef
from pipeline.data.source import INPUT
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.elsewhere import PACKAGES, is_elsewhere, package_of
from pipeline.errors import ConfigError
from pipeline.inspecting.advice import advised
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.onnx_file import inspect_onnx
from pipeline.inspecting.tflite_file import inspect_tflite
from pipeline.networks.build import build_network
from pipeline.networks.zoo import knows
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.paths import expanded
from pipeline.tasks.protocol import OUTPUT

DEFAULT_CLASSES = 10
DEFAULT_SHAPE, DEFAULT_SHAPE_OF_PACKAGES = (3, 32, 32), (3, 224, 224)
_AXES = {1: "F", 2: "CT", 3: "CHW"}
_FILES = {".onnx": inspect_onnx, ".tflite": inspect_tflite}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to inspect; ``shape`` and ``classes`` where the subject does not say them."""

    subject: str
    shape: tuple[int, ...] | None = None
    classes: int | None = None


def inspect(asked: Asked) -> Inspected:
    """Return the layers of a file or network with advice.

    Raises ConfigError for a subject that is nowhere, ModelError for what cannot be read, built or followed.
    """
    reader = _FILES.get(Path(asked.subject).suffix.lower())
    if reader is not None:
        path = expanded(asked.subject)
        if not path.is_file():
            raise ConfigError(f"no file '{asked.subject}'", where="inspect")
        return advised(reader(path))
    spec, beside, shape, classes = _network(asked)
    ref = catalog.network_ref(spec, beside=beside, signature=_signature(shape, classes))
    return advised(_of_network(ref, shape, asked.subject))


def built(asked: Asked) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the network that is meant, with random weights, and the shape of its input; raises as ``inspect``."""
    spec, beside, shape, classes = _network(asked)
    ref = catalog.network_ref(spec, beside=beside, signature=_signature(shape, classes))
    return build_network(ref, seed=0, checked=False), shape


def _of_network(ref: NetworkRef, shape: tuple[int, ...], subject: str) -> Inspected:
    """Inspect the network without making its weights, where its code allows that."""
    try:
        with torch.device("meta"):
            return inspect_network(build_network(ref, seed=0, checked=False), shape, subject=subject)
    except Exception:  # noqa: BLE001  (its own weights decide something, or it is wrong: the second time tells)
        return inspect_network(build_network(ref, seed=0, checked=False), shape, subject=subject)


def _network(asked: Asked) -> tuple[NetworkSpec, Path | None, tuple[int, ...], int]:
    """Return which network is meant, the folder it is looked for in, and what its inputs and outputs are."""
    name, beside = asked.subject, None
    if name.endswith(".toml") or name in catalog.names("recipe"):
        recipe, beside = catalog.load_recipe(name)
        spec, shape, classes = recipe.network, *_of_card(recipe, beside)
        return spec, beside, asked.shape or shape or DEFAULT_SHAPE, asked.classes or classes
    spec = NetworkSpec(file=_named(name))
    default = DEFAULT_SHAPE_OF_PACKAGES if package_of(spec.file) else DEFAULT_SHAPE
    return spec, beside, asked.shape or default, asked.classes or DEFAULT_CLASSES


def _of_card(recipe: Recipe, beside: Path) -> tuple[tuple[int, ...], int]:
    card, _ = catalog.load_card(recipe.data, beside)
    return card.input.shape, len(card.classes) or DEFAULT_CLASSES


def _named(name: str) -> str:
    """Return the name as a recipe says it: a bare one that the catalogue does not know may be a package's."""
    if is_elsewhere(name) or name.endswith(".py") or "/" in name or name in catalog.names("network"):
        return name
    return next((f"{package}:{name}" for package in PACKAGES if knows(package, name)), name)


def _signature(shape: tuple[int, ...], classes: int) -> Signature:
    if len(shape) not in _AXES:
        raise ConfigError(
            f"an input has 1 to 3 axes without the batch, not {len(shape)}",
            where="--input",
            remedy="write for example --input 3,64,64",
        )
    return Signature(
        inputs=(TensorSpec(INPUT, "float32", shape, _AXES[len(shape)]),),
        outputs=(TensorSpec(OUTPUT, "float32", (classes,), "K"),),
    )
