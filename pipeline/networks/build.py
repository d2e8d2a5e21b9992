"""The user's network: built from its file and seen to give what its data asks for, with a first forward.

Shapes: N batch; a sample is (C, H, W) or (F,).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn

from pipeline.artifacts.networks import Digest, NetworkRef
from pipeline.elsewhere import package_of
from pipeline.errors import ModelError, nearest
from pipeline.graph.ends import joined, takes_joined
from pipeline.networks import zoo
from pipeline.networks.from_onnx import network_from
from pipeline.networks.memory import settle
from pipeline.networks.onnx.modules import OnnxNetwork
from pipeline.networks.outputs import auxiliary_outputs, give_main_output, named_output
from pipeline.networks.own_code import OwnCode, line_in, load_code, user_error
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.runs.sources import file_digest

__all__ = ["build_network", "called_layers", "check_training_step", "example", "head_name", "line_in"]

CHECK_BATCH = 2  # a network that mixes up batch and features shows it with more than one sample
_ROWS = {"K": "one row per sample", "T": "one row per sample", "KHW": "one map per class and sample"}  # by axes
_OPTIONS_REMEDY = "options stand in the recipe's [network.options]"


# ── building ────────────────────────────────────────────────────────────────────────────────────────────────────────


def build_network(ref: NetworkRef, *, seed: int, checked: bool = True) -> nn.Module:
    """Return the network that the file's ``build(input_shape, classes, **options)`` makes, seeded, in training mode.

    ``classes`` is the first axis of the output: for regression the number of targets.  A ``build`` whose first
    parameter is called ``signature`` is given the ``Signature`` in place of both.

    What is named (``timm:resnet18``) is asked of its package; an ONNX file is read with its weights
    (``networks.from_onnx``).  A network that returns more than it is asked for, as auxiliary heads do, gives its main
    output (``networks.outputs``).

    If ``checked``, a batch of two samples has gone through it, and outputs of the signature's shapes have come out.
    torch's global random state is left as it was.  Raises ModelError with the line of the user's file for whatever goes
    wrong in it: import, ``build``, an option it does not have, forward, a wrong result; and when the file, or one that
    it imports from its folder, is no longer the one of ``ref``.
    """
    if ref.path.suffix == ".onnx":
        return _of_onnx_file(ref)
    with contextlib.ExitStack() as stack:
        if package_of(ref.name):
            make = zoo.maker(ref)
        else:
            code = load_code(ref)
            make = partial(_built, _build_function(code, ref), ref)
            stack.enter_context(code.importable())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(seed)
        network = make()
        if checked:
            _check_forward(network, ref)
        if len(ref.signature.outputs) == 1:
            give_main_output(network)
    return network


def _built(build: FunctionType, ref: NetworkRef) -> nn.Module:
    try:
        network = build(*_asked(build, ref), **ref.options)
    except (Exception, SystemExit) as error:
        raise user_error(error, ref, f"{ref.function}() raised") from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{ref.function}() returned {_kind(network)}",
            where=str(ref.path),
            remedy=f"{ref.function}(input_shape, classes, **options) must return a torch.nn.Module",
        )
    return network


def _of_onnx_file(ref: NetworkRef) -> nn.Module:
    """Return the network that stands in an ONNX file, with the weights that stand there."""
    digests = ((ref.path.name, ref.sha256), *sorted(ref.imports.items()))
    network = copy.deepcopy(_read(ref.path, digests, ref.signature.inputs, _output_of(ref)))
    _check_ends(network, ref)
    settle(network, _example_for(network, ref))
    return network


def _check_ends(network: OnnxNetwork, ref: NetworkRef) -> None:
    for what, own, wanted in (
        ("takes", network.inputs, ref.signature.inputs),
        ("gives", network.outputs, ref.signature.outputs),
    ):
        alone = len(own) == len(wanted) == 1
        if [(not alone and each.name, each.shape) for each in own] != [
            (not alone and each.name, each.shape) for each in wanted
        ]:
            raise ModelError(
                f"{what} {_ends(own)} for each sample, and the data ask for {_ends(wanted)}",
                where=str(ref.path),
                remedy="the data need the classes, or numbers, that the network was made for"
                if alone
                else "the card names them in this order; [network.options] output = NAME takes one of several",
            )


def _ends(specs: Sequence[TensorSpec]) -> str:
    return str(specs[0].shape) if len(specs) == 1 else ", ".join(f"{spec.name} {spec.shape}" for spec in specs)


def _output_of(ref: NetworkRef) -> str:
    unknown = [option for option in ref.options if option != "output"]
    if unknown:
        raise ModelError(
            f"a network in an ONNX file has no option '{unknown[0]}'{nearest(unknown[0], ['output'])}",
            where=str(ref.path),
            remedy=_OPTIONS_REMEDY,
        )
    return str(ref.options.get("output", ""))


@functools.lru_cache(maxsize=1)  # the stages of a run ask for the same network in turn
def _read(
    path: Path,
    digests: tuple[tuple[str, Digest], ...],
    inputs: tuple[TensorSpec, ...],
    output: str,
) -> OnnxNetwork:
    for name, digest in digests:
        file = path.parent / name
        if not file.is_file() or file_digest(file) != digest:
            what = "the network file has changed since it was read"
            raise ModelError(what, where=str(file), remedy="run again; stages that depend on the file will be redone")
    shapes = inputs[0].shape if len(inputs) == 1 else {spec.name: spec.shape for spec in inputs}
    return network_from(path, sample_shape=shapes, output=output)


def _build_function(code: OwnCode, ref: NetworkRef) -> FunctionType:
    name = ref.function
    build = getattr(code.module, name, None)
    if not inspect.isfunction(build):
        raise ModelError(
            f"there is no function {name}" if build is None else f"{name} is {_kind(build)}, not a function",
            where=str(ref.path),
            remedy=f"write: def {name}(input_shape: tuple[int, ...], classes: int, *, options…) -> torch.nn.Module",
        )
    _check_options(build, ref)
    return build


def _asked(build: FunctionType, ref: NetworkRef) -> tuple[object, ...]:
    """Return what ``build`` is called with before its options."""
    first = next(iter(inspect.signature(build).parameters), "")
    return (ref.signature,) if first == "signature" else (ref.input_shape, ref.output_channels)


def _check_options(build: FunctionType, ref: NetworkRef) -> None:
    signature, asked = inspect.signature(build), _asked(build, ref)
    parameters = list(signature.parameters.values())
    known = [p.name for p in parameters[len(asked) :] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in ref.options:
        if option not in known and not takes_any:
            guess = nearest(option, known) or "; it has none"
            what = f"{ref.function}() has no option '{option}'{guess}"
            raise ModelError(what, where=str(ref.path), remedy=_OPTIONS_REMEDY)
    try:
        signature.bind(*asked, **ref.options)
    except TypeError as error:
        raise ModelError(
            f"{ref.function}{signature} cannot be called: {error}",
            where=str(ref.path),
            remedy=f"it is called as {ref.function}(input_shape, classes, **options); {_OPTIONS_REMEDY}",
        ) from error


# ── first steps ─────────────────────────────────────────────────────────────────────────────────────────────────────


def example(signature: Signature, count: int = CHECK_BATCH) -> tuple[Tensor, ...]:
    """Return random inputs (count, …) in the signature's order: 0 … 1, and zeros where whole numbers are asked for."""
    return tuple(_example(spec, count) for spec in signature.inputs)


