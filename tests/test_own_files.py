"""A user's own network, data, target and weights, by path, through the real command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from pipeline.artifacts.outcome import Outcome
from pipeline.networks.build import build_network
from pipeline.runs.finished import cache_of, load_outcome
from tests.own_project import NO_COMPARISON, Karui, draw, squares
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

EXAMPLES = Path(__file__).parents[1] / "examples"
PI_4 = (Path(__file__).parents[1] / "targets" / "raspberry-pi-4b.toml").read_text()


def outcome(name: str) -> Outcome:
    return load_outcome(Path("runs") / name)


# ── the example ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_runs_on_drawn_pictures(karui: Karui) -> None:
    shutil.copytree(EXAMPLES, karui.folder / "examples")
    draw(karui.folder / "examples" / "my_pictures", ["cat", "dog"], 60)
    command = ["run", "examples/my_recipe.toml", "--target", "examples/my_target.toml", "--set", "train.epochs=25"]
    said = karui(*command)
    assert said.status == 5, said.err  # 24 test pictures cannot show that int8 loses less than 2 pp
    assert "≈ my-board: ship ONNX" in said.out
    assert re.search(r"a test split of about \d+ samples would settle accuracy drop \(int8\)", said.out)
    # the command to type next is the one that was typed, not a name that no catalogue holds
    assert f"karui {' '.join(command)} --target host" in said.out
    again = karui(*command, "--json", "--quiet")
    assert again.err == ""
    document = json.loads(again.out)
    assert [target["name"] for target in document["targets"]] == ["my-board"]
    assert document["comparison"]["accuracy_float"] > 0.8
    for artifact in document["artifacts"].values():
        assert Path(artifact["path"]).stat().st_size == artifact["size_bytes"]
    assert "recalled" in karui(*command).err.splitlines()[-1]  # the report too, though printed in another way before


def test_every_file_of_the_example_explains_itself() -> None:
    for path in EXAMPLES.iterdir():
        if path.suffix in (".toml", ".py"):
            text = path.read_text()
            assert text.startswith(("#", '"""')), path.name
            assert max(map(len, text.splitlines())) < 160, path.name


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rgb_folders_with_awkward_names_and_mobilenet(karui: Karui) -> None:
    names = ["[bold red]cat", 'dög "x"', "it's <b>"]
    draw(karui.folder / "pictures", names, 20)
    karui.picture_card(title="<script>alert(1)</script> [bold]x[/bold]")
    karui.recipe(data="pictures-card.toml", network="mobilenet_v2", options="width = 0.25")
    said = karui("run", "mine.toml", "--until", "export", "--set", "quantize.method=ptq")
    assert said.status == 0, said.err
    assert {file.variant.key for file in outcome("mine").files} == {
        "onnx-fp32",
        "onnx-int8",
        "tflite-fp32",
        "tflite-int8",
    }
    assert outcome("mine").network.output_channels == 3
    assert "Conv" in karui("show", "mine").out


def test_class_names_reach_the_report_as_text(karui: Karui) -> None:
    draw(karui.folder / "pictures", ["<b>cat", "[red]dög"], 40, side=8)
    karui.picture_card(side=8, title="<script>alert(1)</script>")
    karui.recipe(data="pictures-card.toml")
    said = karui("run", "mine.toml", "--set", "quantize.method=none", "--set", "train.epochs=20")
    assert said.status == 0, said.err
    page = Path("runs/mine/report.html").read_text()
    assert "&lt;b&gt;cat" in page
    assert "[red]dög" in page
    assert "<script>alert" not in page
    assert "<b>cat" not in page


