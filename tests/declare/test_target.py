"""Which runtimes a target can have: those that exist for its processor and Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.errors import ConfigError
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

BOARD = """
name = "board"
title = "A board with 32 bits"
os = "Raspberry Pi OS 32-bit (Debian 12)"
python = "{python}"
runtime = "{runtime}"
[cpu]
architecture = "{architecture}"
model = "Cortex-A53"
cores = 4
clock_mhz = 1000
[memory]
size_bytes = "512 MiB"
"""


def board(folder: Path, *, architecture: str = "armv7l", python: str = "3.11", runtime: str = "auto") -> str:
    path = folder / "board.toml"
    path.write_text(BOARD.format(architecture=architecture, python=python, runtime=runtime))
    return str(path)


@pytest.mark.parametrize(
    ("architecture", "python", "runtimes"),
    [
        ("aarch64", "3.11", ("onnxruntime", "litert", "tflite-runtime")),
        ("aarch64", "3.13", ("onnxruntime", "litert")),
        ("x86_64", "3.11.2", ("onnxruntime", "litert", "tflite-runtime")),
        ("armv7l", "3.9", ("tflite-runtime",)),
        ("armv7l", "3.11", ("tflite-runtime",)),
    ],
)
def test_what_exists_for_a_processor(tmp_path: Path, architecture: str, python: str, runtimes: tuple[str, ...]) -> None:
    assert catalog.load_target(board(tmp_path, architecture=architecture, python=python)).runtimes == runtimes


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_runtime_without_a_wheel_is_refused(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(ConfigError) as refused:
        catalog.load_target(board(tmp_path, runtime=runtime))
    assert f'runtime = "{runtime}" cannot be installed there' in str(refused.value)
    assert 'it has no wheel for armv7l and Python 3.11; say "tflite-runtime" or "auto"' in str(refused.value)


@pytest.mark.parametrize("runtime", ["auto", "tflite-runtime"])
def test_a_target_without_any_runtime_is_refused(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(ConfigError, match=r"no runtime can be installed there: there is no wheel for armv7l and Pyth"):
        catalog.load_target(board(tmp_path, python="3.13", runtime=runtime))


def test_a_run_is_refused_before_anything_is_trained(karui: Karui) -> None:
    karui.recipe()
    done = karui("run", "mine.toml", "--target", board(karui.folder, runtime="onnxruntime"))
    done.refused(2, "board.toml", 'runtime = "onnxruntime" cannot be installed there', 'say "tflite-runtime" or "auto"')
    assert not (karui.folder / "runs").exists()
