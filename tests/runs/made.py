"""Small artifacts that tests of recall hand around."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.artifacts.evidence import Metric
from pipeline.artifacts.networks import DataFacts, DataRef, NetworkRef, Threads
from pipeline.artifacts.outcome import Outcome, StageNote
from pipeline.artifacts.training import Checkpoint, Epoch, Quantized
from pipeline.declare.card import DatasetCard, InputSpec, SplitSpec
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.frontend import StepCall

ACCURACY = Metric(name="accuracy", unit="share", higher_is_better=True)
SIGNATURE = Signature(
    inputs=(TensorSpec("input", "float32", (3, 4, 4), "CHW"),),
    outputs=(TensorSpec("output", "float32", (3,), "K"),),
)
CARD = DatasetCard(
    name="dots",
    title="Punkte ・ dots",
    kind="npz",
    input=InputSpec(shape=(3, 4, 4), mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 1 / 3)),
    split=SplitSpec(val=500, test=0.25),
)
DATA = DataRef(card=CARD, digest="a" * 64, folder=Path("/data"))
FACTS = DataFacts(
    signature=SIGNATURE,
    classes=("red", "green", "blue"),
    samples={"train": 1000, "val": 500, "test": 500},
    frontend={"input": (StepCall("normalize", {"divide": 255.0, "mean": [0.5]}),)},
)
NETWORK = NetworkRef(sha256="b" * 64, options={"width": 8}, signature=SIGNATURE, path=Path("net.py"))
CHECKPOINT = Checkpoint(network=NETWORK, weights="c" * 64, metric=ACCURACY, val_metric=0.975)
EPOCH = Epoch(phase="", index=1, learning_rate=0.1, train_loss=1.0, val_metric=0.5, duration_s=0.1)
QUANTIZED = Quantized(
    checkpoint=CHECKPOINT,
    method="qat",
    weight_bits=8,
    ptq_val_metric=0.9,
    layers=(),
    float_layers=("fc",),
)
RECIPE = Recipe(name="dots", data="dots", network=NetworkSpec(file="mlp"))
OUTCOME = Outcome(
    run="dots",
    recipe="dots",
    summary="",
    task="classification",
    metric=ACCURACY,
    data=DATA,
    facts=FACTS,
    network=NETWORK,
    threads=Threads(count=2, step_ms={1: 2.5, 2: 1.5}),
    trained=replace(CHECKPOINT, history=(EPOCH,)),
    finetuned=None,
    pruned=None,
    quantized={7: QUANTIZED, 8: QUANTIZED},
    exports=(),
    predicted=(),
    observed=(),
    targets=(),
    notes=(StageNote(stage="train", recalled=True, duration_s=1.5, summary="done"),),
    versions={"python": "3.11"},
)
