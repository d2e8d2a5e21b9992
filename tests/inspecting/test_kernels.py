"""Each kind of layer: what its kernels do is what was counted by hand, in the network as in both of its files."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import Precision
from pipeline.graph.costs import total_macs
from pipeline.inspecting.layers import Inspected
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.works import works_of
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import BESIDE_FLOAT, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.inspecting.kernels import Of
from tests.inspecting.other_kernels import OTHERS
from tests.inspecting.test_files import READERS
from tests.inspecting.weighted_kernels import CONVOLUTIONS, LINEARS

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
CASES = {**CONVOLUTIONS, **LINEARS, **OTHERS}
STEP_BY_STEP = {name for name in LINEARS if name.startswith(("an ", "a GRU", "the last"))}  # in TFLite files


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is found in a network and in its files."""

    network: Mapping[Precision, str]
    macs: int
    values: int  # that it gives
    files: Mapping[tuple[str, Precision], Inspected]


@functools.cache
def found(name: str) -> Found:
    """Write a network's files and read them."""
    case = CASES[name]
    torch.manual_seed(0)
    network = case.make().eval()
    folded = folded_graph(network, case.shape)
    prepared = prepare(folded, weight_bits=8)
    works = works_of(folded, prepared).values()
    calibrate(prepared, torch.randn(4, *case.shape), QuantizeSpec(calibration="min-max"))
    files: dict[tuple[str, Precision], Inspected] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, graph in zip(PRECISIONS, (folded, prepared.eval()), strict=True):
            model = write_onnx(graph, name="x")
            for file_format, content in (("onnx", to_bytes(model)), ("tflite", write_tflite(model))):
                path = Path(folder) / f"x.{file_format}"
                path.write_bytes(content)
                files[file_format, precision] = READERS[file_format](path)
    return Found(
        network={each: " | ".join(work.text for of_layer in works for work in of_layer[each]) for each in PRECISIONS},
        macs=total_macs(folded),
        values=network(torch.zeros(1, *case.shape)).numel(),
        files=files,
    )


def text(name: str, file_format: str, precision: Precision) -> str:
    """Return the kernels of a file; one without integers is float, whatever it was asked for."""
    layers = found(name).files[file_format, precision].layers
    quantized = any("int8" in layer.works for layer in layers)
    return " | ".join(work.text for layer in layers for work in layer.works[precision if quantized else "fp32"])


def wanted(name: str, source: str, precision: Precision) -> str:
    case = CASES[name]
    own: str = getattr(case, precision)
    return case.differs.get((source, precision), own)


def without_ends(words: str) -> str:
    return " | ".join(word for word in words.split(" | ") if "End8" not in word)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_a_network_has_the_kernels_that_were_counted_by_hand(name: str, precision: Precision) -> None:
    assert found(name).network[precision] == wanted(name, "network", precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_its_onnx_file_has_them_too(name: str, precision: Precision) -> None:
    assert text(name, "onnx", precision) == wanted(name, "onnx", precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [name for name in CASES if name not in STEP_BY_STEP])
def test_its_tflite_file_has_them_but_for_the_ends(name: str, precision: Precision) -> None:
    """Its ends are integers: whoever runs it converts."""
    assert text(name, "tflite", precision) == without_ends(wanted(name, "tflite", precision))


MORE_IN_TFLITE = {"transposed in groups"}  # weights of other groups are zeros, and multiplied


@pytest.mark.parametrize("name", [name for name in CASES if name not in MORE_IN_TFLITE])
def test_both_float_files_multiply_as_often_as_the_network(name: str) -> None:
    own = found(name)
    assert [own.files[file_format, "fp32"].macs for file_format in ("onnx", "tflite")] == [own.macs, own.macs]


@pytest.mark.parametrize("name", ["tokens", "tokens that end in a ReLU", "one token", "a row"])
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_all_layers_of_an_int8_file_run_on_integers_and_say_whose_values_they_make(name: str, file_format: str) -> None:
    """What joins rows with the batch, and parts them again, moves no values at all."""
    own = found(name)
    file = own.files[file_format, "int8"]
    assert [layer.why_float for layer in file.layers] == [""] * len(file.layers)
    assert math.prod(file.layers[-1].output_shape) == own.values
    assert file.macs == own.macs


@pytest.mark.parametrize("name", ["some of the channels", "of a volume", "tokens"])
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_memory_is_that_of_all_rows(name: str, file_format: str) -> None:
    """Also where a file's operators take them for samples."""
    layers = found(name).files[file_format, "fp32"].layers
    made = [layer for layer in layers if layer.works["fp32"]]
    assert [layer.activation_bytes for layer in made] == [4 * layer.works["fp32"][0].makes for layer in made]
    assert max(layer.peak_bytes for layer in layers) >= max(layer.activation_bytes for layer in layers)


def test_arithmetic_that_stays_float_is_said_to_be() -> None:
    """A sum that a norm reads has two quantized inputs, and no quantizer behind it."""
    torch.manual_seed(0)
    network = Of(
        lambda x, a, b, norm: norm(a(x) + b(x)),
        nn.Linear(16, 5, bias=False),
        nn.Linear(16, 5, bias=False),
        nn.LayerNorm(5),
    )
    rows = {layer.op: layer for layer in inspect_network(network, (7, 16), subject="x").layers}
    assert rows["Add"].why_float == BESIDE_FLOAT
    assert [work.text for work in rows["Add"].works["int8"]] == ["Dequantize8 r35 m35"] * 2 + ["Add r70 m35"]
