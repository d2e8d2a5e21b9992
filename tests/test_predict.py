"""``karui predict`` on what real runs shipped: pictures, tables, arrays, from run folders and from files alone."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from pipeline.artifacts.evidence import Answered
from pipeline.artifacts.files import Way
from pipeline.artifacts.outcome import Outcome
from pipeline.cli import main
from pipeline.data.load import load
from pipeline.instruments import here
from pipeline.onboard.about import KEY, to_text
from pipeline.onboard.metadata import about_file, text_in
from pipeline.report.yourself import PICTURE_FILE, ROWS_FILE, SAMPLE_FILE, yourselves
from pipeline.runs.finished import load_outcome, store_of
from tests.own_project import Karui, draw, karui

__all__ = ["karui"]

TRAIN = (
    "[train]\nepochs = 30\nlearning_rate = 1e-2\nbatch_size = 32\n"
    "[quantize]\nepochs = 1\nmethod = 'ptq'\nmargin_pp = 100\n"
)
LIMITS = "[limits]\naccuracy_drop_pp = 100\n"
TABLE_LIMITS = "[limits.metrics.{metric}]\nworse_by_percent = 1000\n"
PICTURES = (
    'name = "pictures"\ntitle = "Patches"\nkind = "image-folder"\nfolder = "pictures"\n'
    "[input]\nshape = [3, 16, 16]\ndivide = 255\nmean = [0.2, 0.25, 0.3]\nstd = [0.3, 0.25, 0.2]\n"
)
TABLE = (
    'name = "rows"\ntitle = "Rows"\nkind = "csv"\ntask = "{task}"\n{label}missing = "median"\n'
    "[categories]\ncolour = ['red', 'green', 'blue']\n[files.all]\npath = 'rows.csv'\n"
    "[input]\nnormalize = 'train'\nclip = 4\n[split]\ntest = 0.3\n"
)


def write_rows(path: Path) -> None:
    """Write a table whose class and number follow from its columns; some values are missing."""
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["size", "colour", "weight", "kind", "price"])
        for row in range(240):
            size, weight = random.normal(size=2)
            colour = ("red", "green", "blue")[row % 3]
            kind = "big" if size + 0.5 * weight > 0.1 else "small"
            shown = "" if row % 11 == 0 else f"{size:.4f}"
            out.writerow([shown, colour, f"{weight:.4f}", kind, f"{10 * size + 3 * (row % 3):.4f}"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run four small recipes in one folder and return it."""
    folder = tmp_path_factory.mktemp("predict")
    draw(folder / "pictures", ["adder", "red fox", "wren"], 40, side=16)
    write_rows(folder / "rows.csv")
    (folder / "pictures.toml").write_text(PICTURES)
    label, targets = "label_column = 'kind'\n", "target_columns = ['price']\ntarget_divide = 10\n"
    named = "classes = ['small', 'big']\n"
    (folder / "yes.toml").write_text(TABLE.format(task="binary", label=label + named + "ignored_columns = ['price']\n"))
    (folder / "price.toml").write_text(TABLE.format(task="regression", label=targets + "ignored_columns = ['kind']\n"))
    recipes = {
        "pics": ("pictures.toml", "cnn", "width = 8, stages = 2, convs_per_stage = 1", LIMITS),
        "yes-no": ("yes.toml", "mlp", "hidden = '8'", TABLE_LIMITS.format(metric="AUC")),
        "prices": ("price.toml", "mlp", "hidden = '8'", TABLE_LIMITS.format(metric="RMSE")),
        "eights": ("digits", "mlp", "hidden = '16'", LIMITS),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "SESSIONS", 2)  # what is measured does not matter: all of them take half a minute a run
        patch.chdir(folder)
        for name, (data, network, options, limits) in recipes.items():
            (folder / f"{name}.toml").write_text(
                f'name = "{name}"\ndata = "{data}"\nthreads = 1\n[network]\nfile = "{network}"\n'
                f"options = {{ {options} }}\n{TRAIN}{limits}"
            )
            assert main(["run", f"{name}.toml", "--quiet", "--allow-open"]) == 0
    return folder


