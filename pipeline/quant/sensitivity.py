"""How well each layer stands 8 bits: SQNR of its weights, of its output, and of the network's output."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pipeline.artifacts.training import LayerQuality
from pipeline.graph.ends import Outputs, is_end
from pipeline.graph.kinds import compute_nodes, kind_of, module_of, output_node
from pipeline.progress import Progress, Silent
from pipeline.quant.calibrate import unquantized
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.grids import QUANTIZERS, WEIGHTED, runs_inside
from pipeline.quant.samples import some_of
from pipeline.quant.scheme import RULES

_MOST_SAMPLES = 128
_MOST_VALUES = 1 << 30  # computed in all passes together: some ten seconds


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What is quantized together: a layer's weights and the output of its integer kernel."""

    label: str
    weighted: QWeighted | None
    quantizer: ActivationQuantizer | None


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What 8 bits do to the layers of a network, each alone."""

    rows: tuple[LayerQuality, ...]  # in the network's order
    worst_first: tuple[str, ...]  # by what is lost of what tells samples apart: outputs may have much in common


def layer_quality(prepared: fx.GraphModule, inputs: Tensor) -> tuple[LayerQuality, ...]:
    """Measure every layer of a calibrated graph on ``inputs`` (N, …), in order."""
    return sensitivity(prepared, inputs).rows


@torch.no_grad()
def sensitivity(prepared: fx.GraphModule, inputs: Tensor, progress: Progress | None = None) -> Sensitivity:
    """Measure every layer of a calibrated graph on ``inputs`` (N, …); of large samples a few are enough."""
    progress = progress or Silent()
    prepared.eval()
    parts = _parts(prepared)
    inputs = some_of(inputs, prepared, most=_MOST_SAMPLES, values=_MOST_VALUES // (len(parts) + 1))
    progress.start("layers", len(parts))
    with unquantized(prepared):
        reference = prepared(inputs)
        common = reference.mean(0)
        rows, told = [], {}
        for part in parts:
            noise = _ActivationNoise()
            for piece in (part.weighted, part.quantizer):
                if piece is not None:
                    piece.enabled = True
            if part.quantizer is not None:
                part.quantizer.tap = noise.before
            output = prepared(inputs)
            rows.append(
                LayerQuality(
                    layer=part.label,
                    weight_sqnr_db=_weight_sqnr_db(part.weighted),
                    activation_sqnr_db=noise.sqnr_db(part.quantizer),
                    output_sqnr_db=output_sqnr_db(prepared, reference, output),
                    precision="int8",
                )
            )
            told[part.label] = output_sqnr_db(prepared, reference - common, output - common)
            _switch_off(part)
            progress.advance()
    return Sensitivity(rows=tuple(rows), worst_first=tuple(sorted(told, key=lambda label: told[label])))


def output_sqnr_db(graph: fx.GraphModule, signal: Tensor, noisy: Tensor) -> float:
    """Return the SQNR of what a graph gives; of several outputs that of the worst."""
    last = output_node(graph)
    end = module_of(last) if last.op == "call_module" else None
    if not isinstance(end, Outputs):
        return sqnr_db(signal, noisy)
    ends = list(itertools.accumulate((math.prod(shape) for shape in end.shapes), initial=0))
    return min(sqnr_db(signal[:, start:stop], noisy[:, start:stop]) for start, stop in itertools.pairwise(ends))


def sqnr_db(signal: Tensor, noisy: Tensor) -> float:
    """Return 10 log10 of signal power over noise power: 200 dB without noise, -200 dB where there is noise alone."""
    noise = float((signal - noisy).double().square().sum())
    power = float(signal.double().square().sum())
    if noise == 0:
        return 200.0
    if power == 0:
        return -200.0
    return 10 * math.log10(power / noise)


class _ActivationNoise:
    def __init__(self) -> None:
        self.values: Tensor | None = None

    def before(self, x: Tensor) -> None:
        self.values = x

    def sqnr_db(self, quantizer: ActivationQuantizer | None) -> float | None:
        if quantizer is None or self.values is None:
            return None
        quantizer.tap = None
        return sqnr_db(self.values, quantizer(self.values))


def _weight_sqnr_db(layer: QWeighted | None) -> float | None:
    return None if layer is None else sqnr_db(layer.weight, layer.fake_parameters()[0])


def _switch_off(part: _Part) -> None:
    for piece in (part.weighted, part.quantizer):
        if piece is not None:
            piece.enabled = False


def _parts(prepared: fx.GraphModule) -> list[_Part]:
    parts = [
        _Part(label=node.meta["label"], weighted=None, quantizer=_quantizer_after(node))
        for node in prepared.graph.nodes
        if node.op != "output" and is_end(node)
    ]
    for node in compute_nodes(prepared):
        module = module_of(node)
        if isinstance(module, QUANTIZERS) or runs_inside(node) or is_end(node):
            continue
        weighted = module if isinstance(module, WEIGHTED) else None
        parts.append(_Part(label=node.meta["label"], weighted=weighted, quantizer=_quantizer_after(node)))
    return [part for part in parts if part.weighted is not None or part.quantizer is not None]


def _quantizer_after(node: fx.Node) -> ActivationQuantizer | None:
    """Return the quantizer of a node's output, past the activation function that its kernel takes in."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = module_of(users[0])
    if isinstance(module, ActivationQuantizer):
        return module
    if isinstance(module, QUANTIZERS) or is_end(node):
        return None
    takes_in = kind_of(module) in RULES[kind_of(module_of(node))].takes_in
    return _quantizer_after(users[0]) if takes_in else None
