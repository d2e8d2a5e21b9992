"""Files whose biases have scales along an axis that they do not have, and files with operations that no runtime has."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from pipeline.onboard.faults import FileRefused
from pipeline.onboard.old_scales import with_own_axes
from pipeline.onboard.session import open_session
from tests.onboard.small_models import inputs, small_net, tflite_bytes

SOUND = tflite_bytes(small_net(), int8=True)


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_wrong_axes() -> bytes:
    model = schema.ModelT.InitFromPackedBuf(SOUND, 0)
    for tensor in model.subgraphs[0].tensors:
        scales = tensor.quantization
        if len(tensor.shape) == 1 and scales is not None and scales.scale is not None and len(scales.scale) > 1:
            scales.quantizedDimension = 3
    return packed(model)


def test_files_with_wrong_axes_give_what_sound_ones_give(tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    with pytest.raises(ValueError, match="quantized_dimension"):
        interpreter(model_content=with_wrong_axes()).allocate_tensors()
    found = []
    for name, content in (("old", with_wrong_axes()), ("sound", SOUND)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        found.append(open_session(path, "litert").run({"x": inputs(5)}))
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_sound_files_stay_as_they_are() -> None:
    assert with_own_axes(SOUND) == SOUND


def test_an_operation_that_no_runtime_has_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = schema.ModelT.InitFromPackedBuf(SOUND, 0)
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"SignalWindow"
    for operator in model.subgraphs[0].operators:
        if operator.opcodeIndex == 0:
            operator.builtinOptions, operator.builtinOptionsType = None, 0
    path = tmp_path / "custom.tflite"
    path.write_bytes(packed(model))
    with pytest.raises(FileRefused, match="needs the operation SignalWindow, which litert has not") as caught:
        open_session(path, "litert")
    assert "convert without it" in caught.value.remedy
