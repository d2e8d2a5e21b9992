"""Architectures that others wrote, taken through the graph, float and int8 files: what fails and what differs.

    python bench/bench_zoo.py LIST [--only NAME …] [--pictures DATA] [--json] [--markdown FILE]

LIST has one network a line: package, name, input shape (``timm resnet18 3x64x64``; 10 classes, random weights); ``#``
begins a comment.  The packages are installed beside karui without their dependencies:

    pip install --no-deps torchvision==0.28.0 timm==1.0.31 pytorchcv==0.0.74

First, networks without attention are trained for a few steps on real pictures (``--pictures`` names a data set of
karui, resized to each network's input).  Float files are compared with torch on pictures of the test split, relative
to the range of the outputs; a network in which torch's own float32 is further from float64 is allowed that.  Pruning
takes 30 % of the multiply-accumulates away, and the float ONNX file of what is left is compared with torch.  The int8
files are calibrated on training pictures, and the frozen integers are compared with what ONNX Runtime and LiteRT give
for pictures of the test split: in output steps, and how often the class is the same where the two best classes lie
more than two steps apart.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from pipeline import catalog
from pipeline.data.load import load, reference
from pipeline.declare.recipe import QuantizeSpec
from pipeline.errors import KaruiError
from pipeline.graph.costs import total_macs
from pipeline.graph.kinds import output_node
from pipeline.graph.ops import MatMul
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.pruning import plan_for
from pipeline.onboard.frontend import prepare as prepare_inputs
from pipeline.onboard.session import open_session
from pipeline.quant.calibrate import calibrate
from pipeline.quant.grids import on_grid, quantizer_of
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes.executed import executed
from pipeline.tflite import write_tflite

_CLASSES = 10
_SAMPLES = 4  # test pictures, through the float files
_STEPS, _BATCH = 10, 16  # of the training
_MOMENTUM = 0.5  # of batch norms: with torch's 0.1 so few steps leave a deep network blind to its input
_CALIBRATED = 32  # training pictures
_TRIED = {True: 200, False: 16}  # test pictures: through trained networks, and through the others
_APART = 2.0  # steps between the two best classes, from which on a class is no matter of rounding
_MEAN_STEPS, _SAME_CLASS = 1.0, 0.995
_FLOAT_LIMITS = {"onnx": 1e-4, "tflite": 1e-3}  # of the outputs' range
_OWN_ROUNDINGS = 4.0  # as many times as far as torch's own float32 files may be, where that says little
_TELLING = 1e-3  # of the outputs' range: by so much inputs change them at least
_PRUNED = 0.3  # share of the multiply-accumulates
_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(kw_only=True)
class Row:
    """What came out for one network."""

    package: str
    name: str
    shape: tuple[int, ...]
    nodes: int = 0
    own_rounding: float = 0.0  # torch's float32 against its float64, of the outputs' range
    compared: bool = False  # False: the outputs are the same for every input, and any file would match them
    float_error: dict[str, float] = field(default_factory=dict)  # format → of the outputs' range
    int8_steps: dict[str, float] = field(default_factory=dict)  # format → mean distance from the frozen integers
    trained: bool = False
    decided: int = 0  # pictures whose two best classes lie more than two steps apart
    same_class: dict[str, float] = field(default_factory=dict)  # format → share of these
    integer_share: float | None = None  # of the nodes that ONNX Runtime executes
    pruned: float | None = None  # share of the multiply-accumulates that is gone
    pruned_error: float = 0.0  # of the pruned network's float ONNX file, of the outputs' range
    not_pruned: str = ""  # why
    seconds: float = 0.0
    refused: str = ""  # by which part, and why

    @property
    def right(self) -> bool:
        """Whether everything was built and computes what the network does, and the int8 files what the integers do."""
        own = _OWN_ROUNDINGS * self.own_rounding
        close = all(self.float_error.get(each, 1.0) <= max(limit, own) for each, limit in _FLOAT_LIMITS.items())
        close = close and self.pruned_error <= max(_FLOAT_LIMITS["onnx"], own)
        return not self.refused and self.compared and close and (not self.trained or self.same_integers)

    @property
    def same_integers(self) -> bool:
        """Whether both int8 files stay within a step of the frozen integers in the mean, and give their classes."""
        steps = all(each <= _MEAN_STEPS for each in self.int8_steps.values())
        return steps and all(each >= _SAME_CLASS for each in self.same_class.values())


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Real pictures of one size: inputs (N, C, h, w) as networks take them, and their classes."""

    train: Tensor
    classes: Tensor
    test: Tensor

    def resized(self, shape: tuple[int, ...]) -> Pictures:
        """Return them in the shape (C, height, width) that a network takes; grey ones in every channel."""
        train, test = (_resized(each, shape) for each in (self.train, self.test))
        return Pictures(train=train, classes=self.classes, test=test)


