"""What the kernels of a network's files have to do, layer by layer, in float and in int8."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from pipeline.declare.words import Precision
from pipeline.estimating.work import Work
from pipeline.graph import ops
from pipeline.graph.ends import is_end
from pipeline.graph.kinds import compute_nodes, kind_of, module_of, output_node
from pipeline.graph.recurrent import Recurrent
from pipeline.quant.grids import QUANTIZERS, WEIGHTED, on_grid, result_quantizer, runs_inside
from pipeline.quant.scheme import RULES, Output

Works = Mapping[Precision, tuple[Work, ...]]

_TAKE_IN = frozenset({"Conv", "Gemm", "Projection", "Add"})  # a ReLU or a clip, in float
_CLAMPS = frozenset({"Relu", "Clip"})


def works_of(folded: fx.GraphModule, prepared: fx.GraphModule) -> Mapping[str, Works]:
    """Return layer → what its kernels do, of a folded graph and its fake-quantized twin; inside others: nothing."""
    labels = [node.meta["label"] for node in compute_nodes(folded) if not is_end(node)]
    floats = _float_works(folded)
    integers = _integer_works(prepared, labels)
    return {label: {"fp32": floats.get(label, ()), "int8": tuple(integers.get(label, ()))} for label in labels}


# ── which kernels there are ─────────────────────────────────────────────────────────────────────────────────────────


def _float_works(folded: fx.GraphModule) -> dict[str, tuple[Work, ...]]:
    found = {}
    for node in compute_nodes(folded):
        if not is_end(node) and not _inside(node):
            found[node.meta["label"]] = _works(node, integer=False, activated=_ends_activated(node))
    return found


def _is_clamp(node: fx.Node) -> bool:
    return not isinstance(module_of(node), QUANTIZERS) and _kind(node) in _CLAMPS


def _ends_activated(node: fx.Node) -> bool:
    return any(_inside(user) for user in node.users if user.op == "call_module")


def _inside(node: fx.Node) -> bool:
    """Whether a ReLU or a clip is the end of the float kernel before it."""
    before = node.args[0]
    return (
        _is_clamp(node)
        and isinstance(before, fx.Node)
        and before.op == "call_module"
        and not isinstance(module_of(before), QUANTIZERS)
        and len(before.users) == 1
        and _kind(before) in _TAKE_IN
    )


def _integer_works(prepared: fx.GraphModule, labels: list[str]) -> dict[str, list[Work]]:
    """Put each kernel, and what converts for it, to the layer it was made from."""
    found: dict[str, list[Work]] = {label: [] for label in labels}
    known = set(labels)
    last = output_node(prepared)
    results = set(last.all_input_nodes if last.op == "call_module" and is_end(last) else [last])
    for node in compute_nodes(prepared):
        module = module_of(node)
        if isinstance(module, QUANTIZERS) or is_end(node):
            continue
        label = node.meta["label"]
        own = found[label if label in known else label.partition(":")[0]]
        integer = runs_on_integers(node)
        if integer:
            own += [_converting("QuantizeEnd", each) for each in node.all_input_nodes if _first_reader(node, each)]
        else:
            own += [_converting("Dequantize", each) for each in node.all_input_nodes if on_grid(each)]
        if not (runs_inside(node) if integer else _inside(node)):
            own += _works(node, integer=integer, activated=not integer and _ends_activated(node))
        quantizers = [
            user for user in node.users if user.op == "call_module" and isinstance(module_of(user), QUANTIZERS)
        ]
        if quantizers and not integer:
            own.append(_converting("Quantize", node))
        if not results.isdisjoint([*quantizers, *([node] if on_grid(node) else [])]):
            own.append(_converting("DequantizeEnd", node))
    return found


def runs_on_integers(node: fx.Node) -> bool:
    """Tell whether a node of a prepared graph is, or ends, an integer kernel.

    What is left float beside float operations is one nevertheless where it stands between quantizers.
    """
    rule = RULES[_kind(node)]
    if rule.output is Output.FLOAT or (rule.weighted and not isinstance(module_of(node), WEIGHTED)):
        return False
    if runs_inside(node):
        return runs_on_integers(node.args[0])  # type: ignore[arg-type]
    if not node.meta.get("beside_float"):
        return on_grid(node.args[0])
    return all(map(on_grid, node.all_input_nodes)) and result_quantizer(node) is not None


def _first_reader(node: fx.Node, value: fx.Node) -> bool:
    """Whether a node is the first to read a quantized input of the network."""
    if value.op != "call_module" or not isinstance(module_of(value), QUANTIZERS):
        return False
    source = value.all_input_nodes[0]
    return (source.op == "placeholder" or is_end(source)) and next(iter(value.users)) is node


def _converting(kernel: str, value: fx.Node) -> Work:
    elements = _elements(value)
    return Work(kernel=kernel, integer=True, reads=elements, makes=elements)


# ── what each has to do ─────────────────────────────────────────────────────────────────────────────────────────────


def _kind(node: fx.Node) -> str:
    return kind_of(module_of(node))


def _elements(node: fx.Node) -> int:
    return math.prod(node.meta["shape"][1:])


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the values that a kernel reads: one that is multiplied by itself is read twice."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _works(node: fx.Node, *, integer: bool, activated: bool) -> tuple[Work, ...]:
    module, kind = module_of(node), _kind(node)
    if kind == "Reshape" or (isinstance(module, Recurrent) and module.gives_cells):
        return ()
    make = next((make for known, make in _SHAPED.items() if isinstance(module, known)), _of_elements)
    numbers: dict[str, Any] = make(module, node)
    kernel = numbers.pop("kernel", kind)
    reads = sum(_elements(each) for each in _operands(node))
    return (Work(kernel=kernel, integer=integer, activated=activated, reads=reads, makes=_elements(node), **numbers),)


def _of_elements(module: nn.Module, node: fx.Node) -> dict[str, Any]:
    del module, node
    return {}


def _of_convolution(module: Any, node: fx.Node) -> dict[str, Any]:
    shape, groups = node.meta["shape"][1:], module.groups
    window, depth = math.prod(module.kernel_size), module.weight[0].numel()
    return {
        "kernel": convolution(groups=groups, window=window, depth=depth, stride=max(module.stride)),
        "rows": math.prod(shape[1:]),
        "columns": shape[0] // groups,
        "depth": depth,
        "groups": groups,
        "window": window,
        "lines": math.prod(shape[1:-1]),
    }


def convolution(*, groups: int, window: int, depth: int, stride: int) -> str:
    """Return which kernel computes a convolution."""
    if groups > 1 and depth == window:
        return "Depthwise"
    return "Pointwise" if window == 1 and stride == 1 and groups == 1 else "Conv"


def _of_transposed(module: Any, node: fx.Node) -> dict[str, Any]:
    before: tuple[int, ...] = node.all_input_nodes[0].meta["shape"][1:]
    return {
        "rows": math.prod(before[1:]),
        "columns": module.weight[0].numel(),
        "depth": before[0] // module.groups,
        "groups": module.groups,
        "window": math.prod(module.kernel_size),
        "lines": math.prod(before[1:-1]),
    }


def _of_linear(module: nn.Linear, node: fx.Node) -> dict[str, Any]:
    rows = math.prod(node.meta["shape"][1:-1])
    return {
        "kernel": "Gemm" if rows == 1 else "Projection",
        "rows": rows,
        "columns": module.out_features,
        "depth": module.in_features,
    }


def _of_product(module: nn.Module, node: fx.Node) -> dict[str, Any]:
    del module
    shape = node.meta["shape"][1:]
    depth = node.all_input_nodes[0].meta["shape"][-1]
    return {"rows": shape[-2], "columns": shape[-1], "depth": depth, "groups": math.prod(shape[:-2])}


def _of_recurrent(module: Recurrent, node: fx.Node) -> dict[str, Any]:
    steps = node.all_input_nodes[0].meta["shape"][1]
    columns = len(module.layer.weight_ih_l0)  # type: ignore[arg-type]
    depth = module.macs(steps) // (steps * columns * module.directions)
    return {"rows": steps, "columns": columns, "depth": depth, "groups": module.directions}


def _of_pool(module: Any, node: fx.Node) -> dict[str, Any]:
    shape = node.meta["shape"][1:]
    sides = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * (len(shape) - 1)
    return {"window": math.prod(sides), "groups": shape[0], "lines": math.prod(shape[1:-1])}


def _of_mean(module: nn.Module, node: fx.Node) -> dict[str, Any]:
    del module
    return {"groups": node.meta["shape"][1]}


def _of_rows(module: nn.Module, node: fx.Node) -> dict[str, Any]:
    """Count the rows that a softmax or a norm takes by themselves; of others those along the last axis."""
    shape = node.meta["shape"]
    length = shape[-1]
    if isinstance(module, nn.LayerNorm):
        length = math.prod(module.normalized_shape)
    elif isinstance(module, nn.Softmax) and module.dim is not None:
        length = shape[module.dim]
    return {"rows": max(1, _elements(node) // max(1, length))}


def _of_pair(module: nn.Module, node: fx.Node) -> dict[str, Any]:
    """Count the runs of elements that have one element of a smaller operand each."""
    del module
    sizes = [_elements(each) for each in node.all_input_nodes]
    if min(sizes) == max(sizes):
        return {}
    return {"kernel": "Broadcast", "rows": min(sizes)}


def _of_scale(module: ops.Scale, node: fx.Node) -> dict[str, Any]:
    del node
    return {"groups": max(1, module.has_factor + module.has_offset)}


_SHAPED: Mapping[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any, fx.Node], dict[str, Any]]] = {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _of_convolution,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _of_transposed,
    nn.Linear: _of_linear,
    ops.MatMul: _of_product,
    Recurrent: _of_recurrent,
    (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d): _of_pool,
    ops.GlobalAveragePool: _of_mean,
    (nn.Softmax, nn.LayerNorm, ops.Reduce): _of_rows,
    (ops.Add, ops.Mul, ops.Sub, ops.Div): _of_pair,
    ops.Scale: _of_scale,
}
