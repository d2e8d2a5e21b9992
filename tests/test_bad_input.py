"""What a user gets for bad input: which file, table, key, layer or sample, what to do, exit status, no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import catalog
from pipeline.errors import KaruiError
from tests.own_project import KARUI, NO_COMPARISON, Karui, draw, in_a_process, squares
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

ROOT = Path(__file__).parents[1]
STOPS_WITHIN_S = 5.0  # asked: 1 s; here other tests run beside it


# ── recipes, targets, cards, --set ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 1\nb", "epoch = 1\nb", "mine.toml: [train] has no 'epoch'; did you mean 'epochs'?"),
        ("epochs = 1\nb", "epochs = 0\nb", "mine.toml: [train] epochs = 0: expected at least 1"),
        ("epochs = 1\nb", "learning_rate = inf\nb", "[train] learning_rate = inf: expected a finite number"),
        ("[limits]", "[limit]", "mine.toml: the top level has no 'limit'; did you mean 'limits'?"),
        ('"mine"', '"My Recipe"', "name = \"My Recipe\": expected small letters, digits, '-', '_' and '.' alone"),
        ('"mine"', "mine", "mine.toml:1: not valid TOML"),
        (
            '"digits"',
            '"digitz"',
            "mine.toml: data = \"digitz\": no data-set card is called 'digitz'; did you mean 'digi",
        ),
        ('"digits"', '"no.toml"', "mine.toml: data = \"no.toml\": no file 'no.toml'\n  looked for"),
        ('"mlp"', '"mpl"', "mine.toml: [network] file = \"mpl\": no network is called 'mpl'; did you mean 'mlp'?"),
        ("[train]", '[finetune]\nstart = "recipe:digitz"\n[train]', '[finetune] start = "recipe:digitz": no recipe is'),
        (
            "[train]",
            '[finetune]\nstart = "weights:no.pt"\n[train]',
            '[finetune] start = "weights:no.pt": no file \'no.',
        ),
        (
            "[train]",
            '[finetune]\nstart = "run:never"\n[train]',
            '[finetune] start = "run:never": there is no run \'nev',
        ),
        ("[train]", '[finetune]\nstart = "digits"\n[train]', "'recipe:NAME', 'run:FOLDER' or 'weights:FILE'"),
        (
            "[train]",
            "seed = 4294967296\n[train]",
            "has no 'seed'; did you mean 'seed' at the top of the file?",
        ),
    ],
)
def test_a_wrong_recipe(old: str, new: str, said: str, karui: Karui) -> None:
    path = karui.recipe()
    path.write_text(path.read_text().replace(old, new, 1))
    karui("run", "mine.toml").refused(2, said)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("network.file=mpl", "--set network.file=mpl: no network is called 'mpl'; did you mean 'mlp'?"),
        ("data=digitz", "--set data=digitz: no data-set card is called 'digitz'; did you mean 'digits'?"),
        ("seed=99999999999999999999", "seed = 99999999999999999999: expected less than 4294967296"),
        ("train.learning_rate=nan", "--set train.learning_rate=nan: [train] learning_rate = nan"),
        ("quantise.method=ptq", "the top level has no 'quantise'; did you mean 'quantize'?"),
    ],
)
def test_a_wrong_setting(setting: str, said: str, karui: Karui) -> None:
    karui.recipe()
    karui("run", "mine.toml", "--set", setting).refused(2, said)


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("csv", '[files.all]\npath = "t.csv"', "card.toml: kind = \"csv\" needs 'label_column'"),
        (
            "csv",
            'label_column = "y"\n[files.traim]\npath = "t.csv"',
            "card.toml: [files] has no 'traim'; did you mean 'train'?",
        ),
        ("npz", "", 'card.toml: kind = "npz" needs [files.all]'),
        ("npz", '[files.test]\npath = "t.npz"', 'card.toml: kind = "npz" needs [files.all]'),
        ("image-folder", "", "card.toml: kind = \"image-folder\" needs 'folder'"),
        ("npz", 'classes = ["a", "b", "a"]', "'a' stands there twice"),
        (
            "npz",
            'input = { shape = [] }\n[files.all]\npath = "t.npz"',
            "card.toml: [input] shape = []: expected a list of at least 1",
        ),
        ("pictures", "", "card.toml: kind = \"pictures\": expected 'npz'"),
    ],
)
def test_a_wrong_card(kind: str, more: str, said: str, karui: Karui) -> None:
    shape = "" if "input" in more else "[input]\nshape = [1, 8, 8]"
    karui.write("card.toml", f'name = "c"\ntitle = "C"\nkind = "{kind}"\n{more}\n{shape}\n')
    karui.recipe(data="card.toml")
    karui("run", "mine.toml").refused(2, said)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_toml_never_ends_in_a_traceback(data: st.DataObject, tmp_path: Path) -> None:
    kind = data.draw(st.sampled_from(["recipe", "target", "data"]))
    name = {"recipe": "models/digits", "target": "targets/raspberry-pi-4b", "data": "calibration_data/digits"}[kind]
    text = (ROOT / f"{name}.toml").read_text()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 40))
    inserted = data.draw(st.text(max_size=12) | st.sampled_from(["nan", "-1", '"x"', "[[a]]", "{}", "\0", "1e999"]))
    path = tmp_path / "damaged.toml"
    path.write_text(text[:start] + inserted + text[start + length :], encoding="utf-8", errors="replace")
    refused = _refusal(kind, str(path))
    if refused is not None:  # some changes do no harm
        assert refused.exit_code == 2
        assert "damaged.toml" in refused.where


def _refusal(kind: str, path: str) -> KaruiError | None:
    try:
        match kind:
            case "recipe":
                catalog.load_recipe(path)
            case "target":
                catalog.load_target(path)
            case _:
                catalog.load_card(path)
    except KaruiError as error:
        return error
    return None


# ── data files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _refused_set(karui: Karui, x: object, y: object, *words: str, more: str = "") -> None:
    karui.npz_card({"x": np.asarray(x), "y": np.asarray(y)}, more=more)
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml", "--until", "train").refused(4, *words)


def test_a_label_out_of_range(karui: Karui) -> None:
    x, y = squares(60, 3)
    y[7] = 3
    more = 'classes = ["a", "b", "c"]\n'
    _refused_set(karui, x, y, "set.npz: y: sample 7 has the label 3, expected 0 … 2", "correct the labels", more=more)


def test_one_class_only(karui: Karui) -> None:
    x, y = squares(60, 3)
    _refused_set(karui, x, 0 * y, "all 60 samples are of one class, '0'; there is nothing to tell apart")


def test_no_samples_at_all(karui: Karui) -> None:
    x, y = squares(60, 3)
    _refused_set(karui, x[:0], y[:0], "set: the training split is empty: 0 samples", more='classes = ["a", "b"]\n')


def test_an_empty_split(karui: Karui) -> None:
    x, y = squares(60, 3)
    karui.npz_card({"x_train": x, "y_train": y, "x_test": x[:0], "y_test": y[:0]})
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml", "--until", "train").refused(4, "the test split is empty: 0 samples")


def test_a_sample_that_is_no_number_and_one_of_another_shape(karui: Karui) -> None:
    x, y = squares(60, 3)
    floats = x.astype(np.float32)
    floats[3, 0, 2, 5] = np.nan
    _refused_set(karui, floats, y, "set.npz: x: sample 3 holds nan at (0, 2, 5)")
    _refused_set(karui, x[:, :, :4], y, "samples have the shape (1, 4, 8), expected (1, 8, 8)")


def test_a_missing_and_an_altered_file(karui: Karui) -> None:
    x, y = squares(60, 3)
    card = karui.npz_card({"x": x, "y": y})
    expected, found = "a" * 64, hashlib.sha256(Path("set.npz").read_bytes()).hexdigest()
    card.write_text(card.read_text().replace('"set.npz"', f'"set.npz"\nsha256 = "{expected}"'))
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml").refused(
        4, "set.npz: is not the file", f"expected sha256 {expected}, found {found}", "put the right one in its place"
    )
    Path("set.npz").unlink()
    said = karui("run", "mine.toml")
    said.refused(
        4, "'set.npz' of the data set 'set' is missing", f"expected sha256 {expected}", "KARUI_DATA", "looked for"
    )
    assert not Path("runs").exists()


def test_a_truncated_file(karui: Karui) -> None:
    x, y = squares(60, 3)
    karui.npz_card({"x": x, "y": y})
    Path("set.npz").write_bytes(Path("set.npz").read_bytes()[:900])
    karui.recipe(data="set-card.toml")
    karui("run", "mine.toml").refused(4, "set.npz: is no readable .npz file", "the file is damaged")


def test_pictures_that_cannot_be_meant(karui: Karui) -> None:
    draw(Path("pictures"), ["cat", "dog"], 12, side=8)
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    victim = Path("pictures/dog/007.png")
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    karui("run", "mine.toml").refused(4, "dog/007.png: is no readable picture (PNG, JPEG", "replace the file")
    Image.new("RGB", (9, 8)).save(victim)
    karui("run", "mine.toml").refused(4, "dog/007.png: is 9×8 pixels (width×height), expected 8×8")
    victim.write_bytes(whole)
    Path("pictures/bird").mkdir()
    karui("run", "mine.toml").refused(4, "pictures/bird: holds no pictures")


def test_a_folder_whose_name_is_no_text(karui: Karui) -> None:
    draw(Path("pictures"), ["cat", "dog"], 12, side=8)
    os.rename(b"pictures/dog", b"pictures/d\xf6g")  # noqa: PTH104  bytes on purpose: Latin-1
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    karui("run", "mine.toml").refused(4, "the folder's name is no UTF-8 text", "rename it")
    karui("run", "digits", "--out", os.fsdecode(b"runs/d\xf6g")).refused(2, "a name or path is no UTF-8 text")


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────

NETWORK = """import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(64, classes)
        self.odd = nn.GELU()

    def forward(self, x):
        BODY

