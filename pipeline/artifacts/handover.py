"""What lies beside the model files for whoever gets them: ``model.json`` and ``labels.txt``.

No path, user or machine is named; the same outcome gives the same files.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, FileFormat
from pipeline.artifacts.networks import Digest
from pipeline.artifacts.outcome import Outcome, State
from pipeline.declare.words import Precision
from pipeline.onboard.about import FORMAT, Input, Output

MODEL_FILE = "model.json"


@dataclass(frozen=True, kw_only=True)
class HandedFile:
    """One model file: what it is, what runs it, and its tensors as they stand in it."""

    file: str
    sha256: Digest
    size_bytes: int
    precision: Precision
    weight_bits: int
    runtimes: tuple[str, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    output_steps: dict[str, float]  # output → one step of it; {} where float all the way


@dataclass(frozen=True, kw_only=True)
class HandedTarget:
    """The verdict for one target."""

    target: str
    state: State
    ship: str | None  # a file; None: none is fit
    runtime: str | None
    why: str
    threads: int = 1  # of the runtime


@dataclass(frozen=True, kw_only=True)
class Handover:
    """``model.json``."""

    format: int
    karui: str
    run: str
    recipe: str
    task: str
    data: str
    data_title: str
    data_licence: str
    data_sha256: Digest
    labels: tuple[str, ...]
    decision: dict[str, float]  # settings of the decision, chosen on the validation split; {} for most
    files: tuple[HandedFile, ...]
    targets: tuple[HandedTarget, ...]


def handover_of(outcome: Outcome) -> Handover | None:
    """Return what goes along with the files of a run; None where none was exported."""
    described = [(file, file.about) for file in outcome.files if file.about is not None]
    if not described:
        return None
    about = described[0][1]
    return Handover(
        format=FORMAT,
        karui=about.karui,
        run=outcome.run,
        recipe=outcome.recipe,
        task=outcome.task,
        data=outcome.data.card.name,
        data_title=outcome.data.card.title,
        data_licence=outcome.data.card.licence,
        data_sha256=outcome.data.digest,
        labels=about.labels,
        decision=dict(outcome.predicted[0].chosen) if outcome.predicted else {},
        files=tuple(_file(each) for each, _ in described),
        targets=tuple(_targets(outcome)),
    )


def _file(file: Exported) -> HandedFile:
    assert file.about is not None  # noqa: S101  only such files are asked for
    file_format: FileFormat = "onnx" if file.variant.format == "onnx" else "tflite"
    return HandedFile(
        file=file.filename,
        sha256=file.file,
        size_bytes=file.size_bytes,
        precision=file.variant.precision,
        weight_bits=file.variant.weight_bits,
        runtimes=RUNTIME_OF_FORMAT[file_format],
        inputs=file.about.inputs,
        outputs=file.about.outputs,
        output_steps=file.steps,
    )


def _targets(outcome: Outcome) -> list[HandedTarget]:
    names = {file.variant: file.filename for file in outcome.files}
    return [
        HandedTarget(
            target=each.target,
            state=each.verdict.state,
            ship=names[each.verdict.ship.variant] if each.verdict.ship else None,
            runtime=each.verdict.ship.program if each.verdict.ship else None,
            why=each.verdict.why,
            threads=each.ship_threads,
        )
        for each in outcome.targets
    ]
