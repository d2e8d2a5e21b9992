"""``karui predict`` on what real runs shipped: pictures, tables, arrays, from run folders and from files alone."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from pipeline.host import usable_cores
from pipeline.onboard.about import KEY, to_text
from pipeline.onboard.metadata import about_file, text_in
from pipeline.predict import model_for
from tests.handed.made import NAMES, decisions, inputs_of, own_answers
from tests.own_project import Karui


@pytest.mark.parametrize("name", NAMES)
def test_predict_answers_as_the_run_did(name: str, at: Karui, runs: Path, tmp_path: Path) -> None:
    outcome, _ = own_answers(runs, name)
    own = decisions(runs, name)[:40]
    said = at("predict", name, *inputs_of(runs, name, tmp_path), "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert len(found) == len(own)
    if name == "prices":
        got = [each["numbers"]["price"] for each in found]
        np.testing.assert_allclose(got, 10 * np.array(own), rtol=1e-6)
        return
    labels = outcome.facts.classes
    assert [each["class"] for each in found] == [labels[int(decision)] for decision in own]
    for each in found:
        assert 0.99 < sum(one["probability"] for one in each["top"]) <= 1.001 or len(labels) > 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_a_file_alone_answers_too(name: str, suffix: str, at: Karui, runs: Path, tmp_path: Path) -> None:
    files = [path for path in (runs / "runs" / name).iterdir() if path.suffix == suffix and "int8" in path.name]
    alone = shutil.copy(files[0], tmp_path / f"given{suffix}")
    (tmp_path / "in").mkdir()
    inputs = inputs_of(runs, name, tmp_path / "in", most=3)
    said = at("predict", alone, tmp_path / "in", "--csv")
    assert said.status == 0, said.err
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert rows[0]["input"].startswith(str(inputs[0]))
    assert len(rows) == 3


def test_every_file_says_the_same_as_model_json(runs: Path) -> None:
    for name in NAMES:
        folder = runs / "runs" / name
        told = json.loads((folder / "model.json").read_text())
        assert {each["file"] for each in told["files"]} == {
            path.name for path in folder.iterdir() if path.suffix in (".onnx", ".tflite")
        }
        for each in told["files"]:
            about = about_file(folder / each["file"])
            said = json.loads(to_text(about))
            assert said["inputs"] == each["inputs"]
            assert said["outputs"] == each["outputs"]
            assert (said["recipe"], said["task"], said["data_sha256"]) == (name, told["task"], told["data_sha256"])
            assert said["labels"] == told["labels"]
            assert text_in((folder / each["file"]).read_bytes(), "") == to_text(about)
            if each["file"].endswith(".tflite"):
                labels = zipfile.ZipFile(folder / each["file"]).read("labels.txt")
                assert labels == (folder / "labels.txt").read_bytes()
            assert each["size_bytes"] == (folder / each["file"]).stat().st_size
        assert (folder / "labels.txt").read_text().splitlines() == told["labels"]


def test_the_runtime_itself_shows_the_text(runs: Path) -> None:
    path = runs / "runs" / "pics" / "pics.int8.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map[KEY] == to_text(about_file(path))


def test_as_many_threads_as_ship_are_used(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "runs" / "yes-no", tmp_path / "run"))
    told = json.loads((folder / "model.json").read_text())
    shipped = told["targets"][0]
    assert model_for(str(folder)).threads == shipped["threads"]
    shipped["threads"] = 2
    (folder / "model.json").write_text(json.dumps(told))
    assert model_for(str(folder)).threads == min(2, usable_cores())
    assert model_for(str(folder / shipped["ship"]), runtime=shipped["runtime"]).threads == min(2, usable_cores())
    others = [each["file"] for each in told["files"] if each["file"] != shipped["ship"]]
    assert model_for(str(folder), file=others[0]).threads == 1
    del shipped["threads"]  # as it was written before there was a choice
    (folder / "model.json").write_text(json.dumps(told))
    assert model_for(str(folder)).threads == 1


def test_nothing_names_this_machine(runs: Path) -> None:
    for name in NAMES:
        for path in (runs / "runs" / name).iterdir():
            if path.suffix in (".onnx", ".tflite") or path.name in ("model.json", "labels.txt"):
                content = path.read_bytes()
                for word in (str(runs), str(Path.home()) + "/", os.uname().nodename):
                    assert word.encode() not in content, f"{path.name} holds {word}"


def test_a_recalled_run_writes_the_same_bytes(at: Karui, runs: Path) -> None:
    path = runs / "runs" / "eights" / "model.json"
    before = path.read_bytes()
    path.unlink()
    assert at("run", "eights.toml", "--quiet", "--allow-open").status == 0
    assert path.read_bytes() == before


def test_a_labelled_folder_says_how_many_are_right(at: Karui, runs: Path) -> None:
    said = at("predict", "pics", "pictures", "--labels", "--json")
    found = json.loads(said.out)
    each = json.loads(at("predict", "pics", "pictures/wren", "--json").out)
    assert found["samples"] == 120
    assert found["classes"]["wren"]["right"] == sum(one["class"] == "wren" for one in each)
    assert found["right"] == sum(one["right"] for one in found["classes"].values())
    at("predict", "pics", ".", "--labels").refused(4, "no class of the network")
    at("predict", "prices", "pictures", "--labels").refused(2, "name a class")


def test_standard_input_holds_a_table(at: Karui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("weight,colour,size\n0.5,green,3\n-0.5,red,-3\n"))
    said = at("predict", "yes-no", "-", "--json")
    assert [each["input"] for each in json.loads(said.out)] == ["stdin:2", "stdin:3"]


def piped(runs: Path, content: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``karui predict`` with these bytes on standard input."""
    command = [sys.executable, "-m", "pipeline.cli", "predict", *arguments]
    done = subprocess.run(command, input=content, cwd=runs, capture_output=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_standard_input_holds_a_picture_or_an_array(runs: Path, tmp_path: Path) -> None:
    said = piped(runs, (runs / "pictures/wren/000.png").read_bytes(), "pics", "-", "--csv")
    assert said.stdout.splitlines()[1].startswith("stdin,wren,wren,")
    np.save(tmp_path / "a.npy", np.zeros((2, 1, 8, 8), np.uint8))
    said = piped(runs, (tmp_path / "a.npy").read_bytes(), "eights", "-", "--json")
    assert [each["input"] for each in json.loads(said.stdout)] == ["stdin#0", "stdin#1"]
    said = piped(runs, b"nonsense", "pics", "-")
    assert said.returncode == 4
    assert said.stderr.startswith("error: stdin: is no readable picture")


def test_a_table_on_standard_input_is_utf_8(runs: Path) -> None:
    said = piped(runs, "größe;weight;colour;size\n1;0,5;green;3\n".encode(), "yes-no", "-", "--csv")
    assert said.stdout.splitlines()[1].startswith("stdin:2,big,")
    said = piped(runs, b"size,weight,colour\n1,2,r\xe9d\n", "yes-no", "-")
    assert said.returncode == 4
    assert "no readable CSV table" in said.stderr


def test_masks_are_written_under_the_names_of_the_pictures(at: Karui, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path / "other"):
        shutil.copy(runs / "scenes/images/03.png", folder / "street.png")
    said = at("predict", "masks", tmp_path / "street.png", tmp_path / "other", "--out", tmp_path / "found", "--json")
    assert said.status == 0, said.err
    written = sorted((tmp_path / "found").iterdir())
    assert [path.name for path in written] == ["street-2.mask.png", "street.mask.png"]
    classes = ("ground", "bright", "dark")
    for path in written:
        mask = np.asarray(Image.open(path))
        assert mask.shape == (16, 16)
        shares = {name: float((mask == number).mean()) for number, name in enumerate(classes)}
        assert json.loads(said.out)[0]["shares"] == pytest.approx(shares)
    at("predict", "pics", "pictures/wren/000.png", "--out", tmp_path / "none").refused(2, "none")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"size,weight\n1,2\n", ("no column 'colour'", "a.csv:1")),
        ("a.csv", b"size,weight,colour\n1,heavy,red\n", ("holds 'heavy'", "a.csv:2")),
        ("a.csv", b"size,weight,colour\n1,1_000,red\n", ("holds '1_000'",)),
        ("a.csv", b"size,weight,colour\n1,2,pink\n", ("holds 'pink'", "red, green, blue")),
        ("a.csv", b"size,weight,colour\n", ("no rows",)),
        ("a.csv", b"\xff\xfe\x00", ("no readable CSV",)),
        ("a.npy", b"\x93NUMPY nonsense", ("no readable .npy",)),
        ("a.npz", b"PK nonsense", ("no readable .npz",)),
        ("a.png", b"nonsense", ("takes no pictures",)),
        ("a.txt", b"1,2", ("no known kind of input", ".csv")),
    ],
)
def test_an_input_that_cannot_be_used_is_refused(
    name: str, content: bytes, words: tuple[str, ...], at: Karui, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    at("predict", "yes-no", tmp_path / name).refused(4, *words)


def test_pictures_that_do_not_fit_are_refused(at: Karui, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "wide.png")
    at("predict", "pics", tmp_path / "wide.png").refused(4, "wide.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    at("predict", "pics", tmp_path / "broken.png").refused(4, "broken.png")
    np.save(tmp_path / "deep.npy", np.full((2, 3, 16, 16), np.inf, np.float32))
    at("predict", "pics", tmp_path / "deep.npy").refused(4, "deep.npy#0", "finite")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    at("predict", "pics", tmp_path / "objects.npy").refused(4, "objects.npy")


def test_models_that_cannot_be_used_are_refused(at: Karui, runs: Path, tmp_path: Path) -> None:
    at("predict", "pix", "x.png").refused(2, "there is no run 'pix'", "pics")
    at("predict", "gone.onnx", "x.png").refused(4, "gone.onnx", "no such model file")
    at("predict", "pics", "x.png", "--file", "pics.int8.tflit").refused(2, "did you mean 'pics.int8.tflite'")
    at("predict", "pics", "x.png", "--file", "pics.int8.onnx", "--runtime", "litert").refused(2, "does not run .onnx")
    assert "exclude" in json.loads(at("predict", "pics", "x.png", "--json", "--csv").out)["error"]["what"]
    shutil.copytree(runs / "runs" / "pics", tmp_path / "copy")
    changed = tmp_path / "copy" / "pics.int8.onnx"
    changed.write_bytes(changed.read_bytes() + b"\x10\x01")  # one more field: still a readable file
    at("predict", tmp_path / "copy", "x.png", "--file", "pics.int8.onnx").refused(4, "is not the file")
    changed.write_bytes(changed.read_bytes()[:-40])
    at("predict", changed, "x.png").refused(4, "pics.int8.onnx")


def test_outputs_that_are_no_numbers_are_refused_by_the_input(at: Karui, tmp_path: Path) -> None:
    model = onnx.load("runs/eights/eights.fp32.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 1 and values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(model, tmp_path / "nan.onnx")
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    at("predict", tmp_path / "nan.onnx", tmp_path / "x.npy").refused(4, "is no finite number for", "x.npy#0")


def test_outputs_that_are_no_answer_for_each_input_are_refused(at: Karui, tmp_path: Path) -> None:
    model = onnx.load("runs/eights/eights.fp32.onnx")
    (output,) = (each.name for each in model.graph.output)
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0], np.int64), "first"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["all", "first"], [output], axis=0))
    onnx.save(model, tmp_path / "three.onnx")
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    at("predict", tmp_path / "three.onnx", tmp_path / "x.npy").refused(
        4, f"'{output}' has the shape (3, ", "not one per sample"
    )


def test_a_handed_over_folder_needs_no_run_json(at: Karui, runs: Path, tmp_path: Path) -> None:
    for name in ("model.json", "yes-no.int8.tflite", "yes-no.fp32.tflite", "yes-no.int8.onnx", "yes-no.fp32.onnx"):
        shutil.copy(runs / "runs" / "yes-no" / name, tmp_path / name)
    assert at("predict", tmp_path, *inputs_of(runs, "yes-no", runs, most=2)).status == 0


def test_predict_loads_no_torch(runs: Path) -> None:
    code = (
        "import sys; from pipeline.cli import main; "
        "status = main(['predict', 'pics', 'pictures/wren/000.png']); "
        "sys.exit(status or int('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pictures/wren/000.png  ")
