"""What ``karui bench`` prints, at the widths of a narrow and a wide terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.artifacts.measured import Counted, CountsBeside, Measurements
from pipeline.onboard.machine import State
from pipeline.onboard.usage import Conditions
from pipeline.report.benched import print_counts, print_measurements
from tests.runs.test_measurements import around, benched, measurements


def printed(found: Measurements, width: int = 100) -> list[str]:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        print_measurements(found, console)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [60, 100])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    two = measurements(benched(), replace(benched(), file="other.int8.tflite", runtime="litert", ratio=around(1.5)))
    for found in (measurements(), two):
        lines = printed(replace(found, troubles=("it was throttled while it ran (83 °C)",)), width)
        assert max(map(len, lines)) <= width
        assert lines[0] == "! it was throttled while it ran (83 °C)"


def test_one_file_line_by_line() -> None:
    text = "\n".join(printed(measurements()))
    for line in (
        "net.int8.onnx in onnxruntime 1.32.0, 1 thread",
        "latency p50     2.00 ms (1.80–2.20)",
        "latency p99     2.60 ms (2.34–2.86)",
        "first answer    20.0 ms (18.0–22.0) for file and inference",
        "without a pause 500 inferences per second for 1.0 s",
        "peak memory     1.0 MiB more than the runtime alone",
        "place           measured on Raspberry Pi 4 Model B, Cortex-A72, 4 cores, aarch64",
        "temperature     48 °C before, 48 °C after",
        "throttling      none",
        "other load      1.0 % of 4 cores",
    ):
        assert line in text
    assert "energy" not in text
    assert "clock" not in text


def test_what_a_machine_does_not_tell_is_not_printed() -> None:
    silent = replace(measurements(), conditions=Conditions(before=State(), after=State()))
    text = "\n".join(printed(silent))
    for word in ("clock", "governor", "temperature", "throttling", "load"):
        assert word not in text


def test_several_files_in_a_table_with_ratios_and_energy() -> None:
    thrifty = replace(benched(), kept_up=replace(benched().kept_up, joules_each=0.0123))
    other = replace(benched(p50_ms=3.0), file="other.tflite", runtime="litert", ratio=around(1.5))
    lines = printed(measurements(thrifty, other))
    row = next(line.split() for line in lines if line.startswith("other.tflite"))
    assert row == [
        "other.tflite",
        "in",
        "litert",
        "1",
        "3.00",
        "3.60",
        "3.90",
        "1.50",
        "[1.35–1.65]",
        "20.0",
        "500",
        "—",
    ]
    assert any(line.startswith("net.int8.onnx") and line.rstrip().endswith("12.3") for line in lines)


def test_a_file_that_got_slower_says_so() -> None:
    slower = replace(benched(), kept_up=replace(benched().kept_up, drift=around(1.3)))
    text = " ".join(" ".join(printed(measurements(slower, benched("a" * 64)))).split())
    assert "net.int8.onnx, 1 thread: an inference took 1.300 times as long at its end as at its beginning" in text


def counted(file: str, runtime: str, **counts: float) -> Counted:
    known = {"total": sum(counts.values()), "l1d_miss": 10.0, "l2_miss": 0.0, **counts}
    return Counted(file=file, sha256="a" * 64, runtime=runtime, counts=known, ratio=known["total"] / 3000)  # type: ignore[arg-type]


def test_counts_stand_beside_those_of_the_first() -> None:
    first = counted("a.onnx", "onnxruntime", mlal=2000.0, load=1000.0)
    second = counted("b.onnx", "onnxruntime", mlal=2000.0, load=1100.0, branch=50.0)
    found = CountsBeside(target="raspberry-pi-4b", processor="cortex-a72", files=(first, second))
    console = Console(width=80, highlight=False, color_system=None)
    with console.capture() as captured:
        print_counts(found, 1.01, console)
    text = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert "instructions 3 000 3 150 (× 1.050)" in text
    assert "load 1 000 1 100 (× 1.100)" in text
    assert "branch 0 50" in text
    assert "✗ at most 1.01 times the first: it takes 1.050 times" in text
    assert found.most == pytest.approx(1.05)
