"""Turn a folded float graph into its fake-quantized twin, and that into integers.

``prepare``  needs a flat graph; guarantees a flat graph with quantizers where ``scheme.RULES`` wants them: every input
             of an integer operation lies on a grid, and every layer with int8 weights knows the one of its input.
``freeze``   needs a prepared graph with ranges; guarantees a graph that computes with the integers of the files:
             weights and biases inside their limits, scales that every runtime's kernels take.

A layer can be left float by its label: its weights stay float, and its output is quantized only if an int8 layer
reads it.  Arithmetic between float operations stays float, too: integers would gain no time there, and the small
divisors of a norm would become 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import torch
from torch import fx, nn

from pipeline.errors import ModelError
from pipeline.graph import ops
from pipeline.graph.ends import is_end
from pipeline.graph.kept import KeptGrid
from pipeline.graph.kinds import broken_promise, check_flat, compute_nodes, kind_of, module_of
from pipeline.quant.constants import QScale
from pipeline.quant.fakequant import QUANTIZED_CLASS, ActivationQuantizer, FollowingQuantizer
from pipeline.quant.frozen import (
    FrozenConstant,
    FrozenMean,
    FrozenPool,
    FrozenProduct,
    FrozenQuantizer,
    FrozenSum,
    FrozenWeighted,
)
from pipeline.quant.grids import (
    QUANTIZERS,
    WEIGHTED,
    clamped_by_quantizer,
    input_quantizer,
    on_grid,
    quantizer_of,
    result_quantizer,
    runs_inside,
)
from pipeline.quant.leaky import QLeakyReLU
from pipeline.quant.neighbours import better_float
from pipeline.quant.scheme import ACCUMULATOR_LIMIT, LARGEST_RESCALING, RULES, Output
from pipeline.quant.spelled import Gate, spell_out

BESIDE_FLOAT = "beside float operations, where integers would round and save no time"


def prepare(folded: fx.GraphModule, *, weight_bits: int, float_layers: Collection[str] = ()) -> fx.GraphModule:
    """Insert quantizers into a copy of a folded graph; layers labelled in ``float_layers`` stay float."""
    check_flat(folded, after="fold")
    prepared = copy.deepcopy(folded)
    quantized = spell_out(prepared, _quantized_nodes(prepared, float_layers))
    weighted = [node for node in prepared.graph.nodes if node in quantized and RULES[_kind(node)].weighted]
    for node in weighted:
        _quantize_weights(node, weight_bits)
    for node in quantized:
        module = module_of(node)
        if isinstance(module, nn.Hardsigmoid):
            prepared.set_submodule(str(node.target), Gate())
        elif isinstance(module, ops.Scale):
            module.__class__ = QScale
        elif isinstance(module, nn.LeakyReLU):
            module.__class__ = QLeakyReLU
    for node in list(prepared.graph.nodes):
        if node.op in ("placeholder", "call_module"):
            _insert_quantizer(prepared, node, quantized)
    for node in weighted:
        module_of(node).read_from(input_quantizer(node))  # type: ignore[operator]
    for node in quantized:
        module, result = module_of(node), result_quantizer(node)
        if isinstance(module, QScale | QLeakyReLU) and result is not None:
            module.stand_between(input_quantizer(node), result)
    prepared.graph.lint()
    prepared.recompile()
    _check_prepared(prepared, quantized)
    return prepared


def _kind(node: fx.Node) -> str:
    return kind_of(module_of(node))


def _quantized_nodes(prepared: fx.GraphModule, float_layers: Collection[str]) -> set[fx.Node]:
    """Choose what becomes int8; a float layer takes its activation function with it."""
    quantized: set[fx.Node] = set()
    for node in compute_nodes(prepared):
        kind, before = _kind(node), node.args[0]
        follows_float = (
            isinstance(before, fx.Node)
            and before.meta["label"] in float_layers
            and kind in RULES[_kind(before)].takes_in
        )
        if node.meta["label"] not in float_layers and not follows_float and RULES[kind].output is not Output.FLOAT:
            quantized.add(node)
    quantized -= {node for node in quantized if _keeps_grid(node) and is_end(node.all_input_nodes[0])}
    possible = set(quantized)
    quantized -= better_float(quantized)
    for region in _regions(quantized):
        if not any(RULES[_kind(node)].weighted for node in region) and _meets_float(region):
            quantized -= region
    for node in compute_nodes(prepared):
        node.meta["left_float"] = node.meta["label"] in float_layers
    for node in possible - quantized:
        node.meta["beside_float"] = RULES[_kind(node)].output is not Output.SAME
    return quantized


def _keeps_grid(node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module_of(node), KeptGrid)


def _regions(quantized: Collection[fx.Node]) -> list[set[fx.Node]]:
    """Return what hangs together without a float operation between."""
    left, regions = set(quantized), list[set[fx.Node]]()
    while left:
        waiting, region = [left.pop()], set[fx.Node]()
        while waiting:
            node = waiting.pop()
            region.add(node)
            near = {*node.all_input_nodes, *node.users} & left
            left -= near
            waiting += near
        regions.append(region)
    return regions


def _meets_float(region: Collection[fx.Node]) -> bool:
    return any(
        not is_end(near) and near not in region for node in region for near in (*node.all_input_nodes, *node.users)
    )


def _quantize_weights(node: fx.Node, weight_bits: int) -> None:
    layer = module_of(node)
    layer.__class__ = QUANTIZED_CLASS[type(layer)]  # the weights stay where they are
    layer.quantize_to(weight_bits)  # type: ignore[operator]


def _insert_quantizer(prepared: fx.GraphModule, node: fx.Node, quantized: set[fx.Node]) -> None:
    if not _wanted(node, quantized):
        return
    rule = RULES[kind_of(module_of(node))] if node.op == "call_module" else None
    quantizer: nn.Module
    if rule is not None and rule.output is Output.SAME_ROUNDED and node in quantized:
        leader = quantizer_of(node.args[0])  # type: ignore[arg-type]
        quantizer = FollowingQuantizer(leader)
    else:
        quantizer = ActivationQuantizer(rule.fixed if rule and node in quantized else None)
    name = f"quantizers.{node.meta['label'].replace('.', '_')}"
    prepared.add_submodule(name, quantizer)
    with prepared.graph.inserting_after(node):
        inserted = prepared.graph.call_module(name, (node,))
    inserted.meta.update(label=node.meta["label"] + ":q", shape=node.meta["shape"])
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)


def _wanted(node: fx.Node, quantized: set[fx.Node]) -> bool:
    """Quantize what an int8 layer reads, and the network's output if an int8 layer makes it."""
    if node in quantized:
        rule = RULES[kind_of(module_of(node))]
        if rule.output is Output.SAME and on_grid(node.args[0]):
            return False
        return not _taken_in(node, quantized) and not all(map(_keeps_grid, node.users))
    return any(user in quantized for user in node.users)


