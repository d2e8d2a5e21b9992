"""The lines of "Run it yourself": Python for a model file, with numpy and its runtime alone.

Made from what the file says about itself, which also stands in ``model.json``; what is long is read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts.files import Exported, Program
from pipeline.artifacts.handover import MODEL_FILE
from pipeline.artifacts.outcome import Outcome
from pipeline.onboard.about import LABELS_FILE, PICTURE, TABLE, About, Input, Raw, Stored
from pipeline.tasks import named

_WRITTEN_OUT = 4  # numbers of a list; longer ones are read from model.json
_INTERPRETERS = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
PICTURE_FILE, ROWS_FILE, SAMPLE_FILE = "picture.png", "rows.csv", "sample.npy"


@dataclass(frozen=True, kw_only=True)
class Yourself:
    """The lines for one file, and what they need."""

    targets: tuple[str, ...]
    filename: str
    packages: tuple[str, ...]
    files: tuple[str, ...]  # that lie beside each other
    code: str


def yourselves(outcome: Outcome) -> tuple[Yourself, ...]:
    """Return the lines for each file that ships, each once; none for inputs that cannot be said in a few lines."""
    by_variant = {file.variant: file for file in outcome.files}
    targets: dict[tuple[str, Program, int], list[str]] = {}
    files: dict[str, Exported] = {}
    for target in outcome.targets:
        ship = target.verdict.ship
        if ship is not None and ship.variant in by_variant:
            file = by_variant[ship.variant]
            files[file.filename] = file
            targets.setdefault((file.filename, ship.program, target.ship_threads), []).append(target.target)
    decision = outcome.predicted[0].chosen if outcome.predicted else {}
    made = ((files[name], program, threads, tuple(names)) for (name, program, threads), names in targets.items())
    return tuple(
        _yourself(file, file.about, program=program, threads=threads, targets=names, decision=decision)
        for file, program, threads, names in made
        if file.about is not None and _can_be_said(file.about)
    )


def _can_be_said(about: About) -> bool:
    known = len(about.inputs) == 1 and all(call.step in _STEPS for each in about.inputs for call in each.steps)
    return known and len(about.outputs) == 1


def _yourself(
    file: Exported,
    about: About,
    *,
    program: Program,
    threads: int,
    targets: tuple[str, ...],
    decision: Mapping[str, float],
) -> Yourself:
    source, filename, onnx = about.inputs[0], file.filename, program == "onnxruntime"
    last = not onnx and source.stored.layout == "NHWC"  # where the channels stand
    read, imports, wanted = _reading(source, channels_last=last)
    run = _run_onnx(file, source, threads) if onnx else _run_tflite(filename, about, threads)
    body = [*read, *_steps(source, channels_last=last), *run]
    body += named(about.task).printing(about.outputs[0], decision)
    if any("about[" in line for line in body):
        imports = [*imports, "import json"]
        description = f'about = json.loads(Path("{MODEL_FILE}").read_text("utf-8"))["files"][0]["inputs"][0]'
        body = [description, *body]
    if any("labels" in line for line in body):
        body = [f'labels = Path("{LABELS_FILE}").read_text("utf-8").splitlines()', *body]
    if any("Path(" in line for line in body):
        imports = [*imports, "from pathlib import Path"]
    runtime = "import onnxruntime" if onnx else f"from {_INTERPRETERS[program]}.interpreter import Interpreter"
    pillow = ["from PIL import Image, ImageOps"] if source.raw.kind == PICTURE else []
    code = "\n".join(
        [
            *sorted(imports, key=lambda line: line.split()[0] == "from"),
            "import numpy as np",
            runtime,
            *pillow,
            "",
            *body,
        ]
    )
    text = "\n".join(body)
    beside = [filename, *(name for name in (MODEL_FILE, LABELS_FILE) if name in text), wanted]
    return Yourself(
        targets=targets,
        filename=filename,
        packages=("numpy", _PACKAGES[program], *(["Pillow"] if pillow else [])),
        files=tuple(beside),
        code=code + "\n",
    )


# ── inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _reading(source: Input, *, channels_last: bool) -> tuple[list[str], list[str], str]:
    """Return the lines that read one raw sample as x (1, …), their imports, and the file that they read."""
    raw = source.raw
    sizes = raw.shape[1:] + raw.shape[:1] if channels_last else raw.shape
    shape = ", ".join(map(str, sizes))
    if raw.kind == PICTURE:
        return [*_reading_picture(raw), f"x = {_pixels(raw, channels_last)}  # (1, {shape})"], [], PICTURE_FILE
    if raw.kind == TABLE:
        return _reading_table(source), ["import csv"], ROWS_FILE
    stored = ", ".join(map(str, raw.shape))
    x = f'np.float32(np.load("{SAMPLE_FILE}")).reshape(1, {stored})'
    return [f"x = {x}.transpose(0, 2, 3, 1).copy()  # NHWC" if channels_last else f"x = {x}"], [], SAMPLE_FILE


def _reading_picture(raw: Raw) -> list[str]:
    """Write what ``pipeline.onboard.pictures`` does: upright, on the background, at its size."""
    upright = 'ImageOps.exif_transpose(picture).convert("RGBA")'
    background = f'Image.new("RGBA", picture.size, {raw.background})'
    return [
        f'picture = Image.open("{PICTURE_FILE}")',
        *([f"picture.draft(None, {(2 * max(raw.shape[1:]),) * 2})  # large JPEGs"] if raw.resize else []),
        f"picture = {upright}",
        f'picture = Image.alpha_composite({background}, picture).convert("{raw.colours}")',
        *_sized(raw),
    ]


def _pixels(raw: Raw, channels_last: bool) -> str:
    if raw.colours == "L":
        return f"np.asarray(picture, np.float32)[{'None, :, :, None' if channels_last else 'None, None'}]"
    return f"np.asarray(picture, np.float32){'[None]' if channels_last else '.transpose(2, 0, 1)[None]'}"


def _sized(raw: Raw) -> list[str]:
    _, height, width = raw.shape
    size = f"({width}, {height})"
    how = {
        "squash": f"picture.resize({size}, Image.Resampling.BILINEAR)",
        "crop": f"ImageOps.fit(picture, {size}, Image.Resampling.BILINEAR)",
        "fit": f"ImageOps.pad(picture, {size}, Image.Resampling.BILINEAR, color={_background(raw)})",
    }
    return [f"picture = {how[raw.resize]}"] if raw.resize else [f"assert picture.size == {size}"]


def _background(raw: Raw) -> str:
    """Write a colour, as grey for grey pictures (ITU-R BT.601, as Pillow computes it)."""
    red, green, blue = raw.background
    grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return str(raw.background) if raw.colours == "RGB" else str(grey)


def _reading_table(source: Input) -> list[str]:
    shape = ", ".join(map(str, source.raw.shape))
    value = 'known.index(cell) if cell in known else float(cell or "nan")'
    return [
        f'row = next(csv.DictReader(Path("{ROWS_FILE}").read_text("utf-8-sig").splitlines()))  # commas, 3.14',
        'cells = [(row[each["name"]].strip(), each["categories"]) for each in about["raw"]["columns"]]',
        f"x = np.float32([{value} for cell, known in cells]).reshape(1, {shape})",
    ]


def _steps(source: Input, *, channels_last: bool) -> list[str]:
    lines: list[str] = []
    after = 0 if channels_last else len(source.raw.shape) - 1  # axes behind that of the channels
    for place, call in enumerate(source.steps):
        lines += _STEPS[call.step](call.settings, place, after)
    if any("steps[" in line for line in lines):
        lines.insert(0, 'steps = about["steps"]')
    return lines


def _normalize(settings: Mapping[str, Any], place: int, after: int) -> list[str]:
    divide, value = float(settings.get("divide", 1.0)), "x"
    if divide != 1:
        value = f"x / np.float32({divide!r})"
    for name, sign, nothing in (("mean", "-", 0.0), ("std", "/", 1.0)):
        values = list(settings.get(name, (nothing,)))
        if any(each != nothing for each in values):
            before = f"({value})" if sign == "/" and value != "x" else value
            value = f"{before} {sign} {_numbers(values, place, name, after)}"
    return [f"x = {value}"] if value != "x" else []


def _numbers(values: Sequence[float], place: int, name: str, after: int) -> str:
    """Write one number, or one per channel."""
    if len(values) == 1:
        return f"np.float32({values[0]!r})"
    listed = repr(list(values)) if len(values) <= _WRITTEN_OUT else f'steps[{place}]["settings"]["{name}"]'
    return f"np.float32({listed}).reshape({', '.join(['-1', *['1'] * after])})" if after else f"np.float32({listed})"


def _clip(settings: Mapping[str, Any], place: int, after: int) -> list[str]:
    del place, after  # one limit for all values
    limit = float(settings["limit"])
    return [f"x = np.clip(x, np.float32({-limit!r}), np.float32({limit!r}))"]


def _fill(settings: Mapping[str, Any], place: int, after: int) -> list[str]:
    del settings, after  # as long as there are columns
    return [f'x = np.where(np.isnan(x), np.float32(steps[{place}]["settings"]["values"]), x)']


def _one_hot(settings: Mapping[str, Any], place: int, after: int) -> list[str]:
    del settings, after  # as long as there are columns
    return [
        f'codes = dict(zip(steps[{place}]["settings"]["columns"], steps[{place}]["settings"]["codes"]))',
        "parts = [x[:, [c]] == np.float32([codes[c]]) if c in codes else x[:, [c]] for c in range(x.shape[1])]",
        "x = np.concatenate([np.float32(part) for part in parts], axis=1)",
    ]


_STEPS: Mapping[str, Callable[[Mapping[str, Any], int, int], list[str]]] = {
    "clip": _clip,
    "fill": _fill,
    "normalize": _normalize,
    "one_hot": _one_hot,
}


# ── the file, and what it says ──────────────────────────────────────────────────────────────────────────────────────


def _run_onnx(file: Exported, source: Input, threads: int) -> list[str]:
    options = [
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {threads}",
    ]
    exact = [
        'options.add_session_config_entry("session.x64quantprecision", "1")  # no overflow on older x86',
    ]
    # without it, the runtime makes integers of layers that were left float on purpose
    kept = ', disabled_optimizers=["WeightBiasQuantization"]' if file.float_ops else ""
    int8 = file.variant.precision == "int8"
    return [
        *_as_integers(source.stored),
        *options,
        *(exact if int8 else []),
        f"session = onnxruntime.InferenceSession({file.filename!r}, options{kept if int8 else ''})",
        f"y = session.run(None, {{{source.stored.name!r}: x}})[0]",
    ]


def _run_tflite(filename: str, about: About, threads: int) -> list[str]:
    into, out = about.inputs[0].stored, about.outputs[0].stored
    y = f'model.get_signature_runner()(**{{"{about.inputs[0].name}": x}})["{about.outputs[0].name}"]'
    return [
        *_as_integers(into),
        f"model = Interpreter({filename!r}{f', num_threads={threads}' if threads > 1 else ''})",
        f"y = {y}",
        *([f"y = (np.float32(y) - ({out.zero_point})) * np.float32({out.scale!r})"] if out.scale else []),
        *(["y = y.transpose(0, 3, 1, 2)  # NCHW"] if out.layout == "NHWC" else []),
    ]


def _as_integers(stored: Stored) -> list[str]:
    if stored.dtype == "uint8":
        return ["x = x.astype(np.uint8)  # raw bytes: the file prepares them"]
    if not stored.scale:
        return []
    value = f"np.rint(x / np.float32({stored.scale!r})) + ({stored.zero_point})"
    return [f"x = np.clip({value}, -128, 127).astype(np.int8)"]
