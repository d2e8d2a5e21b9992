"""Weights on disk and in the network: read without running code, loaded strictly, taken over from another network."""

from __future__ import annotations

import pickle  # only for the name of the error that torch.load raises
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError

WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")
_STATE_KEYS = ("state_dict", "model")  # where training scripts put the state dict inside a .pt
_LISTED = 8  # so many tensors are named, the rest counted

State = Mapping[str, Tensor]  # name → tensor, as nn.Module.state_dict() has them


# ── into the network ────────────────────────────────────────────────────────────────────────────────────────────────


def load_state(module: nn.Module, weights: State, *, where: str) -> None:
    """Copy the weights into the module; names and shapes must be exactly those of ``module.state_dict()``.

    ``where`` names the file or checkpoint.  Raises ModelError that lists mismatched, missing and unexpected tensors;
    the module is unchanged then.
    """
    _check_fit(module.state_dict(), weights, where)
    module.load_state_dict(dict(weights))


def fit_start(own: State, start: State, head: str, where: str) -> tuple[str, ...]:
    """Return the names of the tensors of layer ``head`` that weights to start from do not bring, in ``own``'s order.

    ``own`` are the tensors of the network that starts, ``start`` those that it starts from.  A head for other classes
    is made anew; every other tensor must fit.  Raises ModelError that lists those that do not.
    """
    new = tuple(
        name
        for name, tensor in own.items()
        if name.rpartition(".")[0] == head and (name not in start or start[name].shape != tensor.shape)
    )
    _check_fit(own, {**start, **{name: own[name] for name in new}}, where)
    return new


def _check_fit(own: State, weights: State, where: str) -> None:
    complaints = [
        f"'{name}': expected {tuple(tensor.shape)}, found {tuple(weights[name].shape)}"
        for name, tensor in own.items()  # in the network's order: files have any
        if name in weights and weights[name].shape != tensor.shape
    ]
    complaints += [f"'{name}': missing, expected {tuple(own[name].shape)}" for name in own if name not in weights]
    complaints += [
        f"'{name}': unexpected, found {tuple(weights[name].shape)}" for name in sorted(weights) if name not in own
    ]
    if complaints:
        more = [f"and {len(complaints) - _LISTED} more"] if len(complaints) > _LISTED else []
        raise ModelError(
            f"the weights are those of another network: {len(complaints)} tensors do not fit",
            where=where,
            remedy="\n  ".join(complaints[:_LISTED] + more),
        )


# ── from a file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return name → tensor of a .safetensors, .npz or .pt/.pth file (a state dict, also below "state_dict" or "model").

    No code in the file is run.  Raises ModelError for a missing or corrupt file, pickled code, and anything in it that
    is not a named tensor.
    """
    readers = dict(zip(WEIGHT_SUFFIXES, (_read_safetensors, _read_npz, _read_torch, _read_torch), strict=True))
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelError(
            f"'{path.suffix}' is no weights file", where=str(path), remedy=f"known: {', '.join(WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise ModelError("there is no such weights file", where=str(path))
    weights = reader(path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"'{name}' holds values that are no finite numbers",
                where=str(path),
                remedy="the training that made it diverged: take the weights of an earlier epoch",
            )
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"no readable safetensors file: {error}", where=str(path), remedy=_CORRUPT) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        # opened here: numpy leaves the file open when it is no archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"no readable .npz of number arrays: {error}", where=str(path), remedy=_CORRUPT) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: it is read or refused all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ModelError(
            f"holds pickled code{f' ({named[1]})' if named else ' or is corrupt'}; only plain tensors are read",
            where=str(path),
            remedy="save the weights alone: torch.save(model.state_dict(), FILE), or as .safetensors",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"no readable .pt file: {_first_line(error)}", where=str(path), remedy=_CORRUPT) from error
    return _state_dict(content, path)


_CORRUPT = "the file may be incomplete: copy or download it again"


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _STATE_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"holds a {type(content).__name__}, not a state dict", where=str(path), remedy=_STATE_REMEDY)
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"'{name}' is a {type(value).__name__}, not a tensor", where=str(path), remedy=_STATE_REMEDY
            )
    return {str(name): value for name, value in content.items()}


_STATE_REMEDY = 'a state dict is expected: name → tensor, at the top or below "state_dict" or "model"'


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
