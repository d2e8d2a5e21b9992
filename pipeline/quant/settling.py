"""Scales with which every kernel rounds alike, given to the quantizers of a prepared graph."""

from __future__ import annotations

import math

import numpy as np
from torch import fx

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.quant.constants import QScale
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.grids import on_grid, quantizer_of, result_quantizer
from pipeline.quant.leaky import QLeakyReLU, leaky_scale, leaky_source
from pipeline.quant.products import untied_scale, untied_unit
from pipeline.quant.scheme import ACTIVATIONS
from pipeline.quant.spelled import Gate
from pipeline.quant.sums import Addend, exact_scales

_STEPS = np.arange(ACTIVATIONS.steps + 1)


def settle_scales(prepared: fx.GraphModule) -> None:
    """Move scales a little, in place, so that kernels agree: of sums, then of what is joined, then of other results.

    What one of them has settled, the next ones leave alone.
    """
    taken = _settle_addends(prepared)
    _settle_joined(prepared, taken)
    _settle_results(prepared, taken)


def _settle_addends(prepared: fx.GraphModule) -> set[ActivationQuantizer]:
    """Give every addend the scale near its own with which kernels compute the sum exactly, from the last sum backwards.

    The first sum that reads a value counts, and so the total's scale is settled before those of its addends.
    Returns all quantizers that sums depend on.
    """
    sums = [node for node in compute_nodes(prepared) if _total_scale(node) is not None]
    first: dict[ActivationQuantizer, fx.Node] = {}
    for node in sums:
        for value in node.all_input_nodes:
            first.setdefault(quantizer_of(value), node)
    for quantizer in first:
        quantizer.settled.zero_()
    for node in reversed(sums):
        total = _total_scale(node)
        assert total is not None  # noqa: S101  (it is one of the sums)
        quantizers = list(dict.fromkeys(quantizer_of(value) for value in node.all_input_nodes))
        twice = 2 if isinstance(module_of(node), ops.Add) and len(quantizers) == 1 else 1
        addends = [
            Addend(
                scale=quantizer.params.scale,
                steps=twice * (_STEPS - quantizer.params.zero_point),
                free=first[quantizer] is node and quantizer.fixed is None and not quantizer.pinned,
            )
            for quantizer in quantizers
        ]
        scales = exact_scales([*addends, *_constant(node, addends[0].scale)], total=total)
        for quantizer, addend, scale in zip(quantizers, addends, scales, strict=False):
            if addend.free:
                quantizer.settle(scale)
    totals = (result_quantizer(node) for node in sums)
    return {*first, *(quantizer for quantizer in totals if quantizer is not None)}


def _settle_joined(prepared: fx.GraphModule, taken: set[ActivationQuantizer]) -> None:
    """Give values that go over to the grid of a longer one scales that never tie there, from the last join backwards.

    ``taken``: quantizers that have to stay as they are; those of joins are added.
    """
    for node in reversed(list(compute_nodes(prepared))):
        result = result_quantizer(node)
        if result is None or not isinstance(module_of(node), ops.Concat):
            continue
        parts = [quantizer_of(value) for value in node.all_input_nodes if on_grid(value)]
        for part in parts:
            if part is not result and _may_move(part, taken):
                part.settled.zero_()
                part.settle(untied_unit(part.params.scale, scale=result.params.scale))
            taken.add(part)
        taken.add(result)


def _settle_results(prepared: fx.GraphModule, taken: set[ActivationQuantizer]) -> None:
    """Give products, means and LeakyReLUs scales with which kernels agree, in their order: a result may be read later.

    ``taken``: quantizers that have to stay as they are; those of these operations are added.
    """
    for node in compute_nodes(prepared):
        result, unit = result_quantizer(node), _unit(node)
        if isinstance(module_of(node), QLeakyReLU) and result is not None and on_grid(node.args[0]):
            _settle_leaky(quantizer_of(node.all_input_nodes[0]), result, taken)
        if result is None or unit is None:
            continue
        if _may_move(result, taken):
            result.settled.zero_()
            result.settle(untied_scale(result.params.scale, unit=unit))
        taken.update((result, *map(quantizer_of, node.all_input_nodes)))


def _settle_leaky(source: ActivationQuantizer, result: ActivationQuantizer, taken: set[ActivationQuantizer]) -> None:
    if _may_move(result, taken):
        result.settled.zero_()
        result.settle(leaky_scale(result.params.scale, source=source.params.scale))
    elif _may_move(source, taken):
        source.settled.zero_()
        source.settle(leaky_source(source.params.scale, scale=result.params.scale))
    taken.update((source, result))


def _unit(node: fx.Node) -> float | None:
    """Return what the integers of a product or of a mean's sum are worth; None for other operations."""
    module = module_of(node)
    if not all(on_grid(value) for value in node.all_input_nodes):
        return None
    scales = [quantizer_of(value).params.scale for value in node.args if isinstance(value, fx.Node)]
    if isinstance(module, QScale) and module.has_factor:
        scales.append(module.params.scale)
    elif isinstance(module, ops.GlobalAveragePool):
        scales.append(1 / math.prod(node.all_input_nodes[0].meta["shape"][2:]))
    elif not isinstance(module, ops.Mul):
        return None
    return float(np.float32(scales[0]) * np.float32(scales[1]))


def _may_move(quantizer: ActivationQuantizer, taken: set[ActivationQuantizer]) -> bool:
    return quantizer not in taken and quantizer.fixed is None and not quantizer.pinned


def _constant(node: fx.Node, input_scale: float) -> list[Addend]:
    """Return what an operation adds to its only input by itself."""
    module = module_of(node)
    if isinstance(module, QScale):
        steps = module.integers().cpu().numpy().astype(np.int64) - module.params.zero_point
        return [Addend(scale=module.params.scale, steps=np.unique(steps), free=False)]
    if isinstance(module, Gate):
        return [Addend(scale=module.addend(input_scale).scale, steps=np.array([Gate.constant]), free=False)]
    return []


def _total_scale(node: fx.Node) -> float | None:
    """Return the scale in which an integer kernel gives the sum of what it reads; None for other operations."""
    module = module_of(node)
    if isinstance(module, Gate):
        return Gate.summed.scale
    shifts = isinstance(module, QScale) and not module.has_factor
    if not (shifts or isinstance(module, ops.Add)) or not all(on_grid(value) for value in node.all_input_nodes):
        return None
    result = result_quantizer(node)
    return None if result is None else result.params.scale
