"""An ONNX file in a recipe: found, told apart by its bytes, built with its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.artifacts.networks import NetworkRef
from pipeline.catalog import network_ref
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.errors import ConfigError, ModelError
from pipeline.networks.build import build_network
from pipeline.onboard.arrays import Signature, TensorSpec
from tests.networks.onnx.test_files import with_external
from tests.networks.onnx.written import model, node, random, write

SIGNATURE = Signature(
    inputs=(TensorSpec("input", "float32", (4, 6, 8), "CHW"),), outputs=(TensorSpec("output", "float32", (5,), "K"),)
)


def classifier(folder: Path, *, bias: float = 0.0) -> Path:
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "c"),
        node("Flatten", "c", "d"),
        node("Gemm", "d v u", "y"),
    ]
    constants = {"w": random(6, 4, 3, 3), "v": random(6, 5), "u": random(5) + bias}
    return write(model(nodes, ("N", 4, 6, 8), constants), folder)


def ref(path: Path, **options: str) -> NetworkRef:
    return network_ref(NetworkSpec(file=path.name, options=dict(options)), beside=path.parent, signature=SIGNATURE)


def test_a_recipe_names_the_file_alone() -> None:
    recipe = Recipe.model_validate({"name": "r", "data": "digits", "network": "net.onnx"})
    assert recipe.network == NetworkSpec(file="net.onnx")


def test_it_comes_with_its_weights(tmp_path: Path) -> None:
    network = build_network(ref(classifier(tmp_path)), seed=0)
    other = build_network(ref(tmp_path / "net.onnx"), seed=1)
    x = torch.rand(3, 4, 6, 8)
    torch.testing.assert_close(network(x), other(x))
    assert network.training
    assert all(mine is not others for mine, others in zip(network.parameters(), other.parameters(), strict=True))


def test_other_bytes_are_another_network(tmp_path: Path) -> None:
    first = ref(classifier(tmp_path))
    second = ref(classifier(tmp_path, bias=1.0))
    assert first.sha256 != second.sha256
    with pytest.raises(ModelError, match="has changed since it was read"):
        build_network(first, seed=0)
    build_network(second, seed=0)


def test_data_beside_the_file_count(tmp_path: Path) -> None:
    weights = tmp_path / "net.data"
    weights.write_bytes(random(6, 4, 3, 3).tobytes())
    (tmp_path / "other.bin").write_bytes(b"1")
    before = ref(with_external(tmp_path, "net.data"))
    assert list(before.imports) == ["net.data"]
    weights.write_bytes(random(6, 4, 3, 3, seed=1).tobytes())
    assert ref(tmp_path / "net.onnx").imports != before.imports
    maps = replace(SIGNATURE, outputs=(TensorSpec("output", "float32", (6, 4, 6), "KHW"),))
    with pytest.raises(ModelError, match=r"net\.data: the network file has changed"):
        build_network(replace(before, signature=maps), seed=0)


def test_classes_that_differ_are_told(tmp_path: Path) -> None:
    three = replace(SIGNATURE, outputs=(TensorSpec("output", "float32", (3,), "K"),))
    with pytest.raises(ModelError, match=r"gives \(5,\) for each sample, and the data ask for \(3,\)"):
        build_network(replace(ref(classifier(tmp_path)), signature=three), seed=0)


def test_options_that_it_does_not_have_are_refused(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    with pytest.raises(ModelError, match="has no option 'outptu'; did you mean 'output'"):
        build_network(ref(path, outptu="y"), seed=0)
    with pytest.raises(ModelError, match="has no output 'z'"):
        build_network(ref(path, output="z"), seed=0)
    with pytest.raises(ConfigError, match=r"no file 'none.onnx'"):
        network_ref(NetworkSpec(file="none.onnx"), beside=tmp_path, signature=SIGNATURE)
