"""Networks of timm and torchvision, by name, with random weights: nothing is ever downloaded.

The packages are imported when one of their networks is asked for; the extra ``zoo`` brings them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pipeline.artifacts.networks import NetworkRef
from pipeline.elsewhere import INSTALL
from pipeline.errors import ModelError, nearest

Maker = Callable[[], nn.Module]

_WEIGHTS_REMEDY = 'start from weights in a file: start = "weights:FILE" in the recipe\'s [finetune]'
_FROM_DATA = "the data says it"
_REFUSED = {  # options that would download weights, or that say again what the data says
    "timm": {
        **dict.fromkeys(
            ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"), _WEIGHTS_REMEDY
        ),
        **dict.fromkeys(("num_classes", "in_chans"), _FROM_DATA),
    },
    "torchvision": {
        **dict.fromkeys(("weights", "weights_backbone", "pretrained"), _WEIGHTS_REMEDY),
        "num_classes": _FROM_DATA,
    },
}
_COMPILED_OPS = {  # of torchvision's compiled part; its networks for classes and masks call none of them
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def maker(ref: NetworkRef) -> Maker:
    """Return what makes the named network for its signature, once its package is imported and knows the name.

    Raises ModelError for a package that cannot be imported, a name or option that it has not, and inputs that its
    networks do not take.
    """
    package, _, name = ref.name.partition(":")
    for option in ref.options:
        if option in _REFUSED[package]:
            raise ModelError(f"the option '{option}' is not taken", where=ref.name, remedy=_REFUSED[package][option])
    if len(ref.input_shape) != 3:
        raise ModelError(
            f"takes pictures (channels, height, width), and the data's samples are {ref.input_shape}",
            where=ref.name,
            remedy="name a network for such data, or write one",
        )
    make = _MAKERS[package](ref, name)

    def made() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what later versions of the package will do
            try:
                network = make()
            except Exception as error:
                raise ModelError(
                    f"{package} raised {type(error).__name__}: {error}",
                    where=ref.name,
                    remedy="its options stand in the recipe's [network.options]",
                ) from error
        return network

    return made


def knows(package: str, name: str) -> bool:
    """Whether a package is installed and has a network of this name.  Raises ModelError where importing it does."""
    if importlib.util.find_spec(package) is None:
        return False
    found = _imported(package, package)
    return name in found.list_models() if package == "timm" else name in found.models.list_models()


def _of_timm(ref: NetworkRef, name: str) -> Maker:
    timm = _imported("timm", ref.name)
    if not timm.is_model(name):
        raise _unknown(ref, timm.list_models())
    sized = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = {"img_size": ref.input_shape[1:]} if sized is not None and sized.fixed_input_size else {}
    options = {"num_classes": ref.output_channels, "in_chans": ref.input_shape[0], **size, **ref.options}
    return lambda: timm.create_model(name, pretrained=False, **options)


def _of_torchvision(ref: NetworkRef, name: str) -> Maker:
    models = _imported("torchvision", ref.name).models
    if name not in models.list_models():
        raise _unknown(ref, models.list_models())
    if ref.input_shape[0] != 3:
        raise ModelError(
            f"takes pictures of 3 channels, and the data's have {ref.input_shape[0]}",
            where=ref.name,
            remedy="read pictures in colour (shape = [3, …] in the card's [input]), or take a network of timm",
        )
    builder = models.get_model_builder(name)
    backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    options: dict[str, Any] = {"num_classes": ref.output_channels, **backbone, **ref.options}
    return lambda: builder(weights=None, **options)


_MAKERS: Mapping[str, Callable[[NetworkRef, str], Maker]] = {"timm": _of_timm, "torchvision": _of_torchvision}


def _unknown(ref: NetworkRef, known: list[str]) -> ModelError:
    package, _, name = ref.name.partition(":")
    guess = nearest(name, known)
    return ModelError(f"{package} has no network '{name}'{guess if '; did' in guess else ''}", where=ref.name)


# ── importing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _imported(package: str, where: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _import(package)
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"importing {package} raised {type(error).__name__}: {error}", where=where, remedy=INSTALL
            ) from error


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    # torchvision's compiled part was built for another torch (with CUDA, say) and is left out
    _forget(package, "torchvision")
    for name, schema in _COMPILED_OPS.items():
        torch.library.define(f"torchvision::{name}", schema)
    return importlib.import_module(package)


def _forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
