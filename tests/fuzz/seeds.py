"""Valid files of every kind to start from, and the sound ones that lie beside the changed one."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import nn

from pipeline.artifacts.handover import HandedFile, HandedTarget, Handover
from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_torch import folded_graph
from pipeline.onboard.about import (
    ARRAY,
    KEY,
    PICTURE,
    SCORES,
    TABLE,
    About,
    Column,
    Input,
    Output,
    Raw,
    Stored,
    to_text,
)
from pipeline.onboard.frontend import StepCall
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runs.records import to_json
from pipeline.tflite import write_tflite
from tests.fuzz.containers import idx_bytes

_ROOT = Path(__file__).parents[2]
_SAMPLES, _CLASSES = 60, 3
_CARD = 'name = "c"\ntitle = "C"\nkind = "{kind}"\n{own}[input]\n{input}\n[split]\nval = 0.2\ntest = 0.2\n'


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _labels() -> NDArray[np.int64]:
    return np.arange(_SAMPLES) % _CLASSES


# ── TOML ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CARDS = {
    "npz": _CARD.format(kind="npz", own='[files.all]\npath = "arrays.npz"\n', input="shape = [1, 4, 4]\ndivide = 255"),
    "numbers": _CARD.format(kind="npz", own='[files.all]\npath = "arrays.npz"\n', input="shape = [4]").replace(
        'kind = "npz"', 'kind = "npz"\ntask = "regression"\n[arrays]\nx = "n"\ny = "t"'
    ),
    "csv": _CARD.format(
        kind="csv",
        own='label_column = "kind"\nignored_columns = ["price"]\nmissing = "median"\n'
        '[categories]\ncolour = "auto"\n[files.all]\npath = "table.csv"\n',
        input='normalize = "train"\nclip = 4',
    ),
    "prices": _CARD.format(
        kind="csv",
        own='task = "regression"\ntarget_columns = ["price"]\nignored_columns = ["kind", "colour"]\nmissing = 0\n'
        '[files.all]\npath = "table.csv"\n',
        input="",
    ),
    "idx": _CARD.format(
        kind="idx",
        own='[files.train-images]\npath = "train-images-idx3-ubyte.gz"\n'
        '[files.train-labels]\npath = "train-labels-idx1-ubyte"\n',
        input="shape = [1, 4, 4]\ndivide = 255\nmean = [0.5]\nstd = [0.25]",
    ),
    "pics": _CARD.format(kind="image-folder", own='folder = "pics"\n', input='shape = [3, 8, 8]\nresize = "squash"'),
    "masks": _CARD.format(
        kind="image-folder",
        own='folder = "scenes"\ntask = "segmentation"\n',
        input='shape = [3, 8, 8]\nresize = "crop"',
    ),
}


def cards() -> list[bytes]:
    """Return one card per kind of data, each with its data beside it."""
    more = "classes = ['a', 'b', 'c']\ntarget_divide = 2\n[calibration]\nsamples = 9\nindices = 'indices.npy'\n"
    return [*(text.encode() for text in _CARDS.values()), (_CARDS["npz"].replace("[files", f"{more}[files")).encode()]


def recipes() -> list[bytes]:
    """Return all shipped recipes, and one that starts from weights."""
    start = '[finetune]\nstart = "weights:w.pt"\nmode = "head"\ncompare_labels_per_class = [1, 2]\n'
    shipped = [path.read_bytes() for path in sorted((_ROOT / "models").glob("*.toml"))]
    return [*shipped, shipped[0] + f"\n{start}".encode()]


def targets() -> list[bytes]:
    """Return all shipped targets."""
    return [path.read_bytes() for path in sorted((_ROOT / "targets").glob("*.toml"))]


# ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tables() -> list[bytes]:
    """Return tables with numbers, categories, gaps and classes: with commas, semicolons and tabs."""
    random = _random()
    rows = [("size", "colour", "weight", "kind", "price")]
    for row in range(_SAMPLES):
        numbers = [f"{value:.3f}" for value in random.normal(size=2)]
        rows.append(
            (numbers[0] if row % 9 else "", "rgb"[row % 3], numbers[1], ("big", "mid", "small")[row % 3], f"{row}.5")
        )
    comma = "\n".join(map(",".join, rows))
    german = comma.replace(",", ";").replace(".", ",")
    quoted = "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)
    return [text.encode() for text in (comma, comma + "\n", german, "\ufeff" + quoted, comma.replace(",", "\t"))]


def _npz(**arrays: NDArray[Any]) -> bytes:
    written = io.BytesIO()
    np.savez_compressed(written, allow_pickle=True, **arrays)
    return written.getvalue()


def archives() -> list[bytes]:
    """Return archives of arrays: samples and labels, numbers, splits, weights."""
    random = _random()
    x, y = random.integers(0, 256, (_SAMPLES, 4, 4), dtype=np.uint8), _labels()
    n = random.normal(size=(_SAMPLES, 4)).astype(np.float32)
    weights = {name: tensor.numpy() for name, tensor in network().state_dict().items()}
    return [
        _npz(x=x, y=y, n=n, t=n.sum(1), groups=(np.arange(_SAMPLES) // _CLASSES).astype(str)),
        _npz(x=n),
        _npz(x_train=x, y_train=y, x_test=x[:9], y_test=y[:9], n_train=n, t_train=n[:, :2]),
        _npz(**weights),
    ]


def arrays() -> list[bytes]:
    """Return single arrays: numbers and indices."""
    found = []
    for array in (_random().normal(size=(5, 4)).astype(np.float32), np.arange(9), np.asfortranarray(np.ones((3, 4)))):
        written = io.BytesIO()
        np.save(written, array)
        found.append(written.getvalue())
    return found


def idx() -> list[bytes]:
    """Return grey pictures in one file."""
    return [idx_bytes(_random().integers(0, 256, (_SAMPLES, 4, 4)))]


def pictures() -> list[bytes]:
    """Return the same noise in every format and mode that people have, some turned by EXIF."""
    colour = Image.fromarray(_random().integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "PNG", {}), (colour.convert("RGBA"), "PNG", {}), (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("LA"), "PNG", {}), (colour.convert("1"), "PNG", {}), (colour, "PNG", {"exif": exif}),
        (colour, "JPEG", {"exif": exif}), (colour.convert("L"), "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}), (colour, "BMP", {}), (colour.convert("P"), "GIF", {}),
        (colour, "WEBP", {"lossless": True}), (colour, "WEBP", {"exif": exif}),
        (colour, "TIFF", {"exif": exif}), (colour, "TIFF", {"compression": "tiff_deflate"}),
        (colour.convert("L"), "TIFF", {"compression": "tiff_lzw"}), (colour, "PPM", {}), (colour, "JPEG2000", {}),
        (colour, "ICO", {}), (colour, "PCX", {}), (colour, "SGI", {}),
        (colour.convert("P"), "GIF", {"save_all": True, "append_images": [colour.convert("P").rotate(90)]}),
    ]  # fmt: skip
    return [_picture(image, kind, **options) for image, kind, options in ways]


def masks() -> list[bytes]:
    """Return a mask as grey and as palette picture."""
    grey = Image.fromarray(_random().integers(0, 2, (8, 8), dtype=np.uint8))
    return [_picture(grey, "PNG"), _picture(grey.convert("P"), "PNG"), _picture(grey, "TIFF"), _picture(grey, "BMP")]


def _picture(image: Image.Image, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def network(kind: str = "rows") -> nn.Module:
    """Return a small network for rows of four numbers or for pictures of 8 × 8."""
    torch.manual_seed(0)
    if kind == "picture":
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).eval()
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, _CLASSES)).eval()


def safetensors() -> list[bytes]:
    """Return weights as safetensors, of several types."""
    state = network().state_dict()
    return [save(state), save({**state, "n": torch.arange(3), "h": torch.ones(2, dtype=torch.bfloat16)})]


def torch_files() -> list[bytes]:
    """Return weights as torch writes them, bare and inside a dictionary of a training."""
    state = network().state_dict()
    found = []
    for content in (state, {"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in state.items()}}):
        written = io.BytesIO()
        torch.save(content, written)
        found.append(written.getvalue())
    return found


@functools.cache
def _model(kind: str, *, quantized: bool = False) -> onnx.ModelProto:
    shape = (3, 8, 8) if kind == "picture" else (4,)
    graph = folded_graph(network(kind), shape)
    if quantized:
        graph = prepare(graph, weight_bits=8)
        calibrate(graph, torch.randn(16, *shape), QuantizeSpec())
    return write_onnx(graph.eval(), name="net")


def description(kind: str) -> bytes:
    """Return what a model file says about itself."""
    shape: tuple[int, ...] = (3, 8, 8) if kind == "picture" else (4,)
    raws = {
        "picture": Raw(PICTURE, "uint8", (3, 8, 8), colours="RGB", resize="fit"),
        "rows": Raw(
            TABLE, "float32", (3,), columns=(Column("size"), Column("colour", ("r", "g", "b")), Column("weight"))
        ),
        "numbers": Raw(ARRAY, "float32", (4,)),
    }
    steps = {
        "picture": (StepCall("normalize", {"divide": 255.0, "mean": [0.1, 0.2, 0.3], "std": [0.5]}),),
        "rows": (
            StepCall("fill", {"values": [0.5, -1.0, 1.0]}),
            StepCall("one_hot", {"columns": [1], "codes": [[0, 1]]}),
            StepCall("normalize", {"mean": [0.1, 0.2, 0.3, 0.0], "std": [0.5]}),
            StepCall("clip", {"limit": 4}),
        ),
    }
    stored = Stored("input", "N" + ("CHW" if kind == "picture" else "F"), "float32", shape)
    about = About(
        recipe="mine",
        task="classification",
        karui="1.0",
        data="set",
        data_sha256="ab" * 32,
        labels=("a", "b", "c"),
        inputs=(Input("input", "CHW" if kind == "picture" else "F", shape, raws[kind], steps.get(kind, ()), stored),),
        outputs=(Output("output", "K", (3,), SCORES, 1.0, Stored("output", "NK", "float32", (3,))),),
    )
    return to_text(about).encode()


def undescribed(kind: str) -> bytes:
    """Return an ONNX file that says nothing about itself."""
    return to_bytes(_model(kind))


def described(kind: str) -> bytes:
    """Return a sound ONNX file."""
    return with_description(undescribed(kind), description(kind))


def with_description(model: bytes, text: bytes) -> bytes:
    """Return an ONNX file with this text, whatever bytes it is: a field more at the end of the protobuf."""
    entry = _protobuf_field(1, KEY.encode()) + _protobuf_field(2, text)
    return model + _protobuf_field(14, entry)  # ModelProto.metadata_props


def _protobuf_field(number: int, content: bytes) -> bytes:
    size, rest = b"", len(content)
    while rest > 0x7F:
        size += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + content


def onnx_files() -> list[bytes]:
    """Return the network for rows, float and int8."""
    return [with_description(to_bytes(_model("rows", quantized=q)), description("rows")) for q in (False, True)]


def tflite_files() -> list[bytes]:
    """Return the network for rows, float and int8, as TFLite."""
    found = []
    for quantized in (False, True):
        model = onnx.ModelProto()
        model.CopyFrom(_model("rows", quantized=quantized))
        onnx.helper.set_model_props(model, {KEY: description("rows").decode()})
        found.append(write_tflite(model))
    return found


def handovers() -> list[bytes]:
    """Return ``model.json`` of the float network for rows."""
    file = HandedFile(
        file="rows.onnx",
        sha256=hashlib.sha256(described("rows")).hexdigest(),
        size_bytes=1,
        precision="fp32",
        weight_bits=8,
        runtimes=("onnxruntime",),
        inputs=(),
        outputs=(),
        output_steps={},
    )
    target = HandedTarget(target="host", state="met", ship="rows.onnx", runtime="onnxruntime", why="")
    words = Handover(
        format=1, karui="1.0", run="mine", recipe="mine", task="binary", data="set", data_title="", data_licence="",
        data_sha256="0" * 64, labels=("a", "b", "c"), decision={"threshold": 0.5}, files=(file,), targets=(target,),
    )  # fmt: skip
    return [to_json(words)]


# ── beside the changed file ─────────────────────────────────────────────────────────────────────────────────────────


def write_beside(folder: Path) -> None:
    """Write sound cards, data and model files into a folder."""
    for name, text in _CARDS.items():
        (folder / f"{name}.toml").write_text(text)
    for name, content in {
        "table.csv": tables()[0],
        "rows.csv": tables()[0],
        "arrays.npz": archives()[0],
        "indices.npy": arrays()[1],
        "train-images-idx3-ubyte.gz": gzip.compress(idx()[0]),
        "train-labels-idx1-ubyte": idx_bytes(_labels()),
        **{f"{kind}.onnx": described(kind) for kind in ("rows", "numbers", "picture")},
    }.items():
        (folder / name).write_bytes(content)
    picture, mask = pictures()[0], masks()[0]
    beside = {"pics/cow": picture, "pics/dog": picture, "scenes/images": picture, "scenes/masks": mask}
    for below, content in beside.items():
        (folder / below).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            (folder / below / f"{number}.png").write_bytes(content)
