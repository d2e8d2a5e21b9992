"""Where two places part: the values between the layers of an int8 ONNX file, read out at both."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from pipeline.instruments.here import FileWay
from pipeline.onboard.arrays import Arrays
from pipeline.runtimes import open_session


def first_difference(way: FileWay, inputs: Arrays) -> str:
    """Return the layer after which prepared samples (1, …) differ first there and here; "" where none does.

    Read are the integers that layers hand on: an output there takes no fused layer apart.
    """
    model = onnx.load_model_from_string(way.path.read_bytes())
    layers = _tap(model)
    with tempfile.TemporaryDirectory() as folder:
        tapped = Path(folder) / way.file.filename
        onnx.save_model(model, tapped)
        found = []
        for home in (way.home, None):
            session = open_session(tapped, way.runtime, home=home, steps={}, exact=True)
            names = [spec.name for spec in session.signature.inputs]
            found.append(session.run(dict(zip(names, inputs.values(), strict=True))))
            session.close()
    there, here = found
    return next((layer for name, layer in layers.items() if not np.array_equal(there[name], here[name])), "")


def _tap(model: onnx.ModelProto) -> dict[str, str]:
    """Let a model give all integers between its layers, too; return output → the layer that made it, in order."""
    constants = {each.name: each for each in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    there = {each.name for each in model.graph.output}
    layers = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        (name,) = node.output
        layers[name] = makers[node.input[0]].name if node.input[0] in makers else node.input[0]
        if name not in there:
            kind = constants[node.input[2]].data_type
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return layers
