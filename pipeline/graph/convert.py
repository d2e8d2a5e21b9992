"""Functions, methods and modules of the user's forward() become modules that ``kinds.KINDS`` names."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.errors import UnsupportedOpError, nearest
from pipeline.graph import ops
from pipeline.graph.kinds import KINDS, compute_nodes, module_of

_VANISH = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_TORCH = Path(torch.__file__).parent

_Converted = tuple[nn.Module, tuple[fx.Node, ...]]
_Converter = Callable[[fx.Node], _Converted]


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _unary(make: Callable[[], nn.Module]) -> _Converter:
    return lambda node: (make(), (_tensor(node, 0),))


def _tensor(node: fx.Node, position: int) -> fx.Node:
    value = _argument(node, position, "input")
    if not isinstance(value, fx.Node):
        _refuse(node, f"{_function_name(node)} of something that is no tensor")
    return value


def _binary(elementwise: type[nn.Module], scale: Callable[[float, bool], ops.Scale]) -> _Converter:
    def convert(node: fx.Node) -> _Converted:
        a, b = _argument(node, 0, "input"), _argument(node, 1, "other")
        if node.kwargs.get("alpha", 1) != 1:
            _refuse(node, f"{_function_name(node)} with alpha")
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            return elementwise(), (a, b)
        tensor, number = (a, b) if isinstance(a, fx.Node) else (b, a)
        if not isinstance(number, int | float) or not isinstance(tensor, fx.Node):
            _refuse(node, f"{_function_name(node)} with a constant tensor")
        return scale(float(number), isinstance(a, fx.Node)), (tensor,)

    return convert


def _pool(make: Callable[..., nn.Module], *options: str) -> _Converter:
    """Give a pool all its arguments; ``options``: those after the window, in torch's order."""

    def convert(node: fx.Node) -> _Converted:
        names = ("kernel_size", "stride", "padding", *options)
        given = {name: _argument(node, position, name) for position, name in enumerate(names, 1)}
        return make(**{name: value for name, value in given.items() if value is not None}), (_tensor(node, 0),)

    return convert


def _reshape(node: fx.Node) -> _Converted:
    source = _tensor(node, 0)
    shape_in, shape_out = shape_of(source), shape_of(node)
    if not shape_out or shape_out[0] != shape_in[0]:
        _refuse(node, f"{_function_name(node)} that changes the batch: {shape_in} → {shape_out}")
    return ops.Reshape(shape_out[1:]), (source,)


def _mean(node: fx.Node) -> _Converted:
    source = _tensor(node, 0)
    rank = len(shape_of(source))
    axes = _argument(node, 1, "dim")
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        _refuse(node, f"mean over axes {axes}")
    return ops.GlobalAveragePool(), (source,)  # without keepdim a Reshape follows, see _convert


def _adaptive_pool(node: fx.Node) -> _Converted:
    source = _tensor(node, 0)
    return _adaptive(node, source, _argument(node, 1, "output_size")), (source,)


def _adaptive(node: fx.Node, source: fx.Node, size: object) -> nn.Module:
    rank = len(shape_of(source))
    wanted = tuple(size) if isinstance(size, tuple | list) else (size,) * (rank - 2)
    if any(side != 1 for side in wanted):
        _refuse(node, f"adaptive average pooling to {wanted}")
    return ops.GlobalAveragePool()


def _interpolate(node: fx.Node) -> _Converted:
    if _argument(node, 6, "antialias", default=False):
        _refuse(node, "interpolate with antialias")
    mode, align = _argument(node, 3, "mode", "nearest"), _argument(node, 4, "align_corners")
    return _resize(node, mode, align=align), (_tensor(node, 0),)


def _resize(node: fx.Node, mode: str, *, align: bool | None) -> nn.Module:
    if mode not in ("nearest", "bilinear"):
        _refuse(node, f"interpolate with mode '{mode}'")
    return nn.Upsample(size=shape_of(node)[2:], mode=mode, align_corners=align)


def _pad(node: fx.Node) -> _Converted:
    if _argument(node, 2, "mode", "constant") != "constant" or _argument(node, 3, "value", 0):
        _refuse(node, "padding with anything but zeros")
    return ops.Pad(tuple(_argument(node, 1, "pad"))), (_tensor(node, 0),)