def build(input_shape, classes):
    return Net(classes)
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return self.fc(x)",
            [
                "net.py:12: forward() raised RuntimeError",
                "return self.fc(x)",
                "must return (2, 10): one row per sample",
            ],
        ),
        ("return self.fc(x.flatten(1))[:, :7]", ["forward() returned shape (2, 7), expected (2, 10)"]),
        ("return self.fc(x.flatten(1)), 1", ["forward() returned a tuple, not a tensor"]),
        (
            "return self.fc(x.flatten(1)) if not self.training else x.no_such_thing",
            ["net.py:12: a training step raised AttributeError", "no_such_thing", "in training mode"],
        ),
        (
            "return self.fc(x.flatten(1)) * (2 if x.sum() > 0 else 1)",
            ["net.py:12: the network cannot be traced", "x.sum() > 0", "may not branch"],
        ),
        (
            "return self.fc(torch.special.i0e(x.flatten(1)))",
            ["net.py:12: layer", "special_i0e is not supported", "i0e(x.flatten(1))"],
        ),
        ("return self.fc(self.odd(x.flatten(1)))", ["net.py:12: layer 'odd': nn.GELU is not supported"]),
        ("return self.fc(1 / (3 + x.flatten(1)))", ["net.py:12: layer 'truediv'", "division by anything but a number"]),
        ("return self.fc(F.relu(x.flatten(1))).detach()", ["a training step raised", "a gradient must flow back"]),
    ],
)
def test_a_network_that_cannot_be_used_is_told_before_any_training(body: str, words: list[str], karui: Karui) -> None:
    karui.write("net.py", NETWORK.replace("BODY", body))
    karui.recipe(network="net.py")
    said = karui("run", "mine.toml")
    said.refused(4, *words)
    assert not list(Path("runs/.cache/steps").glob("train*"))
    assert not any(line.startswith("train") for line in said.err.splitlines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(input_shape, classes)\n    pass\n", ["net.py:1: importing the file raised SyntaxError"]),
        ("import no_such_module\n", ["net.py:1:", "ModuleNotFoundError", "import no_such_module"]),
        ("x = 1\n", ["there is no function build", "write: def build("]),
        ("def build(input_shape, classes):\n    pass\n", ["build() returned None"]),
        ("def build(input_shape, classes):\n    return input_shape[9]\n", ["net.py:2: build() raised IndexError"]),
        ("def build(input_shape, classes):\n    raise SystemExit\n", ["net.py:2: build() raised SystemExit"]),
    ],
)
def test_a_file_that_is_no_network(text: str, words: list[str], karui: Karui) -> None:
    karui.write("net.py", text)
    karui.recipe(network="net.py")
    karui("run", "mine.toml").refused(4, *words)


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"hidden.0.weight": torch.zeros(48, 64), "odd": torch.zeros(3)},
            [
                "weights:w.pt: the weights are those of another network",
                "'hidden.0.weight': expected (128, 64), found (48",
            ],
        ),
        ({"fc.bias": torch.tensor([float("nan")])}, ["w.pt: 'fc.bias' holds values that are no finite numbers"]),
        (
            torch.nn.Linear(2, 2),
            ["w.pt: holds a whole pickled object with its code (torch.nn.modules.linear.Linear)", "state_dict()"],
        ),
        ([1, 2], ["w.pt: holds a list, not a state dict"]),
        (None, ["w.pt: no readable .pt file", "copy or download it again"]),
    ],
)
def test_weights_of_something_else(content: object, words: list[str], karui: Karui) -> None:
    if content is None:
        Path("w.pt").write_bytes(b"PK\3\4 half of it")
    else:
        torch.save(content, "w.pt")
    karui.recipe()
    start = ("--set", "finetune.start=weights:w.pt")
    karui("run", "mine.toml", "--until", "finetune", *NO_COMPARISON, *start).refused(4, *words)