@click.command()
@click.argument("networks", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, help="Only networks whose name holds this.")
@click.option("--pictures", default="digits", show_default=True, help="A data set with ten classes of pictures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--markdown", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a table, too.")
def main(networks: Path, only: tuple[str, ...], pictures: str, page: Path | None, *, as_json: bool) -> None:
    """Take the networks of a list through everything."""
    torch.set_num_threads(1)
    rows = []
    real = _pictures(pictures)
    for package, name, shape in _listed(networks):
        if only and not any(each in name for each in only):
            continue
        row = _taken(package, name, shape, real)
        rows.append(row)
        print(json.dumps(asdict(row)) if as_json else _line(row), flush=True)
    if page is not None:
        page.write_text(markdown(rows), encoding="utf-8")
    right = sum(row.right for row in rows)
    print(f"{right} of {len(rows)} right", file=sys.stderr)
    trained = [row for row in rows if row.trained]
    same = sum(row.same_integers for row in trained)
    print(f"{same} of {len(trained)} trained ones are the same integers in both int8 files", file=sys.stderr)
    pruned = sum(row.pruned is not None for row in rows)
    print(f"{pruned} of {len(rows)} pruned by {_PRUNED:.0%} of their multiply-accumulates", file=sys.stderr)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of a page, with what they sum up to."""
    right, trained = sum(row.right for row in rows), [row for row in rows if row.trained]
    taken, pruned = sum(not row.refused for row in rows), sum(row.pruned is not None for row in rows)
    same_integers = sum(row.same_integers for row in trained)
    lines = [
        f"{len(rows)} networks: {taken} accepted, with all files built; {right} right.",
        f"{same_integers} of {len(trained)} trained ones are the same integers in both int8 files.",
        f"{pruned} are pruned by {_PRUNED:.0%} of their multiply-accumulates.",
        "",
        "| network | input | float ONNX, TFLite | int8 steps | same class | integer nodes | pruned | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        floats = ", ".join(f"{error:.0e}" for error in row.float_error.values()) if row.compared else "not compared"
        steps = ", ".join(f"{mean:.2f}" for mean in row.int8_steps.values())
        same = ", ".join(f"{100 * share:.1f} %" for share in row.same_class.values())
        same = f"{same} of {row.decided}" if row.trained else "not trained"
        integers = "" if row.integer_share is None else f"{100 * row.integer_share:.0f} %"
        pruned_by = "no" if row.pruned is None else f"{100 * row.pruned:.0f} %"
        cells = (f"{row.package} {row.name}", "×".join(map(str, row.shape)), floats, steps, same, integers, pruned_by)
        lines.append(f"| {' | '.join((*cells, row.refused))} |")
    return "\n".join(lines) + "\n"


def _listed(networks: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for line in networks.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            package, name, shape = line.split()[:3]
            yield package, name, tuple(int(side) for side in shape.split("x"))


def _pictures(name: str) -> Pictures:
    card, folder = catalog.load_card(name)
    dataset = load(reference(card, folder))
    rng = np.random.default_rng(0)
    train = dataset.train.read(rng.permutation(len(dataset.train))[: _STEPS * _BATCH])
    test = dataset.test.read(rng.permutation(len(dataset.test))[: _TRIED[True]])
    inputs = [torch.from_numpy(prepare_inputs(each.inputs, dataset.frontend)["input"]) for each in (train, test)]
    return Pictures(train=inputs[0], classes=torch.from_numpy(train.wanted["class"]), test=inputs[1])


def _resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    channels, *size = shape
    return F.interpolate(x.expand(-1, channels, -1, -1), size=size, mode="bilinear")


def _line(row: Row) -> str:
    floats = " ".join(f"{name} {error:.1e}" for name, error in row.float_error.items())
    steps = " ".join(f"{name} {mean:.2f}" for name, mean in row.int8_steps.items())
    same = " ".join(f"{name} {100 * share:.1f} %" for name, share in row.same_class.items())
    same = f"same class of {row.decided}{' after training' if row.trained else ''}: {same}"
    share = "" if row.integer_share is None else f"{100 * row.integer_share:.0f} % integer"
    sign = "ok" if row.right else "NO"
    pruned = f"pruned {100 * row.pruned:.0f} %" if row.pruned is not None else f"not pruned: {row.not_pruned}"
    words = [f"{row.package} {row.name}", f"{row.nodes} nodes", floats, f"steps {steps}", same, share, pruned]
    words.append(f"{row.seconds:.1f} s")
    return f"{sign} {' | '.join(words)}{' | ' if row.refused else ''}{row.refused}"


# ── one network ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _taken(package: str, name: str, shape: tuple[int, ...], real: Pictures) -> Row:
    row = Row(package=package, name=name, shape=shape)
    started = time.monotonic()
    part = "build"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(0)
            network = _built(package, name).eval()
        pictures = real.resized(shape)
        x = pictures.test[:_SAMPLES]
        part = "graph"
        folded = folded_graph(network, shape)
        row.nodes = sum(node.op == "call_module" for node in folded.graph.nodes)
        with tempfile.TemporaryDirectory() as folder:
            part = "training"
            row.trained = not any(isinstance(each, MatMul) for each in folded.modules())
            if row.trained:
                _train(network, pictures)
                folded = folded_graph(network, shape)
            part = "float files"
            _float_files(row, network, folded, x, Path(folder))
            part = "pruned file"
            _pruned_file(row, network, total_macs(folded), x, Path(folder))
            part = "int8 files"
            _int8_files(row, folded, pictures, Path(folder))
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
    exact = copy.deepcopy(network).double()(x.double()).numpy()
    row.own_rounding = float(np.abs(exact - wanted).max()) / span
    row.compared = float(np.ptp(wanted, axis=0).max()) > _TELLING * span
    model = write_onnx(folded, name="float")
    for file_format, content in (("onnx", to_bytes(model)), ("tflite", write_tflite(model))):
        got = _run(folder / f"float.{file_format}", content, file_format, x)
        row.float_error[file_format] = float(np.abs(got - wanted).max()) / span


def _train(network: nn.Module, pictures: Pictures) -> None:
    for module in network.modules():  # but no auxiliary heads and no dropout: inputs may be too small for these heads
        module.train(isinstance(module, nn.modules.batchnorm._BatchNorm))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = _MOMENTUM
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for chosen in torch.arange(len(pictures.train)).split(_BATCH):  # type: ignore[no-untyped-call]
        x, classes = pictures.train[chosen], pictures.classes[chosen]
        optimizer.zero_grad()
        F.cross_entropy(network(x), classes).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()


@torch.no_grad()
def _int8_files(row: Row, folded: fx.GraphModule, pictures: Pictures, folder: Path) -> None:
    prepared = prepare(folded, weight_bits=8)
    calibrate(prepared, pictures.train[:_CALIBRATED], QuantizeSpec(calibration="min-max"))
    prepared.eval()
    frozen = freeze(prepared)
    x = pictures.test[: _TRIED[row.trained]]
    wanted = torch.cat([frozen(each) for each in x.split(_BATCH)]).numpy()  # type: ignore[no-untyped-call]
    last = output_node(prepared)
    step = quantizer_of(last).params.scale if on_grid(last) else (float(wanted.max() - wanted.min()) or 1.0) / 255
    second, best = np.sort(wanted, axis=1)[:, -2:].T
    decided = best - second > _APART * step
    row.decided = int(decided.sum())
    model = write_onnx(prepared, name="int8")
    for file_format, content in (("onnx", to_bytes(model)), ("tflite", write_tflite(model))):
        path = folder / f"int8.{file_format}"
        got = _run(path, content, file_format, x)
        row.int8_steps[file_format] = float(np.abs(got - wanted).mean()) / step
        same = got.argmax(1)[decided] == wanted.argmax(1)[decided]
        row.same_class[file_format] = float(same.mean()) if row.decided else 1.0
    found = executed(folder / "int8.onnx", "onnxruntime")
    row.integer_share = sum(each.integer for each in found) / max(len(found), 1)


@torch.no_grad()
def _pruned_file(row: Row, network: nn.Module, macs: int, x: Tensor, folder: Path) -> None:
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
    row.pruned = 1 - total_macs(folded) / macs
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
