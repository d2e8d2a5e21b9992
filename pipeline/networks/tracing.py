"""The ATen calls that a network's code makes, written down by ``torch.export``; one network's code is followed once.

A network is one that was followed before when it has the same classes, settings and kinds of tensors: what its weights
are plays no part, for ``torch.export`` sees shapes alone.  What code reads elsewhere (a variable of its module) is not
looked at; whoever takes a recalled trace compares what comes of it with the network.
"""

from __future__ import annotations

import contextlib
import io
import logging
import marshal
import pickle
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import config

from pipeline.errors import ModelError
from pipeline.networks.axes import BATCH
from pipeline.networks.recurrent_shapes import recurrent_shapes
from pipeline.networks.taken_apart import writes_into_parts

_MADE_ONCE = {"builtins", "collections", "pipeline", "torch"}  # classes of these are not made again
_PLAIN_MARSHAL = 2  # later versions write the same code in different ways
_MOST_KEPT = 8  # a run has a network before and after pruning, and one that it starts from


@dataclass(frozen=True, kw_only=True, eq=False)
class Traced:
    """A graph of ATen calls; what its inputs stand for, by name."""

    module: fx.GraphModule
    states: Mapping[str, str]  # parameters and buffers of the network
    constants: Mapping[str, Tensor]  # tensors that the code brings along

    def tensor(self, name: str, network: nn.Module) -> Tensor | None:
        """Return what an input stands for in a network; None for the network's own input."""
        if name in self.constants:
            return self.constants[name].clone()  # whoever folds it must not change what is kept
        if name not in self.states:
            return None
        owner, _, last = self.states[name].rpartition(".")
        found: Tensor = getattr(network.get_submodule(owner), last)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    code: tuple[object, ...]  # held, so that no other class or function gets its number
    traced: Traced


_kept: dict[bytes, _Kept] = {}  # the latest ones last


def recall(network: nn.Module, sample_shape: tuple[int, ...]) -> Traced | None:
    """Return what was written down of a network like this one; None: nothing is known."""
    found = _description(network, sample_shape)
    if found is None or found[0] not in _kept:
        return None
    _kept[found[0]] = _kept.pop(found[0])
    return _kept[found[0]].traced


def keep(network: nn.Module, sample_shape: tuple[int, ...], traced: Traced) -> None:
    """Remember what was written down of a network."""
    found = _description(network, sample_shape)
    if found is not None:
        _kept.pop(found[0], None)
        _kept[found[0]] = _Kept(code=found[1], traced=traced)
        while len(_kept) > _MOST_KEPT:
            del _kept[next(iter(_kept))]


def trace(network: nn.Module, sample_shape: tuple[int, ...], *, lines: bool = False) -> Traced:
    """Follow the code of a network, in evaluation mode, for samples of this shape.  Raises ModelError.

    ``lines``: whether each call says on which line of the user's code it stands, which takes a fifth of the time.
    """
    sample = torch.zeros(1, *sample_shape)
    # one sample, again and again; no view (``expand``), whose base would be followed too
    example = sample.as_strided_((BATCH, *sample_shape), (0, *sample.stride()[1:]))
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), recurrent_shapes(), _saying(lines=lines):
            warnings.simplefilter("ignore")
            exported = torch.export.export(network, (example,), strict=False)
            if writes_into_parts(exported.graph):
                exported = exported.run_decompositions({})
    except Exception as error:  # whatever the user's code raises
        raise ModelError(
            f"the network cannot be traced: {_first_line(error)}",
            remedy="forward() takes one tensor and may not branch on the values of tensors",
        ) from error
    signature = exported.graph_signature
    constants = signature.inputs_to_lifted_tensor_constants.items()
    return Traced(
        module=exported.graph_module,
        states={**signature.inputs_to_parameters, **signature.inputs_to_buffers},
        constants={name: exported.constants[target] for name, target in constants},
    )


@contextlib.contextmanager
def _saying(*, lines: bool) -> Iterator[None]:
    before, config.do_not_emit_stack_traces = config.do_not_emit_stack_traces, not lines
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


# ── what makes two networks one ─────────────────────────────────────────────────────────────────────────────────────


class _Describing(pickle.Pickler):
    """Writes an object down: of parameters and buffers the kind, of functions which they are, of classes their code.

    A network's file is run anew for each stage: the same classes are made again.
    """

    def __init__(self, file: io.BytesIO, network: nn.Module) -> None:
        super().__init__(file)
        self.states = {id(each) for each in (*network.parameters(), *network.buffers())}
        self.code: list[object] = []

    def persistent_id(self, value: object) -> object:
        """Name what is not looked into."""
        if isinstance(value, Tensor):
            kind = (type(value).__name__, str(value.dtype), str(value.device), value.requires_grad)
            content = b"" if id(value) in self.states else value.detach().numpy().tobytes()
            return *kind, tuple(value.shape), value.stride(), content
        if isinstance(value, type) and value.__module__.partition(".")[0] not in _MADE_ONCE:
            functions = {name: each.__code__ for name, each in vars(value).items() if hasattr(each, "__code__")}
            return value.__module__, value.__qualname__, marshal.dumps(functions, _PLAIN_MARSHAL), value.__bases__
        if isinstance(value, type | types.FunctionType | types.MethodType):
            self.code.append(value)
            return id(value)
        return None

    def reducer_override(self, value: object) -> Any:
        """Write down all that a module holds; its hooks without their numbers, which count up."""
        if not isinstance(value, nn.Module):
            return NotImplemented
        state = {name: list(each.values()) if "_hooks" in name else each for name, each in vars(value).items()}
        return type(value), (), state


def _description(network: nn.Module, sample_shape: tuple[int, ...]) -> tuple[bytes, tuple[object, ...]] | None:
    written = io.BytesIO()
    describing = _Describing(written, network)
    try:
        describing.dump((network, sample_shape))
    except Exception:  # noqa: BLE001  (a network may hold whatever its author likes: this one is followed every time)
        return None
    return written.getvalue(), tuple(describing.code)