def _concat(node: fx.Node) -> _Converted:
    parts = _argument(node, 0, "tensors")
    axis = _argument(node, 1, "dim", 0) % len(shape_of(node))
    if axis == 0:
        _refuse(node, "joining along the batch")
    return ops.Concat(axis), tuple(parts)


def _div(node: fx.Node) -> _Converted:
    divisor = _argument(node, 1, "other")
    if not isinstance(divisor, int | float) or not divisor:
        _refuse(node, "division by anything but a number")
    return ops.Scale(1 / divisor, 0.0), (_tensor(node, 0),)


_add = _binary(ops.Add, lambda number, _: ops.Scale(1.0, number))
_sub = _binary(ops.Sub, lambda number, first: ops.Scale(1.0, -number) if first else ops.Scale(-1.0, number))
_mul = _binary(ops.Mul, lambda number, _: ops.Scale(number, 0.0))
_relu, _relu6 = _unary(nn.ReLU), _unary(nn.ReLU6)
_tanh, _sigmoid = _unary(nn.Tanh), _unary(nn.Sigmoid)


def _softmax(node: fx.Node) -> _Converted:
    return nn.Softmax(dim=_argument(node, 1, "dim", -1)), (_tensor(node, 0),)


_FUNCTIONS: Mapping[Any, _Converter] = {
    operator.add: _add, torch.add: _add, "add": _add, "add_": _add,
    operator.sub: _sub, torch.sub: _sub, "sub": _sub,
    operator.mul: _mul, torch.mul: _mul, "mul": _mul,
    operator.truediv: _div, torch.div: _div, "div": _div,
    F.relu: _relu, torch.relu: _relu, "relu": _relu, "relu_": _relu, F.relu6: _relu6,
    torch.tanh: _tanh, "tanh": _tanh,
    torch.sigmoid: _sigmoid, "sigmoid": _sigmoid,
    F.hardswish: _unary(nn.Hardswish), F.hardsigmoid: _unary(nn.Hardsigmoid),
    F.leaky_relu: lambda node: (nn.LeakyReLU(_argument(node, 1, "negative_slope", 0.01)), (_tensor(node, 0),)),
    F.softmax: _softmax, torch.softmax: _softmax, "softmax": _softmax,
    torch.flatten: _reshape, torch.reshape: _reshape, "flatten": _reshape, "reshape": _reshape, "view": _reshape,
    "squeeze": _reshape, torch.squeeze: _reshape, "unsqueeze": _reshape, torch.unsqueeze: _reshape,
    torch.mean: _mean, "mean": _mean,
    torch.cat: _concat, torch.concat: _concat,
    F.max_pool2d: _pool(nn.MaxPool2d, "dilation", "ceil_mode"),
    F.avg_pool2d: _pool(nn.AvgPool2d, "ceil_mode", "count_include_pad", "divisor_override"),
    F.adaptive_avg_pool2d: _adaptive_pool, F.adaptive_avg_pool1d: _adaptive_pool,
    F.interpolate: _interpolate,
    F.pad: _pad,
}  # fmt: skip
_PASS_THROUGH: frozenset[Any] = frozenset({F.dropout, F.dropout2d, "contiguous", "clone", "detach"})
_NOT_TENSORS: frozenset[Any] = frozenset({getattr, operator.getitem, "size", "dim", operator.floordiv})


def to_known_modules(traced: fx.GraphModule) -> None:
    """Replace every computing node, in place; shapes must have been propagated.

    Raises UnsupportedOpError (operation, layer, what to do) for what is not known.
    """
    originals = {node: module_of(node) for node in compute_nodes(traced)}  # a module may be called more than once
    for node in list(traced.graph.nodes):
        if node.op == "call_module":
            _known_module(traced, node, originals[node])
        elif node.op in ("call_function", "call_method"):
            if node.target in _PASS_THROUGH:
                node.replace_all_uses_with(_tensor(node, 0))
                traced.graph.erase_node(node)
            elif _is_tensor(node):
                _convert(traced, node)
        elif node.op == "get_attr":
            _refuse(node, f"a parameter used outside a layer: {node.target}")
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()


