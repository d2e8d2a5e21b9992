"""Architectures that others wrote, taken through the graph, float and int8 files: what fails and what differs.

    python bench/bench_zoo.py LIST [--only NAME …] [--json] [--folder DIR]

LIST has one network a line: package, name, input shape (``timm resnet18 3x64x64``; 10 classes, random weights); ``#``
begins a comment.  The packages are installed beside karui without their dependencies:

    pip install --no-deps torchvision==0.28.0 timm==1.0.31 pytorchcv==0.0.74

Float files are compared with torch on random inputs, relative to the range of the outputs; int8 files are calibrated on
random inputs, and the frozen integers are compared with what ONNX Runtime and LiteRT give, in output steps.  Pruning
takes 30 % of the multiply-accumulates away, and the float ONNX file of what is left is compared with torch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import KaruiError
from pipeline.graph.costs import total_macs
from pipeline.graph.kinds import output_node
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.pruning import plan_for
from pipeline.onboard.session import open_session
from pipeline.quant.calibrate import calibrate
from pipeline.quant.grids import on_grid, quantizer_of
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes.executed import executed
from pipeline.tflite import write_tflite

_CLASSES = 10
_SAMPLES = 4
_FLOAT_LIMITS = {"onnx": 1e-4, "tflite": 1e-3}  # of the outputs' range
_PRUNED = 0.3  # share of the multiply-accumulates
_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(kw_only=True)
class Row:
    """What came out for one network."""

    package: str
    name: str
    shape: tuple[int, ...]
    nodes: int = 0
    float_error: dict[str, float] = field(default_factory=dict)  # format → of the outputs' range
    int8_steps: dict[str, float] = field(default_factory=dict)  # format → mean distance from the frozen integers
    integer_share: float | None = None  # of the nodes that ONNX Runtime executes
    pruned: float | None = None  # share of the multiply-accumulates that is gone
    pruned_error: float = 0.0  # of the pruned network's float ONNX file, of the outputs' range
    not_pruned: str = ""  # why
    seconds: float = 0.0
    refused: str = ""  # by which part, and why

    @property
    def right(self) -> bool:
        """Whether everything was built, and the float files compute what the network does."""
        close = all(self.float_error.get(each, 1.0) <= limit for each, limit in _FLOAT_LIMITS.items())
        return not self.refused and close and self.pruned_error <= _FLOAT_LIMITS["onnx"]


@click.command()
@click.argument("networks", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="Only networks whose name holds this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def main(networks: Path, only: tuple[str, ...], *, as_json: bool) -> None:
    """Take the networks of a list through everything."""
    torch.set_num_threads(1)
    rows = []
    for package, name, shape in _listed(networks):
        if only and not any(each in name for each in only):
            continue
        row = _taken(package, name, shape)
        rows.append(row)
        print(json.dumps(asdict(row)) if as_json else _line(row), flush=True)
    right = sum(row.right for row in rows)
    print(f"{right} of {len(rows)} right", file=sys.stderr)
    pruned = sum(row.pruned is not None for row in rows)
    print(f"{pruned} of {len(rows)} pruned by {_PRUNED:.0%} of their multiply-accumulates", file=sys.stderr)


def _listed(networks: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for line in networks.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            package, name, shape = line.split()[:3]
            yield package, name, tuple(int(side) for side in shape.split("x"))


def _line(row: Row) -> str:
    floats = " ".join(f"{name} {error:.1e}" for name, error in row.float_error.items())
    steps = " ".join(f"{name} {mean:.2f}" for name, mean in row.int8_steps.items())
    share = "" if row.integer_share is None else f"{100 * row.integer_share:.0f} % integer"
    sign = "ok" if row.right else "NO"
    pruned = f"pruned {100 * row.pruned:.0f} %" if row.pruned is not None else f"not pruned: {row.not_pruned}"
    words = [f"{row.package} {row.name}", f"{row.nodes} nodes", floats, f"steps {steps}", share, pruned]
    words.append(f"{row.seconds:.1f} s")
    return f"{sign} {' | '.join(words)}{' | ' if row.refused else ''}{row.refused}"


# ── one network ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _taken(package: str, name: str, shape: tuple[int, ...]) -> Row:
    row = Row(package=package, name=name, shape=shape)
    started = time.monotonic()
    part = "build"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(0)
            network = _built(package, name).eval()
        x = torch.randn(_SAMPLES, *shape, generator=torch.Generator().manual_seed(1))
        part = "graph"
        folded = folded_graph(network, shape)
        row.nodes = sum(node.op == "call_module" for node in folded.graph.nodes)
        with tempfile.TemporaryDirectory() as folder:
            part = "float files"
            _float_files(row, network, folded, x, Path(folder))
            part = "int8 files"
            _int8_files(row, folded, x, Path(folder))
            part = "pruned file"
            _pruned_file(row, network, x, Path(folder))
    except KaruiError as error:
        row.refused = f"{part}: {' '.join(str(error).split())}"[:400]
    except Exception as error:  # noqa: BLE001  (counts as a fault of its part; the rest goes on)
        row.refused = f"{part}: {type(error).__name__}: {' '.join(str(error).split())}"[:400]
    row.seconds = time.monotonic() - started
    return row


@functools.cache
def _declare_torchvision_ops() -> None:
    """Let torchvision be imported where its compiled part, which is built for CUDA, cannot be loaded."""
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it is there
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _built(package: str, name: str) -> nn.Module:
    _declare_torchvision_ops()
    if package == "torchvision":
        import torchvision  # noqa: PLC0415  (only what the list names has to be installed)

        return torchvision.models.get_model(name, num_classes=_CLASSES)  # type: ignore[no-any-return]
    if package == "timm":
        import timm  # noqa: PLC0415

        return timm.create_model(name, num_classes=_CLASSES)  # type: ignore[no-any-return]
    if package == "pytorchcv":
        from pytorchcv.model_provider import get_model  # noqa: PLC0415

        return get_model(name, num_classes=_CLASSES)  # type: ignore[no-any-return]
    from efficientnet_pytorch import EfficientNet  # noqa: PLC0415

    return EfficientNet.from_name(name, num_classes=_CLASSES)  # type: ignore[no-any-return]


@torch.no_grad()
def _float_files(row: Row, network: nn.Module, folded: fx.GraphModule, x: Tensor, folder: Path) -> None:
    wanted = network(x).numpy()
    span = float(wanted.max() - wanted.min()) or 1.0
    model = write_onnx(folded, name="float")
    for file_format, content in (("onnx", to_bytes(model)), ("tflite", write_tflite(model))):
        got = _run(folder / f"float.{file_format}", content, file_format, x)
        row.float_error[file_format] = float(np.abs(got - wanted).max()) / span


@torch.no_grad()
def _int8_files(row: Row, folded: fx.GraphModule, x: Tensor, folder: Path) -> None:
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    prepared.eval()
    frozen = freeze(prepared)
    wanted = frozen(x).numpy()
    last = output_node(prepared)
    step = quantizer_of(last).params.scale if on_grid(last) else (float(wanted.max() - wanted.min()) or 1.0) / 255
    model = write_onnx(prepared, name="int8")
    for file_format, content in (("onnx", to_bytes(model)), ("tflite", write_tflite(model))):
        path = folder / f"int8.{file_format}"
        got = _run(path, content, file_format, x)
        row.int8_steps[file_format] = float(np.abs(got - wanted).mean()) / step
    found = executed(folder / "int8.onnx", "onnxruntime")
    row.integer_share = sum(each.integer for each in found) / max(len(found), 1)


@torch.no_grad()
def _pruned_file(row: Row, network: nn.Module, x: Tensor, folder: Path) -> None:
    try:
        edits = plan_for(network, row.shape, share_left=1 - _PRUNED, round_to=1)
    except KaruiError as error:
        row.not_pruned = " ".join(str(error).split())[:200]
        return
    if not edits:
        row.not_pruned = "so many cannot go"
        return
    pruned = apply(copy.deepcopy(network), edits)
    folded = folded_graph(pruned, row.shape)
    row.pruned = 1 - total_macs(folded) / total_macs(folded_graph(network, row.shape))
    wanted = pruned(x).numpy()
    got = _run(folder / "pruned.onnx", to_bytes(write_onnx(folded, name="pruned")), "onnx", x)
    row.pruned_error = float(np.abs(got - wanted).max()) / (float(wanted.max() - wanted.min()) or 1.0)


def _run(path: Path, content: bytes, file_format: str, x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    path.write_bytes(content)
    session = open_session(path, _RUNTIMES[file_format], exact=True)
    try:
        (result,) = session.run({session.signature.inputs[0].name: x.numpy()}).values()
    finally:
        session.close()
    return result.astype(np.float32)


if __name__ == "__main__":
    main()
