"""Real sessions of tiny files on this machine, in a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts.measured import Measurements
from pipeline.benching.contenders import contenders
from pipeline.benching.measured import Plan, bench, profile_here
from pipeline.errors import ConfigError, ModelError
from pipeline.host import machine_name
from pipeline.onboard.timing import LEAST_SESSIONS
from pipeline.progress import Silent
from pipeline.runs.measurements import read_measurements, write_measurements
from tests.benching.runs import small_file
from tests.instruments.test_here import deep_onnx
from tests.onboard.machines import STAT, laptop, pi, write


def measured(*files: Path, root: Path, threads: tuple[int, ...] = (1,)) -> Measurements:
    plan = Plan(threads=threads, seconds=1.0, root=root)
    return bench(contenders([str(file) for file in files]), plan, Silent())


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return small_file(tmp_path)


def test_a_file_with_all_that_there_is_to_know(quick: Path, tmp_path: Path) -> None:
    tree = pi(bits="50000", mhz=1500, celsius=48)
    found = measured(quick, root=write(tmp_path, tree, {"proc/stat": STAT.format("1 0 1 1 1 0 0 0 0 0")}))
    (file,) = found.files
    latency, kept_up = file.latency, file.kept_up
    assert found.place.name == machine_name()
    assert (file.file, file.runtime, file.threads, file.ratio) == ("small.int8.onnx", "onnxruntime", 1, None)
    assert 0 < latency.p50.value <= latency.p90.value <= latency.p95.value <= latency.p99.value
    assert len(latency.session_medians_ms) >= LEAST_SESSIONS
    assert min(latency.session_medians_ms) <= latency.p50.value <= max(latency.session_medians_ms)
    assert file.cold.processes >= 3
    assert latency.p99.value < file.cold.start_ms.value < 10_000  # a file is loaded, not only run
    assert 0 < kept_up.per_second < 5 * 1000 / latency.p50.value  # sessions of so small a file differ by half
    assert kept_up.inferences == sum(each.inferences for each in kept_up.points)
    assert found.conditions.before.temperature_c == 48
    assert found.troubles == (
        "its supply voltage fell too low before, since it was started",
        "it was throttled before, since it was started",
    )


def test_what_comes_out_survives_a_file(quick: Path, tmp_path: Path) -> None:
    found = measured(quick, root=write(tmp_path, laptop(microjoules=5)))
    assert found.files[0].kept_up.joules_each is None  # its counter stands still: it does not count
    written = tmp_path / "new" / "measurements.json"
    write_measurements(written, found)
    assert read_measurements(written) == found


def test_files_in_turn_are_compared_with_the_first(tmp_path: Path, quick: Path) -> None:
    slow = tmp_path / "slow.onnx"
    slow.write_bytes(deep_onnx())
    found = measured(quick, slow, root=tmp_path, threads=(1, 2))
    assert [(each.file, each.threads) for each in found.files] == [
        ("small.int8.onnx", 1), ("slow.onnx", 1), ("small.int8.onnx", 2), ("slow.onnx", 2)
    ]  # fmt: skip
    for first, second in (found.files[:2], found.files[2:]):
        assert first.ratio is None
        assert second.ratio is not None
        assert second.ratio.low > 1
        assert len(first.latency.session_medians_ms) == len(second.latency.session_medians_ms)
    assert found.troubles == () or "threads shared 1 core" in found.troubles[0]


def test_a_machine_that_tells_nothing_is_measured_all_the_same(quick: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = measured(quick, root=tmp_path / "empty")
    assert found.conditions.usage is None
    assert found.files[0].kept_up.joules_each is None
    assert found.files[0].kept_up.points[0].clock_mhz is None
    write_measurements(tmp_path / "m.json", found)
    assert read_measurements(tmp_path / "m.json") == found


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"damaged\.onnx"):
        measured(damaged, root=tmp_path)


def test_this_machine_is_a_target_or_none() -> None:
    assert profile_here() != "host"
    assert profile_here("host") == "host"
    with pytest.raises(ConfigError, match=r"this machine \(.*\) is no Raspberry Pi"):
        profile_here("raspberry-pi-4" if "raspberry-pi-4" not in (profile_here() or "") else "raspberry-pi-5")
