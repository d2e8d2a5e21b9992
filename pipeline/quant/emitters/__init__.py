"""The table: how each operation of the flat graph is written as ONNX."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.quant.emitters.draft import Emitter
from pipeline.quant.emitters.pointwise import POINTWISE
from pipeline.quant.emitters.recurrent import RECURRENT
from pipeline.quant.emitters.reductions import REDUCTIONS
from pipeline.quant.emitters.shapes import SHAPES
from pipeline.quant.emitters.weighted import WEIGHTS
from pipeline.quant.emitters.windows import WINDOWS

EMITTERS: Mapping[str, Emitter] = {**POINTWISE, **RECURRENT, **REDUCTIONS, **SHAPES, **WEIGHTS, **WINDOWS}
