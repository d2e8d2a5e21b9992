"""What can be inspected: files, recipes, networks by file, catalogue name, module and package."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, KaruiError, ModelError
from pipeline.inspecting.subject import Asked, inspect
from tests import learnable
from tests.networks.test_zoo import needs


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(learnable.CONVOLUTIONAL, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("subject", "shape", "last"),
    [
        ("mine.py", (3, 32, 32), 10),
        ("./mine.py", (3, 32, 32), 10),
        ("mine:build", (3, 32, 32), 10),
        ("cnn", (3, 32, 32), 10),
        ("digits", (1, 8, 8), 10),
    ],
)
def test_every_way_to_name_a_network(subject: str, shape: tuple[int, ...], last: int) -> None:
    found = inspect(Asked(subject=subject))
    assert (found.subject, found.kind, found.input_shapes) == (subject, "network", (shape,))
    assert found.layers[-1].output_shape == (last,)


def test_shape_and_classes_are_those_that_are_asked_for() -> None:
    found = inspect(Asked(subject="mine.py", shape=(1, 12, 12), classes=3))
    assert found.layers[0].macs == 8 * 144 * 9
    assert found.layers[-1].output_shape == (3,)


def test_a_recipe_brings_its_own_network_and_card(work: Path) -> None:
    (work / "own").mkdir()
    (work / "own/net.py").write_text(learnable.CONVOLUTIONAL, encoding="utf-8")
    recipe = 'name = "own"\ndata = "card.toml"\n[network]\nfile = "net.py"\noptions = {width = 16}\n'
    (work / "own/recipe.toml").write_text(recipe, encoding="utf-8")
    card = 'name = "c"\ntitle = "c"\nkind = "npz"\nclasses = ["a", "b"]\n[input]\nshape = [1, 9, 9]\n'
    (work / "own/card.toml").write_text(card, encoding="utf-8")
    found = inspect(Asked(subject="own/recipe.toml"))
    assert found.input_shapes == ((1, 9, 9),)
    assert [layer.channels for layer in found.layers if layer.channels] == [16, 16, 2]


def test_a_network_whose_weights_decide_something_is_made_in_earnest(work: Path) -> None:
    code = learnable.CONVOLUTIONAL.replace("return Small(", "float(nn.Linear(2, 2).weight.sum()); return Small(")
    (work / "mine.py").write_text(code, encoding="utf-8")
    assert inspect(Asked(subject="mine.py")).layers[-1].output_shape == (10,)


@pytest.mark.parametrize(
    ("subject", "kind", "what"),
    [
        ("nothing.onnx", ConfigError, "no file 'nothing.onnx'"),
        ("nothing.py", ConfigError, "no file 'nothing.py'"),
        ("restnet", ConfigError, "no network is called 'restnet'; did you mean 'resnet'?"),
        ("karui_nowhere:build", ConfigError, "there is no module 'karui_nowhere'"),
        ("broken.py", ModelError, "build() raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_inspected(work: Path, subject: str, kind: type[KaruiError], what: str) -> None:
    (work / "broken.py").write_text("def build(input_shape, classes):\n    return 1 / 0\n", encoding="utf-8")
    with pytest.raises(kind) as caught:
        inspect(Asked(subject=subject))
    assert what in caught.value.what


def test_networks_of_packages_by_full_and_bare_name() -> None:
    needs("timm")
    found = [inspect(Asked(subject=name, shape=(3, 64, 64))) for name in ("timm:resnet10t", "resnet10t")]
    assert found[0].layers == found[1].layers
    assert found[0].macs > 10_000_000