def test_a_csv_table_with_the_perceptron(karui: Karui) -> None:
    random = np.random.default_rng(0)
    rows = ["height,species,weight"]
    for number in range(90):
        height, weight = random.normal(3 * (number % 3), 0.2, 2)
        rows.append(f"{height:.3f},{('ant', 'bee', 'käfer')[number % 3]},{weight:.3f}")
    karui.write("insects.csv", "\n".join(rows))
    karui.write(
        "insects.toml",
        'name = "insects"\ntitle = "Insects"\nkind = "csv"\nlabel_column = "species"\n'
        '[files.all]\npath = "insects.csv"\n[input]\nshape = [2]\n',
    )
    karui.recipe(data="insects.toml", options='hidden = "16"')
    # 60 rows in batches of 4 for 12 epochs: clusters 15 standard deviations apart are learned
    faster = ("--set", "train.epochs=12", "--set", "train.batch_size=4", "--set", "train.learning_rate=0.02")
    said = karui("run", "mine.toml", "--until", "export", *faster)
    assert said.status == 0, said.err
    trained = outcome("mine").trained
    assert trained is not None
    assert trained.val_metric > 0.8
    assert outcome("mine").network.output_channels == 3


def test_an_npz_keeps_its_own_splits(karui: Karui) -> None:
    x, y = squares(150, 3)
    karui.npz_card(
        {
            f"{axis}_{split}": values[part]
            for axis, values in (("x", x), ("y", y))
            for split, part in (("train", slice(90)), ("val", slice(90, 120)), ("test", slice(120, 150)))
        }
    )
    karui.recipe(data="set-card.toml", options='hidden = "16"')
    said = karui("run", "mine.toml", "--set", "quantize.method=none", "--set", "train.epochs=20", "--json")
    assert said.status == 0, said.err
    assert outcome("mine").facts.samples == {"train": 90, "val": 30, "test": 30}
    assert outcome("mine").predicted[0].answered.samples == 30


@pytest.mark.parametrize("classes", [2, 100])
def test_few_and_many_classes(classes: int, karui: Karui) -> None:
    x, y = squares(6 * classes if classes == 100 else 60, classes)
    karui.npz_card({"x": x, "y": y}, more="" if classes == 2 else f"classes = {[f'c{k}' for k in range(classes)]}\n")
    karui.recipe(data="set-card.toml", network="cnn", options="width = 8, stages = 1, convs_per_stage = 1")
    splits = "[split]\nval = 0.2\ntest = 0.2\n"
    card = karui.folder / "set-card.toml"
    card.write_text(card.read_text() + splits)
    said = karui("run", "mine.toml", "--until", "export")
    assert said.status == 0, said.err
    assert all(file.signature.output.shape == (classes,) for file in outcome("mine").files)


# ── starts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _save_npz(weights: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in weights.items()})  # type: ignore[arg-type]  # NumPy's stubs take any keyword for allow_pickle


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "w.safetensors": safetensors.torch.save_file,
    "w.npz": _save_npz,
    "w.pt": lambda weights, path: torch.save({"epoch": 3, "state_dict": weights}, path),
}


def _trained(karui: Karui, classes: int = 3, name: str = "first") -> dict[str, Tensor]:
    """Train a perceptron on squares; return its weights."""
    x, y = squares(40 * classes, classes)
    karui.npz_card({"x": x, "y": y}, name=f"{name}-set")
    karui.recipe(name, data=f"{name}-set-card.toml", options='hidden = "16"')
    assert karui("run", f"{name}.toml", "--until", "train", "--set", "train.epochs=8").status == 0
    checkpoint = outcome(name).trained
    assert checkpoint is not None
    assert build_network(checkpoint.network, seed=0)
    return safetensors.torch.load((cache_of(Path("runs") / name) / "store" / checkpoint.weights).read_bytes())


@pytest.mark.parametrize("file", WRITERS)
def test_starts_from_a_weights_file(file: str, karui: Karui) -> None:
    WRITERS[file](_trained(karui), karui.folder / file)
    start = ("--set", f"finetune.start=weights:{file}", "--set", "finetune.train.learning_rate=1e-9")
    said = karui("run", "first.toml", "--until", "finetune", *NO_COMPARISON, *start)
    assert said.status == 0, said.err
    finetuned = outcome("first").finetuned
    assert finetuned is not None
    assert finetuned.checkpoint.val_metric > 0.9  # of the file: the learning rate moves nothing
    assert finetuned.replaced_head == ()