def test_a_run_of_another_network(karui: Karui) -> None:
    karui.recipe("first", options='hidden = "16"')
    assert karui("run", "first.toml", "--until", "train").status == 0
    karui.recipe()
    said = karui("run", "mine.toml", "--until", "finetune", *NO_COMPARISON, "--set", "finetune.start=run:first")
    said.refused(4, "run:first: the weights are those of another network", "'hidden.0.weight': expected (128, 64)")


# ── what goes wrong on the way ──────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_that_is_no_number(karui: Karui) -> None:
    karui.recipe()
    said = karui("run", "mine.toml", "--set", "train.learning_rate=1e30", "--set", "train.optimizer=sgd")
    said.refused(1, "the loss is no longer a finite number in epoch 1 of 'train' at learning rate", "try a smaller")


def test_a_damaged_run_folder(karui: Karui) -> None:
    karui.recipe()
    assert karui("run", "mine.toml", "--until", "train").status == 0
    for content in ("{", '{"a": 1}', "\0"):
        Path("runs/mine/outcome.json").write_text(content)
        for command in ("show", "compare", "report"):
            karui(command, "mine").refused(
                2, "runs/mine/outcome.json: cannot be read", "make it anew: karui run mine.to"
            )
    Path("runs/mine/outcome.json").unlink()
    karui("show", "mine").refused(2, "this run has not finished", "finish it: karui run mine.toml")
    Path("runs/mine/run.json").write_text("{")
    karui("show", "mine").refused(2, "runs/mine/run.json: cannot be read")
    for record in Path("runs/.cache/steps").iterdir():
        record.write_text("{")
    said = karui("run", "mine.toml", "--until", "train")
    assert said.status == 0
    assert "train  runs again: its record" in said.err


