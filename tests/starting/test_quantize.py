"""``karui quantize``: a model file and samples of all kinds become a recipe, a card, and a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.catalog import load_card, load_recipe
from pipeline.data.load import load, reference
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.starting.models import Quantizing, quantizing
from tests.networks.onnx.written import Array, model, node, random, two_ends
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

SHAPE = (3, 8, 8)
CLASSES = 3


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network(shape: tuple[int | str, ...] = ("N", *SHAPE), *, flat: bool = True) -> Path:
    """Write a classifier, or a network that gives maps."""
    nodes = [node("Conv", "x w", "a" if flat else "y"), node("Relu", "a", "b"), node("GlobalAveragePool", "b", "c")]
    nodes += [node("Flatten", "c", "d"), node("Gemm", "d v", "y")]
    constants = {"w": random(6, 3, 3, 3), "v": random(6, CLASSES)}
    path = Path("Net v2.onnx")
    path.write_bytes(model(nodes if flat else nodes[:1], shape, constants).SerializeToString())
    return path


def samples(count: int = 30, *, shape: tuple[int, ...] = SHAPE, **arrays: Any) -> str:
    np.savez("some.npz", x=random(count, *shape), **arrays)
    return "some.npz"


def pictures(folder: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (12, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)


def written(made: Quantizing) -> dict[str, Array]:
    """Write the files, and return what the card's data set holds for training."""
    made.write()
    recipe, folder = load_recipe(str(made.recipe))
    assert recipe.train.epochs == 0
    assert recipe.quantize.method == "ptq"
    assert Path(recipe.network.file).resolve() == Path("Net v2.onnx").resolve()
    card, beside = load_card(recipe.data, folder)
    data = load(reference(card, beside))
    assert min(len(data.train), len(data.val), len(data.test)) > 0
    batch = data.train.read(np.arange(len(data.train)))
    return {**batch.inputs, **batch.wanted}


def test_samples_without_labels_are_labelled_by_the_network() -> None:
    made = quantizing(network(), samples())
    held = written(made)
    assert held["output"].shape[1:] == (CLASSES,)
    assert set(made.files) == {Path("net-v2.toml"), Path("net-v2-data.toml"), Path("net-v2-samples.npz")}
    assert any("without labels" in each for each in made.said)
    assert made.in_the_way == ()  # the same command again writes the same
    assert quantizing(network(), samples()).files == made.files


def test_outputs_may_have_any_shape() -> None:
    assert written(quantizing(network(flat=False), samples()))["output"].shape[1:] == (6, 6, 6)


def test_labels_that_fit_are_used() -> None:
    made = quantizing(network(), samples(labels=np.arange(30) % CLASSES))
    assert set(written(made)) == {"input", "class"}
    assert [path.suffix for path in made.files] == [".toml", ".toml"]


def test_numbers_that_fit_are_used() -> None:
    assert set(written(quantizing(network(), samples(y=random(30, CLASSES))))) == {"input", "number"}


@pytest.mark.parametrize("labels", [np.arange(30) % 7, np.zeros(30, np.int64), random(30, 2)])
def test_labels_that_do_not_fit_are_told(labels: Array) -> None:
    made = quantizing(network(), samples(y=labels))
    assert "output" in written(made)
    assert any("labels do not fit the network's 3" in each for each in made.said)


def test_channels_last_are_turned() -> None:
    held = written(quantizing(network(), samples(shape=(8, 8, 3))))
    assert held["input"].shape[1:] == SHAPE


def test_a_folder_of_classes_is_a_card_of_pictures() -> None:
    pictures("pics", [f"{name}/{number}.png" for name in "abc" for number in range(6)])
    held = written(quantizing(network(), "pics"))
    assert held["input"].shape[1:] == SHAPE
    assert set(held) == {"input", "class"}


@pytest.mark.parametrize("names", [[f"{n}.png" for n in range(12)], [f"{n % 2}/{n}.png" for n in range(12)]])
def test_other_pictures_are_samples_without_labels(names: list[str]) -> None:
    pictures("pics", names)
    made = quantizing(network(), "pics")
    assert written(made)["input"].dtype == np.uint8
    assert any("0 … 1" in each for each in made.said)


