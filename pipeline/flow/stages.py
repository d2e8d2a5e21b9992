"""The stages by name, imported when they first run: a run that is recalled whole never loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.runs.run import deferred

__all__ = [
    "STAGES",
    "StageName",
    "bring",
    "check",
    "choose_threads",
    "describe",
    "emulate",
    "estimate",
    "export",
    "finetune",
    "import_weights",
    "judge",
    "model",
    "observe",
    "predict",
    "prune",
    "quantize",
    "report",
    "spread",
    "train",
    "weigh",
]

if TYPE_CHECKING:
    from pipeline.stages.bring import bring
    from pipeline.stages.check import check
    from pipeline.stages.describe import describe
    from pipeline.stages.emulate import emulate
    from pipeline.stages.estimate import estimate
    from pipeline.stages.export import export
    from pipeline.stages.finetune import finetune
    from pipeline.stages.importing import import_weights
    from pipeline.stages.judge import judge
    from pipeline.stages.model import model
    from pipeline.stages.observe import observe
    from pipeline.stages.predict import predict
    from pipeline.stages.prune import prune
    from pipeline.stages.quantize import quantize
    from pipeline.stages.report import report
    from pipeline.stages.spread import spread
    from pipeline.stages.threads import choose_threads
    from pipeline.stages.train import train
    from pipeline.stages.weigh import weigh
else:
    bring = deferred("pipeline.stages.bring", "bring")
    describe = deferred("pipeline.stages.describe", "describe")
    choose_threads = deferred("pipeline.stages.threads", "choose_threads")
    check = deferred("pipeline.stages.check", "check")
    train = deferred("pipeline.stages.train", "train")
    import_weights = deferred("pipeline.stages.importing", "import_weights")
    finetune = deferred("pipeline.stages.finetune", "finetune")
    prune = deferred("pipeline.stages.prune", "prune")
    quantize = deferred("pipeline.stages.quantize", "quantize")
    export = deferred("pipeline.stages.export", "export")
    predict = deferred("pipeline.stages.predict", "predict")
    emulate = deferred("pipeline.stages.emulate", "emulate")
    estimate = deferred("pipeline.stages.estimate", "estimate")
    model = deferred("pipeline.stages.model", "model")
    observe = deferred("pipeline.stages.observe", "observe")
    weigh = deferred("pipeline.stages.weigh", "weigh")
    judge = deferred("pipeline.stages.judge", "judge")
    spread = deferred("pipeline.stages.spread", "spread")
    report = deferred("pipeline.stages.report", "report")

# "validate" is predict, observe, model or what emulation tells, judge and spread
StageName = Literal["train", "finetune", "prune", "quantize", "export", "validate", "report"]
STAGES: tuple[StageName, ...] = ("train", "finetune", "prune", "quantize", "export", "validate", "report")
