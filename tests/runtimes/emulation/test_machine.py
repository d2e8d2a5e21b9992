"""A target's whole machine: files are weighed under its memory, and what does not fit is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import catalog
from pipeline.declare.target import CpuSpec, MemorySpec, TargetProfile
from pipeline.errors import EmulationError
from pipeline.runtimes.emulation.machine import Load, boot, find_machine
from tests.onboard.small_models import small_net, tflite_bytes
from tests.runtimes.emulation.systems import emulated_machine

MIB = 1 << 20
BOOT_LIMIT_S = 600.0  # beside other tests; alone it takes half a minute
CHANNELS, SIDE = 16, 1024  # three values of so many channels and pixels at a time: 3 x 64 MiB
LITTLE = MemorySpec(size_bytes=160 * MIB)


def wide(path: Path) -> Path:
    """Write a network of a few bytes whose values need much memory."""
    weight = numpy_helper.from_array(np.ones((CHANNELS, 1, 1, 1), np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 1, SIDE, SIDE]), ("y", [1, CHANNELS, 1, 1]))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_small_file_fits_and_a_wide_one_does_not(tmp_path: Path) -> None:
    target, system = emulated_machine("raspberry-pi-zero-2-w")
    target = target.model_copy(update={"memory": LITTLE})
    small = tmp_path / "small.tflite"
    small.write_bytes(tflite_bytes(small_net(), int8=True))
    loads = [
        Load(path=wide(tmp_path / "wide.onnx"), runtime="onnxruntime"),
        Load(path=small, runtime="litert"),
    ]
    first, second = boot(loads, system, target, threads=1, budget_s=BOOT_LIMIT_S)
    assert first.peak_bytes is None
    assert first.said == "needs more than 160 MiB of memory: the kernel ended it"
    assert second.said == ""
    assert second.peak_bytes is not None
    assert 0 < second.peak_bytes < 40 * MIB


def test_without_an_emulator_of_machines_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulationError, match="no emulator of whole aarch64 machines is installed here") as refused:
        find_machine(catalog.load_target("raspberry-pi-4b"))
    assert refused.value.remedy == "install it: apt install qemu-system-arm"


@pytest.mark.parametrize("architecture", ["x86_64", "armv7l"])
def test_other_machines_are_refused(architecture: str) -> None:
    board = catalog.load_target("raspberry-pi-4b")
    cpu = CpuSpec.model_validate({**board.cpu.model_dump(), "architecture": architecture})
    other = TargetProfile.model_validate({**board.model_dump(), "cpu": cpu})
    with pytest.raises(EmulationError, match="whole machines are emulated for aarch64 alone"):
        find_machine(other)
