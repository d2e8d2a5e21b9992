"""The onnx package's own node cases through import, flat graph and ONNX file: right, wrong or refused, per operation.

python bench/bench_onnx_nodes.py [OPERATION …] [--json]

A case counts where it is decidable: one output of real numbers, and an input of real numbers, which is what is
computed; all other inputs become constants of the file.  A case whose input has a first axis of one element is a
network for samples; of any other, the whole input is one sample.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.errors import KaruiError
from pipeline.networks.from_onnx import network_from
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.onnx import ONNX
from pipeline.networks.onnx.linear import LINEAR
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import exact_session

Array = NDArray[Any]
_TOLERANCE = 1e-3  # of the largest output; the cases' own is as wide
# no two results are the same
_SEEDED = frozenset({"Bernoulli", "RandomUniformLike", "RandomNormalLike", "Multinomial"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """A node with what goes in and what comes out."""

    name: str
    op: str
    model: onnx.ModelProto
    computed: Array
    expected: Array


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of a case."""

    case: Case
    onnx: str  # right, wrong or refused
    tflite: str
    why: str = ""


def cases() -> Iterator[Case]:
    """Return all decidable cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415  it computes them all

        found = collect_testcases(None)
    for each in found:
        if each.model is not None and (case := _decidable(each.name, each.model, each.data_sets)):
            yield case


def _decidable(name: str, model: onnx.ModelProto, data_sets: Any) -> Case | None:
    given, expected = data_sets[0] if data_sets else ([], [])
    arrays = [each for each in (*given, *expected) if isinstance(each, np.ndarray | np.generic)]
    if len(arrays) != len(given) + len(expected) or len(expected) != 1 or np.asarray(expected[0]).dtype != np.float32:
        return None
    if any(np.asarray(each).dtype.kind not in "fiub" for each in arrays):
        return None
    places = [place for place, each in enumerate(given) if np.asarray(each).dtype == np.float32]
    ops = {node.op_type for node in model.graph.node}
    if not places or ops & _SEEDED or len(given) != len(model.graph.input):
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.input[:]
    for place, (info, value) in enumerate(zip(model.graph.input, given, strict=True)):
        if place == places[0]:
            changed.graph.input.append(info)
        else:
            changed.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
    op = model.graph.node[0].op_type if len(model.graph.node) == 1 else "(written out)"
    computed, result = np.asarray(given[places[0]]), np.asarray(expected[0])
    return Case(name=name, op=op, model=changed, computed=computed, expected=result)


def judged(case: Case, folder: Path) -> Found:
    """Take a case all the way."""
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    whole = case.computed.shape[:1] != (1,)
    try:
        network = network_from(path, whole=whole)
        written = write_onnx(folded_graph(network, network.sample_shape), name="case")
    except KaruiError as error:
        return Found(case=case, onnx="refused", tflite="", why=str(error).replace("\n", " ")[:300])
    except Exception as error:  # noqa: BLE001  a bug, to be told and counted
        return Found(case=case, onnx="wrong", tflite="", why=f"{type(error).__name__}: {error}"[:300])
    samples = case.computed[None] if whole else case.computed
    if network.order is not None:
        samples = samples.transpose(np.argsort(network.order))
    (y,) = exact_session(to_bytes(written)).run(None, {"input": samples.astype(np.float32)})
    return Found(case=case, onnx=_verdict(case, y), tflite=_in_tflite(case, written, samples))


def _verdict(case: Case, found: Array) -> str:
    expected = case.expected.astype(np.float64)
    if found.size != expected.size:
        return "wrong"
    found = found.reshape(expected.shape)
    finite = np.isfinite(expected)
    if not np.array_equal(np.isnan(found), np.isnan(expected)):
        return "wrong"
    scale = max(1e-3, float(np.abs(expected[finite]).max())) if finite.any() else 1.0
    near = np.abs(found - expected)[finite] <= _TOLERANCE * scale
    return "right" if near.all() else "wrong"


def _in_tflite(case: Case, written: onnx.ModelProto, samples: Array) -> str:
    try:
        content = write_tflite(written)
    except KaruiError:
        return "refused"
    runner = Interpreter(model_content=content, num_threads=1)
    (given,) = runner.get_input_details()
    shape = list(given["shape"])
    turned = samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples
    if len(shape) != turned.ndim:
        turned = samples.reshape(len(samples), *shape[1:])
    runner.resize_tensor_input(given["index"], turned.shape)
    runner.allocate_tensors()
    runner.set_tensor(given["index"], np.ascontiguousarray(turned, np.float32))
    runner.invoke()
    y = runner.get_tensor(runner.get_output_details()[0]["index"])
    return _verdict(case, y.transpose(0, 3, 1, 2) if y.ndim == 4 else y)


def main() -> None:
    """Print one line per operation, and what all come to."""
    only = [each for each in sys.argv[1:] if not each.startswith("-")]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [judged(case, Path(folder)) for case in cases() if not only or case.op in only]
    if "--json" in sys.argv:
        fields = ("onnx", "tflite", "why")
        rows = [{"case": e.case.name, "op": e.case.op} | {name: getattr(e, name) for name in fields} for e in found]
        print(json.dumps(rows))
        return
    by_op = defaultdict[str, list[Found]](list)
    for each in found:
        by_op[each.case.op].append(each)
    print(f"{'operation':28}{'right':>7}{'wrong':>7}{'refused':>9}{'TFLite':>8}")
    for op, some in sorted(by_op.items()):
        counts = Counter(each.onnx for each in some)
        print(
            f"{op:28}{counts['right']:>7}{counts['wrong']:>7}{counts['refused']:>9}"
            f"{sum(each.tflite == 'right' for each in some):>8}"
        )
        if only or counts["wrong"]:
            for each in some:
                if each.onnx != "right" or each.tflite == "wrong":
                    print(f"    {each.case.name}: {each.onnx} {each.tflite} {each.why}")
    counts = Counter(each.onnx for each in found)
    known = [each for each in found if each.case.op in {*ONNX, *LINEAR}]
    right = [each for each in found if each.onnx == "right"]
    both = sum(each.tflite == "right" for each in right)
    print(
        f"\n{len(found)} decidable cases: {counts['right']} right, {counts['wrong']} wrong, {counts['refused']} refused"
    )
    print(f"of supported operations: {sum(each.onnx == 'right' for each in known)} of {len(known)} right")
    print(f"TFLite: {both} of {len(right)} right, {sum(each.tflite == 'wrong' for each in found)} wrong")


if __name__ == "__main__":
    main()