@pytest.fixture
def at(runs: Path, karui: Karui, monkeypatch: pytest.MonkeyPatch) -> Karui:
    """Stand in the folder of the runs."""
    monkeypatch.chdir(runs)
    return karui


def own_answers(runs: Path, name: str) -> tuple[Outcome, Answered]:
    """Return a run and what the file that it ships answered on the test split."""
    outcome = load_outcome(runs / "runs" / name)
    ship = outcome.targets[0].verdict.ship
    assert ship is not None, outcome.targets[0].verdict.why
    return outcome, next(each for each in outcome.observed[0].answers if each.way == ship)


def decisions(runs: Path, name: str) -> list[float]:
    """Return the run's own decisions on its test split."""
    _, answered = own_answers(runs, name)
    found: list[float] = np.asarray(store_of(runs / "runs" / name).get_array(answered.decisions)).ravel().tolist()
    return found


def inputs_of(runs: Path, name: str, folder: Path, most: int = 40) -> list[Path]:
    """Write the first test inputs of a run as files that a user would have; tables and arrays are one file each."""
    outcome, _ = own_answers(runs, name)
    held = load(outcome.data)
    raw = held.test.read(np.arange(min(len(held.test), most))).inputs["input"]
    about = outcome.files[0].about
    assert about is not None
    columns = about.inputs[0].raw.columns
    if name == "pics":
        for number, pixels in enumerate(raw):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:03}.png")
        return sorted(folder.glob("*.png"))
    if not columns:
        np.save(folder / "samples.npy", raw)
        return [folder / "samples.npy"]
    with (folder / "new.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["unasked", *(column.name for column in columns)])
        for row in raw.tolist():
            cells = [
                "" if np.isnan(value) else column.categories[int(value)] if column.categories else repr(value)
                for value, column in zip(row, columns, strict=True)
            ]
            out.writerow(["x", *cells])
    return [folder / "new.csv"]


NAMES = ("pics", "yes-no", "prices", "eights")


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


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_to_run_it_yourself_give_what_the_run_found(
    name: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, _ = own_answers(runs, name)
    shutil.copytree(runs / "runs" / name, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (first,) = inputs_of(runs, name, tmp_path, most=1)
    shutil.copy(first, {".png": PICTURE_FILE, ".csv": ROWS_FILE, ".npy": SAMPLE_FILE}[first.suffix])
    tried = [each for each in outcome.observed[0].answers if each.way.program in ("onnxruntime", "litert")]
    assert len(tried) == 4
    for answered in tried:
        (own,) = yourselves(shipping(outcome, answered.way))
        assert all(Path(file).is_file() for file in own.files), own.files
        lines = [line for line in own.code.splitlines() if line and "import " not in line]
        assert len(lines) <= (20 if ROWS_FILE in own.files else 15), own.code
        assert "pipeline" not in own.code
        capsys.readouterr()
        exec(compile(own.code, "lines", "exec"), {})  # noqa: S102  what the page tells people to run
        said = capsys.readouterr().out
        decision = float(store_of(runs / "runs" / name).get_array(answered.decisions).ravel()[0])
        if name == "prices":
            step = next(iter(answered.steps.values()), 1e-4)
            assert json.loads(said)[0] == pytest.approx(10 * decision, abs=10.1 * step), own.code
        else:
            assert said.strip() == outcome.facts.classes[int(decision)], own.code


def test_the_page_shows_the_lines(runs: Path) -> None:
    for name in NAMES:
        outcome, _ = own_answers(runs, name)
        (own,) = yourselves(outcome)
        page = (runs / "runs" / name / "report.html").read_text()
        assert html.escape(own.code, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page


def shipping(outcome: Outcome, way: Way) -> Outcome:
    """Return the run as if this file were the one that ships."""
    target = outcome.targets[0]
    verdict = dataclasses.replace(target.verdict, ship=way)
    return dataclasses.replace(outcome, targets=(dataclasses.replace(target, verdict=verdict),))


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
        assert (folder / "labels.txt").read_text().splitlines() == told["labels"]


def test_the_runtime_itself_shows_the_text(runs: Path) -> None:
    path = runs / "runs" / "pics" / "pics.int8.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map[KEY] == to_text(about_file(path))


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