def _example_for(network: nn.Module, ref: NetworkRef) -> tuple[Tensor, ...]:
    batch = example(ref.signature)
    names = (spec.name for spec in ref.signature.inputs)
    return (joined(dict(zip(names, batch, strict=True))),) if takes_joined(network) else batch


def _example(spec: TensorSpec, count: int) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return (torch.rand if dtype.is_floating_point else torch.zeros)(count, *spec.shape, dtype=dtype)


def _check_forward(network: nn.Module, ref: NetworkRef) -> None:
    """Let two samples through in evaluation mode; leaves the network in training mode."""
    batch = example(ref.signature)
    contract = f"forward() gets {_shapes(batch)} and must return {_wanted(ref.signature)}"
    network.eval()
    try:
        with torch.no_grad():
            found = network(*batch)
    except Exception as error:
        raise user_error(error, ref, "forward() raised", expected=contract) from error
    network.train()
    several = len(ref.signature.outputs) > 1
    outputs = found if isinstance(found, tuple | list) and several else (named_output(found),)
    for output in outputs:
        if not isinstance(output, Tensor):
            raise ModelError(f"forward() returned {_kind(output)}, not a tensor", where=str(ref.path), remedy=contract)
    expected = [(CHECK_BATCH, *spec.shape) for spec in ref.signature.outputs]
    if [tuple(output.shape) for output in outputs] != expected:
        raise ModelError(
            f"forward() returned shape {_shapes(outputs)}, expected {', '.join(map(str, expected))}",
            where=str(ref.path),
            remedy=contract,
        )
    settle(network, batch)


def _wanted(signature: Signature) -> str:
    """``(2, 3): one row per sample``; of several outputs a tuple, in order."""
    shapes = [f"{(CHECK_BATCH, *spec.shape)}" for spec in signature.outputs]
    words = list(dict.fromkeys(_ROWS.get(spec.axes, "one result per sample") for spec in signature.outputs))
    return f"{', '.join(shapes)}: {', '.join(words)}" + (", as a tuple" if len(shapes) > 1 else "")


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def check_training_step(network: nn.Module, ref: NetworkRef) -> None:
    """Let two samples through a copy of the network in training mode and their gradient back.

    What works in evaluation mode may not here.  Raises ModelError with the line of the user's file.
    """
    copied = copy.deepcopy(network).train()  # batch norms of the original keep their statistics
    if not any(parameter.requires_grad for parameter in copied.parameters()):
        raise ModelError("the network has no weights to train", where=str(ref.path), remedy="add layers with weights")
    batch = _example_for(network, ref)
    try:
        with torch.random.fork_rng(devices=[]), auxiliary_outputs() as others:
            found = copied(*batch)
            outputs = found if isinstance(found, tuple | list) else (found,)
            sum(output.sum() for output in (*outputs, *others)).backward()
    except ModelError as error:
        raise ModelError(error.what, where=str(ref.path), remedy=error.remedy) from error
    except Exception as error:
        expected = f"forward() gets {_shapes(batch)} in training mode, and a gradient must flow back"
        raise user_error(error, ref, "a training step raised", expected=expected) from error


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    """Return the name of the last layer with weights that forward() calls: the one that makes the output."""
    layers = [
        name
        for name in called_layers(network, sample_shape)
        if isinstance(network.get_submodule(name), nn.Linear | nn.Conv2d | nn.Conv1d)
    ]
    if not layers:
        raise ModelError(
            "forward() calls no Linear or Conv layer",
            where="network",
            remedy="make the output with a torch.nn.Linear or Conv layer",
        )
    return layers[-1]