def _known_module(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    if isinstance(module, _VANISH):
        node.replace_all_uses_with(_tensor(node, 0))
        traced.graph.erase_node(node)
    elif isinstance(module, nn.Flatten | nn.Unflatten):
        reshape, inputs = _reshape(node)
        _replace(traced, node, reshape, inputs, instead_of=module)
    elif isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d):
        pool = _adaptive(node, _tensor(node, 0), module.output_size)
        _replace(traced, node, pool, (_tensor(node, 0),), instead_of=module)
    elif isinstance(module, nn.ZeroPad2d):
        _replace(traced, node, ops.Pad(tuple(module.padding)), (_tensor(node, 0),), instead_of=module)
    elif not isinstance(module, tuple(KINDS)):
        known = [known.__name__ for known in KINDS]
        _refuse(node, f"nn.{type(module).__name__}", hint=nearest(type(module).__name__, known))
    elif isinstance(module, nn.Upsample):
        resize = _resize(node, module.mode, align=module.align_corners)
        _replace(traced, node, resize, (_tensor(node, 0),), instead_of=module)


def _convert(traced: fx.GraphModule, node: fx.Node) -> None:
    converter = _FUNCTIONS.get(node.target)
    if converter is None:
        known = {key if isinstance(key, str) else key.__name__ for key in _FUNCTIONS}
        _refuse(node, _function_name(node), hint=nearest(_function_name(node), known))
    module, inputs = converter(node)
    _replace(traced, node, module, inputs)


def _replace(
    traced: fx.GraphModule,
    node: fx.Node,
    module: nn.Module,
    inputs: tuple[fx.Node, ...],
    *,
    instead_of: nn.Module | None = None,
) -> None:
    label = _free_label(traced, node, instead_of)
    traced.add_submodule(label, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(label, inputs)
        new.meta.update(node.meta)
        if isinstance(module, ops.GlobalAveragePool) and len(shape_of(node)) == 2:
            flat = _free_label(traced, node)
            traced.add_submodule(flat, ops.Reshape(shape_of(node)[1:]))
            new = traced.graph.call_module(flat, (new,))
            new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)


def _free_label(traced: fx.GraphModule, node: fx.Node, instead_of: nn.Module | None = None) -> str:
    """Name a function after the block it stands in: ``blocks.0.add``; a module keeps its own name."""
    if node.op == "call_module":
        wanted = str(node.target)
    else:
        inside = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        wanted = ".".join(part for part in (inside[-1] if inside else "", _function_name(node)) if part)
    taken = {name for name, module in traced.named_modules() if module is not instead_of and not _is_empty(module)}
    label, count = wanted, 2
    while label in taken:
        label, count = f"{wanted}_{count}", count + 1
    return label


def _is_empty(module: nn.Module) -> bool:
    return type(module) is nn.Module and not list(module.children())


def _is_tensor(node: fx.Node) -> bool:
    if node.target in _NOT_TENSORS and node.meta.get("type") is not Tensor:
        return False
    return "tensor_meta" in node.meta


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the propagated shape of a node, with the batch first; () where it is no tensor."""
    meta: Any = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else ()


def _function_name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _refuse(node: fx.Node, what: str, *, hint: str = "") -> NoReturn:
    inside = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    layer = str(node.target) if node.op == "call_module" else (inside[-1] if inside and inside[-1] else node.name)
    place, line = _own_line(node)
    raise UnsupportedOpError(
        f"{what} is not supported{hint}",
        where=f"{place}layer '{layer}'",
        remedy=f"{line}write this layer with supported torch.nn modules, "
        "or leave it out of the network that is exported",
    )


def _own_line(node: fx.Node) -> tuple[str, str]:
    """Return place and text of the line of the user's forward() that made this node; empty where it is not known."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)', node.stack_trace or "")
    own = [frame for frame in frames if not Path(frame[0]).is_relative_to(_TORCH)]
    if not own:
        return "", ""
    file, number, text = own[-1]
    return f"{file}:{number}: ", f"{text}\n  "