def test_a_file_where_the_run_folder_should_be(karui: Karui) -> None:
    karui.recipe()
    karui.write("runs", "in the way")
    karui("run", "mine.toml").refused(1, "runs/mine: cannot be written or read", "move it away")


def test_a_full_disk_then_the_same_command(karui: Karui) -> None:
    # weights, outputs, model files and most records of steps have less than 20 KiB; the record of all observations, and
    # what it stores, have more
    karui.recipe(options='hidden = "8"')
    command = ("run", "mine.toml", "--set", "quantize.method=none")
    full = in_a_process(*command, cwd=karui.folder, limit_kib=20)
    assert full.returncode == 1
    assert "cannot be written or read: file too large" in full.stderr
    assert "ulimit -f" in full.stderr
    assert "Traceback" not in full.stderr
    for stored in Path("runs/.cache/store").iterdir():
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == stored.name
    said = karui(*command)
    assert said.ended, said.err
    recalled = [line.split()[0] for line in said.err.splitlines() if "recalled" in line]
    assert recalled == ["data", "check", "train", "prune", "quantize", "export", "predict"]  # what was whole stays
    assert not [path.name for path in Path("runs").rglob("*.tmp")]


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "stopped"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_a_signal_is_a_message_and_no_loss(number: signal.Signals, status: int, said: str, karui: Karui) -> None:
    karui.recipe()
    command = [*KARUI, "run", "mine.toml", "--until", "train", "--set", "train.epochs=400"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        journal = Path("runs/mine/journal.jsonl")
        for _ in range(3000):
            if journal.is_file() and '"started", "step": "train"' in journal.read_text():
                break
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate()
        assert time.monotonic() - sent < STOPS_WITHIN_S
    assert process.returncode == status
    assert out == ""
    assert f"error: {said}\n  the same command goes on where this one stopped" in err
    assert "Traceback" not in err
    assert "recalled" in karui("run", "mine.toml", "--until", "train").err.splitlines()[0]


# ── who reads it ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def known(karui: Karui) -> Karui:
    """Train a recipe, so that the next run only recalls."""
    recipe = karui.recipe(options='hidden = "32"')
    recipe.write_text(recipe.read_text().replace("[train]\nepochs = 1\n", "[train]\nepochs = 10\n"))  # beats chance
    assert karui("run", "mine.toml", "--set", "quantize.method=none").status == 0
    return karui


RECALLED = "run mine.toml --set quantize.method=none"
# redirection → exit status
REDIRECTIONS = {"| head -1": 0, "--json | head -1": 0, ">&-": 0, "--json >&- 2>&-": 0, ">/dev/full": 1}


def test_streams_that_do_not_listen(known: Karui) -> None:
    for redirection, status in REDIRECTIONS.items():
        command = f"{' '.join(KARUI)} {RECALLED} {redirection}"
        done = subprocess.run(["bash", "-c", command], cwd=known.folder, capture_output=True, text=True, check=False)
        assert done.returncode == status, redirection
        assert not any(words in done.stderr for words in ("Traceback", "Exception", "bug in karui")), done.stderr
        assert ("the result cannot be printed: [Errno 28]" in done.stderr) == bool(status)


def test_ascii_alone_is_enough(karui: Karui) -> None:
    draw(Path("pictures"), ["kätze", "dog"], 40, side=8)
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = ("run", "mine.toml", "--set", "quantize.method=none", "--set", "train.epochs=20", "--allow-open")
    assert karui(*command).status == 0
    table = in_a_process(*command, cwd=karui.folder, env=ascii_only)
    assert table.returncode == 0, table.stderr
    assert table.stdout.isascii()
    assert re.search(r"^(ok|~) raspberry-pi-4b: ship ONNX float", table.stdout, re.MULTILINE)
    document = in_a_process(*command, "--json", "--quiet", cwd=karui.folder, env=ascii_only)
    assert document.stdout.isascii()
    assert json.loads(document.stdout)["recipe"] == "mine"
    assert document.stderr == ""
    wrong = in_a_process("run", "mine.toml", "--set", "data=dügits", cwd=karui.folder, env=ascii_only)
    assert wrong.returncode == 2
    assert "did you mean 'digits'?" in wrong.stderr


def test_json_is_one_document(known: Karui) -> None:
    met = known("run", "mine.toml", "--set", "quantize.method=none", "--json")
    assert met.status == 0
    assert json.loads(met.out)["targets"][0]["passed"] is True
    missed = known("run", "mine.toml", "--set", "quantize.method=none", "--json", "--set", "limits.accuracy_min=1")
    assert missed.status == 3
    assert json.loads(missed.out)["targets"][0]["passed"] is False
    refused = known("run", "mine.toml", "--json", "--set", "train.epochs=-1")
    assert refused.status == 2
    assert json.loads(refused.out) == {
        "error": {
            "what": "[train] epochs = -1: expected at least 1",
            "where": "--set train.epochs=-1",
            "remedy": "",
            "exit_status": 2,
        }
    }
    assert "error: --set train.epochs=-1: [train] epochs = -1" in refused.err
    beside = known("compare", "mine", "mine", "--json")
    assert json.loads(beside.out)["warnings"] == []
    assert json.loads(beside.out)["differences"][0]["difference"] == 0
    misused = known("run", "mine.toml", "--json", "--threads", "0")
    assert json.loads(misused.out)["error"]["exit_status"] == misused.status == 2
