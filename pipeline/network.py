"""The user's network: built from its file, checked with a first forward, its weights read and loaded strictly.

Shapes: N batch, K classes; a sample is (C, H, W) or (F,).
"""

from __future__ import annotations

import copy
import hashlib
import importlib.abc
import importlib.util
import inspect
import linecache
import pickle  # only for the name of the error that torch.load raises
import re
import sys
import traceback
import types
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

from pipeline.artifacts import NetworkRef
from pipeline.errors import ModelError, nearest

CHECK_BATCH = 2  # a network that mixes up batch and features shows it with more than one sample
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")
_STATE_KEYS = ("state_dict", "model")  # where training scripts put the state dict inside a .pt
_LISTED = 8  # so many tensors are named, the rest counted


# ── building ────────────────────────────────────────────────────────────────────────────────────────────────────────


def build_network(ref: NetworkRef, *, seed: int) -> nn.Module:
    """Return the network that the file's ``build(input_shape, classes, **options)`` makes, seeded, in training mode.

    A batch of two samples has gone through it and logits (2, K) have come out.  torch's global random state is left
    as it was.  Raises ModelError with the line of the user's file for whatever goes wrong in it: import, ``build``, an
    option it does not have, forward, a wrong result; and when the file is no longer the one of ``ref``.
    """
    build = _build_function(ref)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = build(ref.input_shape, ref.classes, **ref.options)
        except (Exception, SystemExit) as error:
            raise _user_error(error, ref.path, "build() raised") from error
        if not isinstance(network, nn.Module):
            raise ModelError(
                f"build() returned {_kind(network)}",
                where=str(ref.path),
                remedy="build(input_shape, classes, **options) must return a torch.nn.Module",
            )
        _check_forward(network, ref)
    return network


def _build_function(ref: NetworkRef) -> types.FunctionType:
    build = getattr(_load_module(ref), "build", None)
    if not inspect.isfunction(build):
        raise ModelError(
            "there is no function build" if build is None else f"build is {_kind(build)}, not a function",
            where=str(ref.path),
            remedy="write: def build(input_shape: tuple[int, ...], classes: int, *, options…) -> torch.nn.Module",
        )
    _check_options(build, ref)
    return build


