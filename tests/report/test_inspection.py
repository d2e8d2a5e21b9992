"""How a network is shown: on a terminal of any kind, as JSON, as a chart."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from pipeline.artifacts.evidence import Interval
from pipeline.inspecting.advice import advised
from pipeline.inspecting.layers import Advice, Inspected
from pipeline.inspecting.network import inspect_network
from pipeline.inspecting.timed import OnTarget, Timed
from pipeline.report.inspection import inspected_json, inspected_svg, print_inspected
from tests import learnable
from tests.inspecting.test_network import Residual


@pytest.fixture(scope="module")
def found() -> Inspected:
    return advised(inspect_network(Residual(), learnable.SHAPE, subject="mine"))


def printed(found: Inspected, width: int = 100, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_inspected(found, Console(file=stream, width=width, highlight=False))
    stream.seek(0)
    return stream.read()


def test_the_table_has_a_line_for_every_layer_and_a_chart(found: Inspected) -> None:
    lines = printed(found).splitlines()
    first = next(line for line in lines if line.startswith("first"))
    assert first.split() == [
        "first",
        "Conv",
        "8×8×8",
        "224",
        "13.8",
        "k",
        "████████████",
        "512",
        "B",
        "1.2",
        "KiB",
        "int8",
    ]
    names = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert [layer.name for layer in found.layers] == [name for name in names if name in {x.name for x in found.layers}]


def test_totals_and_reasons_stand_below(found: Inspected) -> None:
    text = printed(found)
    assert f"{len(found.layers)} layers, 412 parameters; 18.5 k MACs, 496 B of weights" in text
    assert f"{len(found.layers) - 1} of {len(found.layers)} layers would run on 8-bit integers" in text
    assert "float: Softplus in act: no runtime has an integer kernel for it" in text


def test_advice_names_its_layer_and_what_to_do(found: Inspected) -> None:
    text = printed(replace(found, advice=(Advice(layer="first", what="is odd", remedy="mend it"),)))
    assert "! first: is odd\n  mend it" in text


def there(found: Inspected) -> OnTarget:
    """Return times that are easy to find again."""
    timed = Timed(
        target="mine", precision="int8", runtime="litert", instructions=1.25e6,
        latency_ms=Interval(value=0.5, low=0.25, high=1.0), basis="for a reason",
        layers_ms=(0.123, *(0.0 for _ in found.layers[1:])), rest_ms=0.377,
    )  # fmt: skip
    return OnTarget(target="mine", timed=(timed,))


def test_times_stand_beside_layers_and_their_sum_below(found: Inspected) -> None:
    stream = io.StringIO()
    nowhere = OnTarget(target="other", timed=(), why_not="nobody knows")
    print_inspected(found, Console(file=stream, width=110, highlight=False), [there(found), nowhere])
    lines = stream.getvalue().splitlines()
    assert next(line for line in lines if line.startswith("first")).split()[-2:] == ["int8", "0.123"]
    assert next(line for line in lines if line.startswith("fc")).split()[-1] == "int8"  # nothing of its own: no number
    said = "mine, int8 in litert: 0.500 ms (0.250–1.00, estimated from about 1.25 M instructions; for a reason)"
    assert said in lines
    assert "other: no estimate: nobody knows" in lines


def test_times_stand_in_json_and_chart(found: Inspected) -> None:
    (target,) = json.loads(inspected_json(found, [there(found)]))["targets"]
    assert (target["target"], target["timed"][0]["latency_ms"]["low"]) == ("mine", 0.25)
    assert "ms, int8" in inspected_svg(found, [there(found)])


@pytest.mark.parametrize(("width", "encoding"), [(80, "utf-8"), (40, "utf-8"), (100, "ascii")])
def test_every_terminal_shows_it(found: Inspected, width: int, encoding: str) -> None:
    text = printed(found, width, encoding)
    assert "Softplus" in text
    assert max(map(len, text.splitlines())) <= width


def test_json_has_everything(found: Inspected) -> None:
    document = json.loads(inspected_json(found))
    assert (document["subject"], document["kind"], document["input_shapes"]) == ("mine", "network", [[3, 8, 8]])
    assert document["parameters"] == sum(layer["parameters"] for layer in document["layers"]) == 412
    assert document["macs"] == found.macs
    assert document["layers"][0] | {"peak_bytes": 0} == {
        "name": "first",
        "op": "Conv",
        "output_shape": [8, 8, 8],
        "parameters": 224,
        "macs": 13824,
        "activation_bytes": 512,
        "peak_bytes": 0,
        "integer": True,
        "why_float": "",
        "channels": 8,
        "squashes": False,
    }


def test_the_chart_is_an_svg_file_with_every_costly_layer(found: Inspected) -> None:
    odd = replace(found, layers=(replace(found.layers[0], name="<first>"), *found.layers[1:]))
    text = inspected_svg(odd)
    root = ET.fromstring(text)  # noqa: S314  (made here)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    said = "".join(root.itertext())
    assert all(f"{layer.name} ({layer.op})" in said for layer in odd.layers if layer.macs)
    assert "<style>svg { --ink: #101011" in text
    assert inspected_svg(odd) == text
