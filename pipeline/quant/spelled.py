"""Operations that have no integer kernel in both runtimes, or none that computes alike, put together from some that do.

``spell_out``  needs a copy of a folded graph and what of it is to be quantized; guarantees a flat graph in which those
               hard-swishes are x * hard-sigmoid(x), those differences a + -b, means over small windows are
               convolutions, no such Scale has both a factor and an offset, and clips stand before what only
               chooses or moves values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.graph.params import UINT8, QuantParams
from pipeline.quant.scheme import COARSEST_ADDEND, GATE, RULES, Output
from pipeline.quant.sums import exact_scale

_LARGEST_WINDOW = 25  # positions; of more, pooling is as fast
_COARSEST_UNIT = 16.0  # of the gate's scale: what is added becomes three and no eighth in coarser ones


class Gate(nn.Hardsigmoid):
    """Hard-sigmoid as the files compute it: a sum that the quantizer behind it clamps, read with another scale.

    Half way up lies between two of its 255 steps, and zero is a frequent input: so everything lies an eighth higher.
    """

    params = GATE
    summed = QuantParams.of(6 * GATE.scale)  # the sum's own, 0 ... 6
    shift = summed.scale / 8
    constant = UINT8.highest  # the integer that is added

    def is_sum(self, input_scale: float) -> bool:
        """Whether it is computed as a sum: fixed-point kernels would lose the constant beside coarser inputs."""
        return input_scale < COARSEST_ADDEND * self.summed.scale

    def addend(self, input_scale: float) -> QuantParams:
        """Return the grid of what is added to an input of this scale."""
        scale, total = (3 + self.shift) / self.constant, self.summed.scale
        largest = min(max(scale, input_scale), _COARSEST_UNIT * total)
        return QuantParams.of(exact_scale(scale, total=total, largest=largest))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        """Any shape."""
        return F.hardsigmoid(input + self.shift)


def spell_out(graph: fx.GraphModule, quantized: Collection[fx.Node]) -> set[fx.Node]:
    """Rewrite a graph in place and return what is to be quantized now."""
    result = _clamped_first(graph, set(quantized))
    for node in compute_nodes(graph):
        spell = _SPELLED.get(type(module_of(node))) if node in quantized else None
        parts = spell(_Place(graph, node)) if spell else []
        if parts:
            node.replace_all_uses_with(parts[-1])
            graph.graph.erase_node(node)
            result = {*result - {node}, *parts}
    graph.delete_all_unused_submodules()
    return result


def _clamped_first(graph: fx.GraphModule, quantized: set[fx.Node]) -> set[fx.Node]:
    """Let clips of values that were only chosen or moved go before that, into the kernel that computes the values."""
    for node in compute_nodes(graph):
        first = node
        while (source := first.all_input_nodes[0]) in quantized and _commutes(source, node) and len(source.users) == 1:
            first = source
        producer = first.all_input_nodes[0]
        if first is node or producer not in quantized or len(producer.users) > 1:
            continue
        if node in quantized and kind_of(module_of(node)) in RULES[kind_of(module_of(producer))].takes_in:
            with graph.graph.inserting_before(first):
                clip = graph.graph.call_module(str(node.target), (producer,))
            clip.meta.update(node.meta, shape=producer.meta["shape"])
            first.replace_input_with(producer, clip)
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.graph.erase_node(node)
            quantized = {*quantized - {node}, clip}
    return quantized


def _commutes(source: fx.Node, clip: fx.Node) -> bool:
    """Whether an operation gives the same before and after a clip: it takes values as they are, or the largest."""
    if source.op != "call_module" or RULES[kind_of(module_of(source))].output is not Output.SAME:
        return False
    return kind_of(module_of(source)) != "Pad" or isinstance(module_of(clip), nn.ReLU)


class _Place:
    """Where one operation stands, and what is put there for it; the last part takes its name."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node) -> None:
        self.graph, self.node, self.module = graph, node, module_of(node)
        self.inputs = tuple(each for each in node.args if isinstance(each, fx.Node))

    def add(self, name: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Add a part; ``name`` is empty for the last one."""
        target = f"spelled.{self.node.name}.{name or 'last'}"
        self.graph.add_submodule(target, module)
        with self.graph.graph.inserting_before(self.node):
            part = self.graph.graph.call_module(target, inputs)
        label = self.node.meta["label"]
        shape = (inputs[0] if name else self.node).meta["shape"]
        part.meta.update(label=f"{label}:{name}" if name else label, shape=shape)
        return part


def _hard_swish(place: _Place) -> list[fx.Node]:
    (x,) = place.inputs
    gate = place.add("gate", nn.Hardsigmoid(), x)
    return [gate, place.add("", ops.Mul(), x, gate)]


def _difference(place: _Place) -> list[fx.Node]:
    a, b = place.inputs
    negative = place.add("negative", ops.Scale(-1.0, 0.0), b)
    return [negative, place.add("", ops.Add(), a, negative)]


def _factor_and_offset(place: _Place) -> list[fx.Node]:
    scale = place.module
    assert isinstance(scale, ops.Scale)  # noqa: S101
    if not (scale.has_factor and scale.has_offset):
        return []
    scaled = place.add("scaled", ops.Scale(scale.factor, 0.0), *place.inputs)
    return [scaled, place.add("", ops.Scale(1.0, scale.offset), scaled)]


def _mean_of_window(place: _Place) -> list[fx.Node]:
    """Write it as a constant depthwise convolution, whose result has a grid of its own, or as the mean of all it is.

    Means of four integers are tied every fourth time, and runtimes break ties their own way; of an odd number none is.
    """
    pool = place.module
    assert isinstance(pool, nn.AvgPool1d | nn.AvgPool2d)  # noqa: S101
    (x,) = place.inputs
    before, after = (node.meta["shape"] for node in (x, place.node))
    axes, channels = len(after) - 2, before[1]
    kernel, stride, padding = (_per_axis(value, axes) for value in (pool.kernel_size, pool.stride, pool.padding))
    divided = getattr(pool, "divisor_override", None)
    if kernel == tuple(before[2:]) and not any(padding) and divided is None:
        return [place.add("", ops.GlobalAveragePool(), x)]
    counted = pool.count_include_pad or not any(padding)
    ends = ((after[2 + axis] - 1) * stride[axis] + kernel[axis] - 2 * padding[axis] for axis in range(axes))
    over_the_end = any(end > side for end, side in zip(ends, before[2:], strict=True))  # in ceil mode
    large_and_odd = math.prod(kernel) > _LARGEST_WINDOW and math.prod(kernel) % 2
    if large_and_odd or not counted or over_the_end:
        return []
    kind = nn.Conv1d if axes == 1 else nn.Conv2d
    mean = kind(channels, channels, kernel, stride, padding, groups=channels, bias=False)  # type: ignore[arg-type]
    nn.init.constant_(mean.weight, 1 / (divided or math.prod(kernel)))
    mean.requires_grad_(False)
    return [place.add("", mean, x)]


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes // len(tuple(value)))


_SPELLED: Mapping[type[nn.Module], Callable[[_Place], list[fx.Node]]] = {
    nn.AvgPool1d: _mean_of_window,
    nn.AvgPool2d: _mean_of_window,
    nn.Hardswish: _hard_swish,
    ops.Sub: _difference,
    ops.Scale: _factor_and_offset,
}
