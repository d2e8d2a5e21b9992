"""Every operation, float and int8, against ONNX Runtime: in LiteRT, in tflite-runtime 2.14, with other batches."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tflite import write_tflite
from pipeline.tflite.builders import BUILDERS
from tests.tflite.cases import CASES, FLOAT_ONLY
from tests.tflite.nets import STEPS_LITERT, STEPS_OLD, Net, assert_close, assert_steps, old_runtime, run_ort, run_tflite


@pytest.mark.parametrize("name", [*CASES, *FLOAT_ONLY])
def test_float_as_in_onnx_runtime(name: str) -> None:
    shape, case = {**CASES, **FLOAT_ONLY}[name]
    net = Net(*shape, opset=18 if name.endswith("18") else 14)
    model = net.model(case(net))
    wanted = run_ort(model, net.samples)
    data = write_tflite(model)
    for batch in (1, len(net.samples)):
        assert_close(run_tflite(data, net.samples[:batch]), wanted[:batch])


@pytest.mark.parametrize("name", CASES)
def test_int8_as_in_onnx_runtime(name: str) -> None:
    shape, case = CASES[name]
    net = Net(*shape, int8=True)
    model = net.model(case(net))
    wanted = run_ort(model, net.samples)
    data = write_tflite(model)
    for batch in (1, len(net.samples)):
        assert_steps(run_tflite(data, net.samples[:batch]), wanted[:batch], steps=STEPS_LITERT)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_old_runtime_runs_the_same_file(name: str, *, int8: bool) -> None:
    shape, case = CASES[name]
    net = Net(*shape, int8=int8, opset=14)
    model = net.model(case(net))
    got = run_tflite(write_tflite(model), net.samples, old_runtime())
    if int8:
        assert_steps(got, run_ort(model, net.samples), steps=STEPS_OLD)
    else:
        assert_close(got, run_ort(model, net.samples))


def test_every_operation_of_the_table_has_a_case() -> None:
    written = {"QuantizeLinear"}  # in every int8 case
    for shape, case in [*CASES.values(), *FLOAT_ONLY.values()]:
        net = Net(*shape)
        case(net)
        written |= {node.op_type for node in net.nodes}
    assert set(BUILDERS) <= written


def test_a_wrong_weight_is_noticed() -> None:
    """The tolerances above would not pass just anything."""
    net = Net(3, 6, 6)
    model = net.model(net.conv(net.input, 5, 3, 3, 3))
    wanted = run_ort(model, net.samples)
    weights = np.frombuffer(bytearray(net.initializers[0].raw_data), np.float32).copy()
    weights[7] += 0.01
    next(each for each in model.graph.initializer if each.name == "constant0").raw_data = weights.tobytes()
    with pytest.raises(AssertionError):
        assert_close(run_tflite(write_tflite(model), net.samples), wanted)