def test_a_card_is_taken_as_it_is() -> None:
    Path("mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\nkind = "npz"\n[files.all]\npath = "some.npz"\n[input]\nshape = [3, 8, 8]\n'
    )
    samples(y=np.arange(30) % CLASSES)
    made = quantizing(network(("N", 3, "H", "W")), "mine.toml")  # the card says the size
    assert list(made.files) == [Path("net-v2.toml")]
    assert set(written(made)) == {"input", "class"}


def test_several_inputs_come_by_their_names() -> None:
    Path("Net v2.onnx").write_bytes(two_ends().SerializeToString())
    np.savez("two.npz", x=random(30, *SHAPE), side=random(30, 4))
    made = quantizing(Path("Net v2.onnx"), "two.npz")
    held = written(made)
    assert {name: each.shape[1:] for name, each in held.items()} == {
        "x_in": SHAPE,
        "side": (4,),
        "output": (CLASSES + 2 * 8 * 8,),
    }
    card = load_card(str(Path("net-v2-data.toml")))[0]
    assert dict(card.outputs) == {"scores": (3,), "map": (2, 8, 8)}
    with pytest.raises(ConfigError, match="holds no array 'side', found x") as caught:
        quantizing(Path("Net v2.onnx"), samples())
    assert "x_in (N, 3, 8, 8), side (N, 4)" in caught.value.remedy
    np.savez("two.npz", x=random(30, *SHAPE), side=random(29, 4))
    with pytest.raises(DataError, match="30 of x_in, 29 of side"):
        quantizing(Path("Net v2.onnx"), "two.npz")


def test_one_of_several_outputs_may_have_labels() -> None:
    Path("Net v2.onnx").write_bytes(two_ends().SerializeToString())
    np.savez("two.npz", x=random(30, *SHAPE), side=random(30, 4), y=np.arange(30) % CLASSES)
    all_of_them = quantizing(Path("Net v2.onnx"), "two.npz")
    assert any("say which one they are for: --output NAME" in each for each in all_of_them.said)
    held = written(quantizing(Path("Net v2.onnx"), "two.npz", output="scores"))
    assert set(held) == {"x_in", "side", "class"}


def test_epochs_train_towards_the_float_network() -> None:
    made = quantizing(network(), samples(), epochs=2)
    made.write()
    recipe, _ = load_recipe(str(made.recipe))
    assert (recipe.train.epochs, recipe.quantize.method, recipe.quantize.epochs) == (0, "qat", 2)
    assert "the float network is the teacher" in made.recipe.read_text()
    quantizing(network(), samples(labels=np.arange(30) % CLASSES), epochs=2).write()
    assert "the float network is the teacher" not in made.recipe.read_text()


def test_free_axes_are_said() -> None:
    path = network(("N", 3, "H", "W"))
    with pytest.raises(ModelError, match="free axes"):
        quantizing(path, samples())
    assert "output" in written(quantizing(path, samples(), shapes={"x": (1, *SHAPE)}))
    with pytest.raises(ConfigError, match="has no input 'images'; it has x"):
        quantizing(path, samples(), shapes={"images": (1, *SHAPE)})


def test_what_is_no_data_is_refused() -> None:
    path = network()
    with pytest.raises(ConfigError, match="there is no 'nothing'"):
        quantizing(path, "nothing")
    with pytest.raises(DataError, match="4 samples, expected at least 8"):
        quantizing(path, samples(4))
    with pytest.raises(DataError, match=r"samples have the shape \(3, 9, 9\), and the network takes \(3, 8, 8\)"):
        quantizing(path, samples(shape=(3, 9, 9)))
    Path("net.txt").write_text("x")
    with pytest.raises(ConfigError, match="no kind of samples"):
        quantizing(path, "net.txt")


def test_the_command_runs_it_to_a_verdict(karui: Karui) -> None:
    path = network()
    data = samples(60)
    said = karui("quantize", str(path), "--data", data, "--json", "--target", "host", "--allow-open")
    assert said.status in (0, 3), said.err
    assert json.loads(said.out)["task"] == "agreement"
    assert list(Path("runs/net-v2").glob("net-v2.int8*.tflite"))
    Path("net-v2.toml").write_text("")
    karui("quantize", str(path), "--data", data).refused(2, "net-v2.toml is there already")
    karui("quantize", str(path), "--data", data, "--input", "x=a").refused(2, "is no shape")
