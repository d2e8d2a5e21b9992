"""The table: what a node of an ONNX file becomes in the network that is made of it."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.networks.onnx.layers import LAYERS
from pipeline.networks.onnx.nodes import Handler
from pipeline.networks.onnx.norms import NORMS
from pipeline.networks.onnx.pointwise import POINTWISE
from pipeline.networks.onnx.quantizers import QUANTIZERS
from pipeline.networks.onnx.recurrent import RECURRENT
from pipeline.networks.onnx.reductions import REDUCTIONS
from pipeline.networks.onnx.resizes import RESIZES
from pipeline.networks.onnx.shapes import SHAPES
from pipeline.networks.onnx.windows import WINDOWS

ONNX: Mapping[str, Handler] = {
    **LAYERS,
    **NORMS,
    **POINTWISE,
    **QUANTIZERS,
    **RECURRENT,
    **REDUCTIONS,
    **RESIZES,
    **SHAPES,
    **WINDOWS,
}
