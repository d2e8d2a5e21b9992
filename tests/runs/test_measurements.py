"""measurements.json as a stranger may have written it: everything that cannot be true is refused in words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.evidence import Interval, Place
from pipeline.artifacts.measured import Benched, Cold, KeptUp, Latency, Measurements
from pipeline.errors import ConfigError
from pipeline.onboard.machine import State
from pipeline.onboard.sustained import Point
from pipeline.onboard.usage import Conditions, Usage
from pipeline.runs.measurements import read_measurements, write_measurements

SHA = "c0ffee" + "0" * 58


def around(value: float) -> Interval:
    return Interval(value=value, low=value * 0.9, high=value * 1.1)


def benched(sha256: str = SHA, *, p50_ms: float = 2.0, threads: int = 1, runtime: Any = "onnxruntime") -> Benched:
    return Benched(
        file="net.int8.onnx",
        sha256=sha256,
        size_bytes=1000,
        runtime=runtime,
        version="1.32.0",
        threads=threads,
        latency=Latency(
            p50=around(p50_ms),
            p90=around(1.1 * p50_ms),
            p95=around(1.2 * p50_ms),
            p99=around(1.3 * p50_ms),
            session_medians_ms=tuple(p50_ms * (1 + n / 100) for n in range(12)),
            inferences=1000,
        ),
        ratio=None,
        cold=Cold(library_ms=100.0, start_ms=around(20.0), processes=3),
        peak_memory_bytes=2**20,
        kept_up=KeptUp(
            seconds=1.0,
            inferences=500,
            per_second=500.0,
            drift=around(1.0),
            joules_each=None,
            points=(Point(at_s=1.0, inferences=500, seconds=1.0, ms=2.0),),
        ),
    )


def measurements(*files: Benched, profile: str | None = "raspberry-pi-4b") -> Measurements:
    state = State(temperature_c=48.0, firmware_bits=0)
    return Measurements(
        place=Place(how="measured", name="Raspberry Pi 4 Model B, Cortex-A72, 4 cores, aarch64", profile=profile),
        started="2026-01-01T00:00:00.000+00:00",
        seconds=20.0,
        files=files or (benched(),),
        conditions=Conditions(before=state, after=state, usage=Usage(others=0.01, stolen=0.0, cores=4)),
        troubles=(),
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_measurements(tmp_path / "m.json", measurements())
    assert read_measurements(tmp_path / "m.json") == measurements()


Change = Callable[[dict[str, Any]], object]


def setting(*keys: str | int, to: object) -> Change:
    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (setting("files", 0, "latency", "p95", "value", to=math.nan), "files.latency.p95.value is nan"),
        (setting("files", 0, "latency", "p95", "high", to=math.inf), "p95.high is inf"),
        (setting("files", 0, "latency", "p50", "value", to=-1.0), "-1.0 between 1.8 and 2.2"),
        (setting("files", 0, "latency", "p50", "low", to=0.0), "2.0 between 0.0 and 2.2"),
        (setting("files", 0, "latency", "p99", to={"value": 1.0, "low": 1.0, "high": 1.0}), "quantiles that fall"),
        (setting("files", 0, "latency", "session_medians_ms", to=[]), "a session's median is 0"),
        (setting("files", 0, "latency", "session_medians_ms", 0, to=-2.0), "a session's median is -2.0"),
        (setting("files", 0, "sha256", to="../../etc/passwd"), "sha256 is no sha256"),
        (setting("files", 0, "threads", to=0), "0 threads"),
        (setting("files", 0, "size_bytes", to=-5), "size is -5"),
        (setting("files", 0, "peak_memory_bytes", to=0), "peak memory is 0"),
        (setting("files", 0, "kept_up", "joules_each", to=-1.0), "energy is -1.0"),
        (setting("files", 0, "kept_up", "points", to=[]), "a time in the series is 0"),
        (setting("files", 0, "ratio", to={"value": 1.0, "low": 2.0, "high": 3.0}), "1.0 between 2.0 and 3.0"),
        (setting("files", to=[]), "0 files"),
        (setting("place", "profile", to="/etc/passwd"), "'/etc/passwd' for the name of a target"),
        (setting("place", "how", to="estimated"), "numbers that were estimated"),
        (setting("conditions", "before", "temperature_c", to=-math.inf), "temperature_c is -inf"),
        (setting("files", 0, "runtime", to="perl"), "holds no measurements of karui: files.0.runtime"),
        (setting("karui", to="recipe"), "holds no measurements of karui: karui"),
        (setting("files", 0, "threads", to="many"), "files.0.threads"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path: Path, change: Change, said: str) -> None:
    file = tmp_path / "m.json"
    write_measurements(file, measurements())
    document = json.loads(file.read_bytes())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as refused:
        read_measurements(file)
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(file))
    assert "karui bench --out" in refused.value.remedy


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"karui": "measurements"}'])
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no measurements of karui"):
        read_measurements(tmp_path / "m.json")


def test_a_file_beyond_measure_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.json").open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        read_measurements(tmp_path / "m.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(ConfigError, match="no such file"):
            read_measurements(path)