def _taken_in(node: fx.Node, quantized: set[fx.Node]) -> bool:
    """Whether the activation function after this node runs inside its integer kernel."""
    users = list(node.users)
    if len(users) != 1 or users[0] not in quantized:
        return False
    return kind_of(module_of(users[0])) in RULES[kind_of(module_of(node))].takes_in


def _check_prepared(prepared: fx.GraphModule, quantized: Collection[fx.Node]) -> None:
    check_flat(prepared, after="prepare", beside=QUANTIZERS)
    for node in quantized:
        label = node.meta["label"]
        moves = runs_inside(node) or _keeps_grid(node) or RULES[_kind(node)].output is Output.SAME
        if not moves and not all(on_grid(value) for value in node.all_input_nodes):
            raise broken_promise("prepare", f"'{label}' computes with integers and reads a value that has no grid")
        module = module_of(node)
        if isinstance(module, WEIGHTED) and module.input_quantizer is not input_quantizer(node):
            raise broken_promise("prepare", f"the bias of '{label}' has the scale of another input")


@torch.no_grad()
def freeze(prepared: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that computes with the files' integers, on the CPU, in evaluation mode.

    Raises ModelError where a range is no finite number, or so far from its neighbours' that kernels refuse it.
    """
    check_flat(prepared, after="prepare", beside=QUANTIZERS)
    frozen = copy.deepcopy(prepared).cpu().eval()
    plan: list[tuple[fx.Node, nn.Module]] = []
    for node in compute_nodes(frozen):
        integers = _integers_of(node)
        if integers is not None:
            plan.append((node, integers))
    for node, module in plan:
        frozen.set_submodule(str(node.target), module)
    for node, module in plan:
        result = _result_quantizer(node)
        if isinstance(module, FrozenWeighted) and result is not None:
            module.end_in(result.params)
    frozen.recompile()
    _check_frozen(frozen)
    return frozen


def _integers_of(node: fx.Node) -> nn.Module | None:
    module = module_of(node)
    if isinstance(module, QUANTIZERS):
        _check_range(node, module)
        return FrozenQuantizer(module.params)
    if isinstance(module, WEIGHTED):
        return FrozenWeighted(module)
    if (arithmetic := _arithmetic_of(node)) is not None:
        return arithmetic
    if isinstance(module, QLeakyReLU):
        return nn.LeakyReLU(module.slope)
    if kind_of(module) == "AveragePool" and on_grid(node.args[0]):
        return FrozenPool(module, input_quantizer(node).params.scale)
    return None


def _arithmetic_of(node: fx.Node) -> nn.Module | None:
    """Return the sum, product or mean that the operation is in an integer kernel; None where there is none."""
    module, result = module_of(node), result_quantizer(node)
    if result is None or not all(on_grid(value) for value in node.all_input_nodes):
        return None
    (user,) = node.users
    if not (isinstance(module_of(user), ActivationQuantizer) or clamped_by_quantizer(user)):
        return None  # a clip of its own stands between, which keeps ONNX Runtime from fusing them
    grids = [quantizer_of(value).params for value in node.args if isinstance(value, fx.Node)]
    if isinstance(module, Gate) and module.is_sum(grids[0].scale):
        addend = module.addend(grids[0].scale)
        total = FrozenSum(*grids, addend, result=Gate.summed, read_as=Gate.params)
        return FrozenConstant(total, torch.tensor(addend.real(Gate.constant)))
    if isinstance(module, QScale):
        kind = FrozenProduct if module.has_factor else FrozenSum
        steps = module.integers().float() - module.params.zero_point
        return FrozenConstant(kind(*grids, module.params, result=result.params), steps * module.params.scale)
    if isinstance(module, ops.Add | ops.Mul):
        kind = FrozenSum if isinstance(module, ops.Add) else FrozenProduct
        return kind(*grids, result=result.params)
    return FrozenMean(grids[0].scale, result.params.scale) if isinstance(module, ops.GlobalAveragePool) else None


def _check_range(node: fx.Node, quantizer: ActivationQuantizer | FollowingQuantizer) -> None:
    scale, _ = (quantizer.leader if isinstance(quantizer, FollowingQuantizer) else quantizer).scale_and_zero_point()
    if not math.isfinite(float(scale)) or float(scale) <= 0:
        raise ModelError(
            "its values are no finite numbers on the calibration samples",
            where=f"output of layer '{node.meta['label'].removesuffix(':q')}'",
            remedy="train with a smaller learning rate, or look for a division or a logarithm in the network",
        )


def _check_frozen(frozen: fx.GraphModule) -> None:
    for node in compute_nodes(frozen):
        module = module_of(node)
        if isinstance(module, (*QUANTIZERS, *WEIGHTED)):
            raise broken_promise("freeze", f"'{node.meta['label']}' still computes in float")
        if isinstance(module, FrozenWeighted):
            _check_integers(node, module)


def _check_integers(node: fx.Node, module: FrozenWeighted) -> None:
    integers, label = module.integers, node.meta["label"]
    if int(integers.weight.abs().max()) > integers.weight_params.grid.highest:
        raise broken_promise("freeze", f"the weights of '{label}' do not fit their bits")
    # scales are float32: known to one part in 2^24
    if integers.bias is not None and int(integers.bias.double().abs().max()) > ACCUMULATOR_LIMIT * (1 + 1e-6):
        raise broken_promise("freeze", f"a bias of '{label}' does not fit its int32")
    result = _result_quantizer(node)
    if result is not None and float(module.scale.max()) / result.params.scale >= LARGEST_RESCALING:
        raise broken_promise("freeze", f"the result of '{label}' has a scale that its kernel cannot give")


def _result_quantizer(node: fx.Node) -> FrozenQuantizer | None:
    """Return the quantizer in which a weighted layer's kernel ends, past the activation function that it takes in."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = module_of(users[0])
    if isinstance(module, FrozenQuantizer):
        return module
    return _result_quantizer(users[0]) if isinstance(module, nn.ReLU | nn.Hardtanh) else None


def quantized_labels(prepared: fx.GraphModule) -> list[str]:
    """Return the labels of the layers with int8 weights, in order."""
    return [node.meta["label"] for node in compute_nodes(prepared) if isinstance(module_of(node), WEIGHTED)]


def float_reasons(prepared: fx.GraphModule) -> tuple[str, ...]:
    """Say which operations stay float and why: ``layer (op): reason``."""
    reasons = []
    for node in compute_nodes(prepared):
        module = module_of(node)
        if isinstance(module, QUANTIZERS):
            continue
        rule = RULES[kind_of(module)]
        note = rule.note
        if node.meta.get("left_float") or (rule.weighted and not isinstance(module, WEIGHTED)):
            note = "left float to keep the margin"
        elif node.meta.get("beside_float"):
            note = BESIDE_FLOAT
        if note:
            reasons.append(f"{node.meta['label']} ({kind_of(module)}): {note}")
    return tuple(reasons)
