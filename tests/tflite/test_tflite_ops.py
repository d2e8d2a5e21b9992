"""Every operation, float and int8, against ONNX Runtime: in LiteRT, in tflite-runtime 2.14, with other batches."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tflite import write_tflite
from pipeline.tflite.builders import BUILDERS
from tests.tflite.cases import CASES, FLOAT_ONLY, pooled, rectified
from tests.tflite.nets import (
    STEPS_LITERT,
    STEPS_OLD,
    Floats,
    Net,
    Result,
    assert_close,
    assert_steps,
    operators,
    run_ort,
    run_tflite,
)
from tests.tflite.old import run_in_old_runtime

ALL = {**CASES, **FLOAT_ONLY}


def _opset(name: str) -> int:
    return 18 if name.endswith("18") else 14


@pytest.mark.parametrize("name", ALL)
def test_float_as_in_onnx_runtime(name: str) -> None:
    shape, case = ALL[name]
    net = Net(*shape, opset=_opset(name))
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


@pytest.fixture(scope="module")
def in_the_old_runtime() -> dict[str, tuple[Result, Floats]]:
    """Return what tflite-runtime gives for every case, and what ONNX Runtime gives."""
    files, wanted = {}, {}
    for name, (shape, case) in ALL.items():
        for int8 in (False, True) if name in CASES else (False,):
            net = Net(*shape, int8=int8, opset=_opset(name))
            model = net.model(case(net))
            files[f"{name}, {int8}"] = write_tflite(model), net.samples
            wanted[f"{name}, {int8}"] = run_ort(model, net.samples)
    got = run_in_old_runtime(files)
    return {name: (got[name], wanted[name]) for name in files}


@pytest.mark.parametrize(("name", "int8"), [*[(name, True) for name in CASES], *[(name, False) for name in ALL]])
def test_old_runtime_runs_the_same_file(
    name: str, in_the_old_runtime: dict[str, tuple[Result, Floats]], *, int8: bool
) -> None:
    got, wanted = in_the_old_runtime[f"{name}, {int8}"]
    if int8:
        assert_steps(got, wanted, steps=STEPS_OLD)
    else:
        assert_close(got, wanted)


def test_every_operation_of_the_table_has_a_case() -> None:
    written = {"QuantizeLinear", "DequantizeLinear", "Gelu"}  # in every int8 case; what an Erf is read as
    for shape, case in [*CASES.values(), *FLOAT_ONLY.values()]:
        net = Net(*shape)
        case(net)
        written |= {node.op_type for node in net.nodes}
    assert set(BUILDERS) <= written


@pytest.mark.parametrize("int8", [False, True])
def test_pads_are_zeros_where_a_max_pool_reads_nothing_negative(*, int8: bool) -> None:
    net = Net(3, 9, 8, int8=int8)
    assert "PADV2" not in operators(write_tflite(net.model(pooled(net, rectified(net)))))
    assert "PADV2" in operators(write_tflite(net.model(pooled(net, net.input))))


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
