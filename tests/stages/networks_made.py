"""One small trained network with everything that the stages before predict make of it: 8 and 7 bits, all files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.evidence import Predicted
from pipeline.artifacts.files import ExportSet
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.declare.recipe import QuantizeSpec, TrainSpec
from pipeline.runs.run import Work
from pipeline.stages.export import export
from pipeline.stages.predict import predict
from pipeline.stages.quantize import quantize
from tests import learnable

TEST_SAMPLES = 300
BITS = (8, 7)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A float network and its quantized twins."""

    work: Work
    data: DataRef
    facts: DataFacts
    checkpoint: Checkpoint
    quantized: tuple[Quantized, ...]  # by weight bits, as BITS

    def exports(self) -> tuple[ExportSet, ...]:
        """Write all files: float, 8 bits, 7 bits."""
        networks: tuple[Checkpoint | Quantized, ...] = (self.checkpoint, *self.quantized)
        return tuple(
            export(self.work, name="small", data=self.data, facts=self.facts, weights=weights, runtimes={})
            for weights in networks
        )

    def unpruned(self) -> ExportSet:
        """Write the files of the float network as one that is pruned later."""
        return export(
            self.work,
            name="small",
            data=self.data,
            facts=self.facts,
            weights=self.checkpoint,
            runtimes={},
            unpruned=True,
        )

    def predicted(
        self, weights: Checkpoint | Quantized, chosen: dict[str, float] | None = None, *, unpruned: bool = False
    ) -> Predicted:
        """Run one of the networks in torch."""
        return predict(
            self.work,
            data=self.data,
            facts=self.facts,
            weights=weights,
            chosen=chosen,
            threads=1,
            unpruned=unpruned,
        )


def make(folder: Path) -> Made:
    """Train under noise that leaves some samples undecidable, and calibrate."""
    work, data = learnable.work(folder), learnable.dataset(folder, noise=2.5, test=TEST_SAMPLES)
    facts = learnable.facts(data)
    checkpoint = learnable.trained(work, data, learnable.network(folder), epochs=3)
    quantized = tuple(
        quantize(
            work,
            data=data,
            facts=facts,
            checkpoint=checkpoint,
            spec=QuantizeSpec(method="ptq", margin_pp=100),
            train=TrainSpec(batch_size=32),
            weight_bits=bits,
            seed=0,
            threads=1,
            device="cpu",
        )
        for bits in BITS
    )
    return Made(work=work, data=data, facts=facts, checkpoint=checkpoint, quantized=quantized)