class _BytesLoader(importlib.abc.SourceLoader):
    """Runs exactly the bytes whose sha256 was checked; reads and writes no bytecode cache."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.source = path, source

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002  (importlib's signature)
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:  # noqa: ARG002  (importlib's signature)
        return self.source


def _load_module(ref: NetworkRef) -> types.ModuleType:
    source = _checked_source(ref)
    name = f"karui_network_{ref.path.stem}_{ref.sha256[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, _BytesLoader(ref.path, source), origin=str(ref.path))
    if spec is None or spec.loader is None:
        raise ModelError("cannot be loaded as a Python module", where=str(ref.path))
    linecache.checkcache(str(ref.path))  # lines of an older version of the file must not stand in an error
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before exec: dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _user_error(error, ref.path, "importing the file raised") from error
    return module


def _checked_source(ref: NetworkRef) -> bytes:
    try:
        source = ref.path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(ref.path)) from error
    found = hashlib.sha256(source).hexdigest()
    if found != ref.sha256:
        raise ModelError(
            f"the network file has changed since it was read: sha256 {ref.sha256[:12]}… then, {found[:12]}… now",
            where=str(ref.path),
            remedy="run again; stages that depend on the file will be redone",
        )
    return source


def _check_options(build: types.FunctionType, ref: NetworkRef) -> None:
    signature = inspect.signature(build)
    parameters = list(signature.parameters.values())
    known = [p.name for p in parameters[2:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in ref.options:
        if option not in known and not takes_any:
            guess = nearest(option, known) or "; it has none"
            raise ModelError(f"build() has no option '{option}'{guess}", where=str(ref.path), remedy=_OPTIONS_REMEDY)
    try:
        signature.bind(ref.input_shape, ref.classes, **ref.options)
    except TypeError as error:
        raise ModelError(
            f"build{signature} cannot be called: {error}",
            where=str(ref.path),
            remedy="it is called as build(input_shape, classes, **options); " + _OPTIONS_REMEDY,
        ) from error


_OPTIONS_REMEDY = "options stand in the recipe's [network.options]"


def _check_forward(network: nn.Module, ref: NetworkRef) -> None:
    """Let two samples through in evaluation mode; leaves the network in training mode."""
    batch = torch.rand(CHECK_BATCH, *ref.input_shape)  # (2, C, H, W) or (2, F)
    expected = (CHECK_BATCH, ref.classes)
    contract = f"forward() gets {tuple(batch.shape)} and must return logits {expected}: one row per sample"
    network.eval()
    try:
        with torch.no_grad():
            logits = network(batch)
    except Exception as error:
        raise _user_error(error, ref.path, "forward() raised", expected=contract) from error
    network.train()
    if not isinstance(logits, Tensor):
        raise ModelError(f"forward() returned {_kind(logits)}, not a tensor", where=str(ref.path), remedy=contract)
    if tuple(logits.shape) != expected:
        raise ModelError(
            f"forward() returned shape {tuple(logits.shape)}, expected {expected}", where=str(ref.path), remedy=contract
        )


def called_layers(network: nn.Module, sample_shape: tuple[int, ...]) -> list[str]:
    """Return the names of the layers (modules without children) in the order in which forward() first calls them.

    The order in which a network's __init__ makes them may be another one.
    """
    names = {module: name for name, module in network.named_modules() if not list(module.children())}
    called: dict[str, None] = {}
    hooks = [module.register_forward_pre_hook(lambda module, _: called.setdefault(names[module])) for module in names]
    was_training, device = network.training, next(iter(network.parameters()), torch.zeros(())).device
    network.eval()
    with torch.no_grad():
        network(torch.zeros(CHECK_BATCH, *sample_shape, device=device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return list(called)


def head_name(network: nn.Module, sample_shape: tuple[int, ...]) -> str:
    """Return the name of the last layer with weights that forward() calls: the one that makes the logits."""
    layers = [
        name
        for name in called_layers(network, sample_shape)
        if isinstance(network.get_submodule(name), nn.Linear | nn.Conv2d | nn.Conv1d)
    ]
    if not layers:
        raise ModelError(
            "forward() calls no Linear or Conv layer",
            where="network",
            remedy="make the logits with a torch.nn.Linear or Conv layer",
        )
    return layers[-1]


def check_training_step(network: nn.Module, ref: NetworkRef) -> None:
    """Let two samples through a copy of the network in training mode and their gradient back.

    What works in evaluation mode may not here.  Raises ModelError with the line of the user's file.
    """
    copied = copy.deepcopy(network).train()  # batch norms of the original keep their statistics
    if not any(parameter.requires_grad for parameter in copied.parameters()):
        raise ModelError("the network has no weights to train", where=str(ref.path), remedy="add layers with weights")
    try:
        with torch.random.fork_rng(devices=[]):
            copied(torch.rand(CHECK_BATCH, *ref.input_shape)).sum().backward()  # (2, C, H, W) or (2, F)
    except Exception as error:
        expected = f"forward() gets {(CHECK_BATCH, *ref.input_shape)} in training mode, and a gradient must flow back"
        raise _user_error(error, ref.path, "a training step raised", expected=expected) from error


def line_in(error: BaseException, path: Path) -> tuple[int | None, str]:
    """Return the number and text of the last line of ``path`` that the error came through; (None, "") if none."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (own[-1].lineno, own[-1].line or "") if own else (None, "")


def _user_error(error: BaseException, path: Path, what: str, *, expected: str = "") -> ModelError:
    """Return the error with the line of the user's own file in which it arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line_number, line = error.lineno, (error.text or "").strip()
        message = error.msg
    else:
        line_number, line = line_in(error, path)
        message = str(error)
    return ModelError(
        f"{what} {type(error).__name__}: {message}",
        where=f"{path}:{line_number}" if line_number else str(path),
        remedy="\n  ".join(text for text in (line, expected) if text),
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_state(module: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Copy the weights into the module; names and shapes must be exactly those of ``module.state_dict()``.

    ``where`` names the file or checkpoint.  Raises ModelError that lists mismatched, missing and unexpected tensors;
    the module is unchanged then.
    """
    own = module.state_dict()
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
    module.load_state_dict(dict(weights))


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
        raise ModelError(f"holds {_kind(content)}, not a state dict", where=str(path), remedy=_STATE_REMEDY)
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"'{name}' is {_kind(value)}, not a tensor", where=str(path), remedy=_STATE_REMEDY)
    return {str(name): value for name, value in content.items()}


_STATE_REMEDY = 'a state dict is expected: name → tensor, at the top or below "state_dict" or "model"'


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
