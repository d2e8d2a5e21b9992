"""What is measured: files and runs become pairs of file and runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.benching.contenders import contenders
from pipeline.errors import ConfigError
from pipeline.runtimes import unavailable
from tests.benching.runs import content, small_file, small_run

TFLITE = [each for each in ("litert", "tflite-runtime") if not unavailable(each)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_runs_in_the_first_runtime_that_is_usable(tmp_path: Path) -> None:
    file = small_file(tmp_path, "tflite")
    (found,) = contenders([str(file)])
    assert (found.file, found.path, found.runtime) == ("small.int8.tflite", file, TFLITE[0])
    assert found.sha256 == hashlib.sha256(content("tflite", "int8")).hexdigest()


def test_a_runtime_can_be_named(tmp_path: Path) -> None:
    (found,) = contenders([str(small_file(tmp_path, "tflite"))], TFLITE[-1])
    assert found.runtime == TFLITE[-1]


@pytest.mark.parametrize("name", ["small", "runs/small"])
def test_a_run_means_all_its_files_in_all_their_runtimes(name: str) -> None:
    small_run(Path("runs/small"))
    assert [(each.file, each.runtime) for each in contenders([name])] == [
        (f"small.{precision}.{kind}", runtime)
        for precision in ("fp32", "int8")
        for kind in ("onnx", "tflite")
        for runtime in (["onnxruntime"] if kind == "onnx" else TFLITE)
    ]
    assert [each.file for each in contenders([name], "onnxruntime")] == ["small.fp32.onnx", "small.int8.onnx"]


@pytest.mark.parametrize(
    ("names", "runtime", "said"),
    [
        (["gone.onnx"], "", "gone.onnx: there is no such file"),
        (["nothing"], "", "there is no run 'nothing'"),
        (["text.txt"], "", "'text.txt' is no .onnx or .tflite file"),
        (["small.int8.onnx"], "onyxruntime", "there is no runtime 'onyxruntime'; did you mean 'onnxruntime'"),
        (["small.int8.onnx"], "litert", "litert cannot run small.int8.onnx here"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(tmp_path: Path, names: list[str], runtime: str, said: str) -> None:
    small_file(tmp_path)
    Path("text.txt").write_text("text")
    with pytest.raises(ConfigError) as refused:
        contenders(names, runtime)
    assert said in str(refused.value)


def test_files_that_are_called_alike_are_told_apart_by_their_place(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        small_file(tmp_path / folder)
    names = ["old/small.int8.onnx", "new/small.int8.onnx"]
    assert [each.file for each in contenders(names)] == names
    assert [each.file for each in contenders([names[0]] * 2)] == ["small.int8.onnx"] * 2