def test_starts_from_a_run_with_other_classes(karui: Karui) -> None:
    _trained(karui)
    _trained(karui, classes=4, name="second")
    said = karui("run", "second.toml", "--until", "finetune", *NO_COMPARISON, "--set", "finetune.start=run:first")
    assert said.status == 0, said.err
    assert "from run:first, new fc.weight, fc.bias" in said.err


# ── places ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NETWORK = """
from torch import nn
def build(input_shape, classes, *, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, width), nn.ReLU(), nn.Linear(width, classes))
"""


def test_paths_start_at_the_recipe_whatever_they_are_called(karui: Karui, monkeypatch: pytest.MonkeyPatch) -> None:
    home = "my \"prö'ject"
    draw(karui.folder / home / "pictures", ["a", "b"], 20, side=8)
    karui.picture_card(side=8).rename(karui.folder / home / "my cärd.toml")
    karui.write(f"{home}/net works/nét.py", NETWORK)
    karui.recipe("mine", data="my cärd.toml", network="net works/nét.py", options="width = 12").rename(
        karui.folder / home / "my recipe.toml"
    )
    (karui.folder / "elsewhere").mkdir()
    monkeypatch.chdir(karui.folder / "elsewhere")
    out = 'out ü "q"'
    said = karui("run", f"../{home}/my recipe.toml", "--out", out, "--until", "export")
    assert said.status == 0, said.err
    assert sorted(path.name for path in Path(out).glob("*.onnx")) == ["mine.fp32.onnx", "mine.int8.onnx"]
    assert karui("show", out).status == 0
    monkeypatch.chdir(karui.folder)
    again = karui("run", f"{home}/my recipe.toml", "--out", f"elsewhere/{out}", "--until", "export")
    assert all("recalled" in line for line in again.err.splitlines()), again.err


def test_one_file_in_the_working_folder_joins_the_catalogue(karui: Karui) -> None:
    karui.recipe("mine").rename(karui.write("models/mine.toml", ""))
    karui.write("models/networks/wee.py", NETWORK.replace("3 * 8 * 8", "64"))
    karui.write("targets/board.toml", PI_4.replace('"raspberry-pi-4b"', '"board"').replace('"raspberry-pi-4"', '"brd"'))
    assert "mine" in karui("list", "recipes").out.split()
    assert "also brd" in karui("list", "targets").out
    said = karui("run", "mine", "--target", "brd", "--set", "network={file='wee'}", "--set", "quantize.method=none")
    assert said.status == 0, said.err
    assert [target.target for target in outcome("mine").targets] == ["board"]


def test_a_recipe_file_is_offered_for_its_name(karui: Karui) -> None:
    karui.recipe("mine")
    karui("run", "mine").refused(2, "did you mean the file 'mine.toml'?")


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_aliases_count_once_and_own_targets_bring_their_weight_bits(karui: Karui) -> None:
    own = PI_4.replace('"raspberry-pi-4b"', '"narrow"').replace('aliases = ["raspberry-pi-4"]', "weight_bits = 7")
    karui.write('my böard "x".toml', own)
    karui.recipe(options='hidden = "8"')
    targets = ("raspberry-pi-4", "raspberry-pi-4b", 'my böard "x".toml')
    said = karui("run", "mine.toml", "--until", "export", *(word for name in targets for word in ("--target", name)))
    assert said.status == 0, said.err
    assert set(outcome("mine").quantized) == {7, 8}
    assert Path("runs/mine/mine.int8-w7.onnx").is_file()


def test_two_targets_of_one_name_are_refused(karui: Karui) -> None:
    karui.write("other.toml", PI_4.replace('"8 MiB"', '"1 MiB"'))
    karui.recipe()
    said = karui("run", "mine.toml", "--target", "raspberry-pi-4", "--target", "other.toml")
    said.refused(2, "--target: two different targets are called 'raspberry-pi-4b'")
    assert not Path("runs").exists()
