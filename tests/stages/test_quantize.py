"""quantize: calibration, training with rounding, distillation, and layers that go back to float to keep the margin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import tasks
from pipeline.artifacts.files import ExportSet
from pipeline.artifacts.networks import DataFacts, DataRef
from pipeline.artifacts.training import Checkpoint, Quantized
from pipeline.data.load import load, reference
from pipeline.declare.recipe import QuantizeSpec, TrainSpec
from pipeline.networks.checkpoints import put_weights, restore_float, restore_prepared, restore_quantized
from pipeline.networks.edits import apply
from pipeline.networks.pruning import plan
from pipeline.runs.run import Work
from pipeline.runtimes import open_session, unavailable
from pipeline.stages.export import export
from pipeline.stages.quantize import fewest_that_keep, quantize
from pipeline.training import loop as training
from pipeline.training.batches import hold
from pipeline.training.loop import evaluate
from tests import learnable
from tests.stages.test_export import runtimes_of

TRAIN = TrainSpec(batch_size=32)
LAYERS = ["x", "body.0", "body.3", "body.6", "fc"]  # input, two convolutions, mean, head


@dataclass(frozen=True, kw_only=True)
class Made:
    """A trained float network and what it was trained on."""

    work: Work
    data: DataRef
    facts: DataFacts
    checkpoint: Checkpoint

    def quantized(self, *, bits: int = 8, seed: int = 0, train: TrainSpec = TRAIN, **settings: Any) -> Quantized:
        spec = {"method": "ptq", "margin_pp": 100, "epochs": 1, **settings}
        return quantize(
            self.work,
            data=self.data,
            facts=self.facts,
            checkpoint=self.checkpoint,
            spec=QuantizeSpec.model_validate(spec),
            train=train,
            weight_bits=bits,
            seed=seed,
            threads=1,
            device="cpu",
        )

    def exported(self, quantized: Quantized) -> ExportSet:
        return export(self.work, name="small", data=self.data, facts=self.facts, weights=quantized, runtimes={})

    def value(self, network: nn.Module) -> float:
        val = hold(load(self.data).val, self.facts.frontend, torch.device("cpu"))
        return evaluate(network, val, tasks.named(self.data.card.task)).value

    def integers(self, quantized: Quantized) -> float:
        return self.value(restore_quantized(quantized, self.work.store))

    def restored(self, quantized: Quantized) -> dict[str, Tensor]:
        return restore_prepared(quantized, self.work.store).state_dict()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("quantize")
    work, data, ref = learnable.work(folder), learnable.dataset(folder, noise=1.5), learnable.network(folder)
    checkpoint = learnable.trained(work, data, ref, epochs=5, learning_rate=3e-2)
    return Made(work=work, data=data, facts=learnable.facts(data), checkpoint=checkpoint)


@pytest.fixture
def made(trained: Made, tmp_path: Path) -> Made:
    return replace(trained, work=learnable.again(trained.work, tmp_path))


# ── calibration ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("calibration", ["min-max", "percentile", "mse"])
def test_calibration_alone_keeps_the_metric(made: Made, calibration: str) -> None:
    result = made.quantized(calibration=calibration)
    assert (result.method, result.weight_bits, result.float_layers) == ("ptq", 8, ())
    assert result.checkpoint.val_metric == result.ptq_val_metric
    assert result.checkpoint.val_metric == made.integers(result)
    assert result.checkpoint.val_metric >= made.checkpoint.val_metric - 0.05
    assert result.checkpoint.history == ()
    assert [row.layer for row in result.layers] == LAYERS
    assert all(row.precision == "int8" for row in result.layers)
    assert all(row.output_sqnr_db > 15 for row in result.layers)
    assert [row.weight_sqnr_db is not None for row in result.layers] == [False, True, True, False, True]


def test_ranges_follow_the_method(made: Made) -> None:
    tops = {
        method: float(made.restored(made.quantized(calibration=method))["quantizers.x.high"])
        for method in ("min-max", "mse", "percentile")
    }
    inputs = load(made.data).train
    assert tops["min-max"] <= inputs.read(np.arange(len(inputs))).inputs["input"].max()
    assert tops["mse"] < tops["min-max"]
    half = made.quantized(calibration="percentile", percentile=95)
    assert float(made.restored(half)["quantizers.x.high"]) < tops["percentile"] <= tops["min-max"]


def test_the_same_inputs_give_the_same_file(made: Made, tmp_path: Path) -> None:
    other = replace(made, work=learnable.again(made.work, tmp_path / "other"))
    for method in ("ptq", "qat"):
        first, second = made.quantized(method=method), other.quantized(method=method)
        assert first.checkpoint.weights == second.checkpoint.weights
        assert first.layers == second.layers


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_have_so_many_bits(made: Made, bits: int) -> None:
    result = made.quantized(bits=bits)
    frozen = restore_quantized(result, made.work.store)
    weights = [module.weight for module in frozen.modules() if type(module).__name__ == "FrozenWeighted"]
    assert len(weights) == 3
    assert max(float(weight.abs().max()) for weight in weights if isinstance(weight, Tensor)) == 2 ** (bits - 1) - 1
    assert result.weight_bits == bits
    assert result.checkpoint.val_metric >= made.checkpoint.val_metric - 0.05


def test_no_quantization_hands_the_float_network_on(made: Made) -> None:
    result = made.quantized(method="none")
    assert (result.method, result.checkpoint, result.layers) == ("none", made.checkpoint, ())


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ranges", ["ema", "lsq"])
def test_training_with_rounding(made: Made, ranges: str) -> None:
    result = made.quantized(method="qat", ranges=ranges, epochs=3, learning_rate=1e-3)
    assert [epoch.phase for epoch in result.checkpoint.history] == ["qat"] * 3
    assert result.checkpoint.val_metric == made.integers(result)
    assert result.checkpoint.val_metric >= result.ptq_val_metric
    state = made.restored(result)
    assert any(name.endswith("log_scale") for name in state) is (ranges == "lsq")
    assert not torch.equal(state["body.0.weight"], made.restored(made.quantized())["body.0.weight"])


def test_learned_steps_move(made: Made) -> None:
    result = made.quantized(method="qat", ranges="lsq", epochs=3, learning_rate=1e-2)
    state, start = made.restored(result), made.restored(made.quantized())
    name = next(key.removesuffix(".log_scale") for key in state if key.endswith(".log_scale"))
    before = float((start[f"{name}.high"] - start[f"{name}.low"]) / 255)
    assert float(state[f"{name}.log_scale"].exp()) != pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("ranges", ["ema", "lsq"])
def test_training_that_makes_it_worse_is_dropped(made: Made, ranges: str) -> None:
    result = made.quantized(method="qat", ranges=ranges, learning_rate=0.3)
    assert max(epoch.val_metric for epoch in result.checkpoint.history) < result.ptq_val_metric  # else no test
    assert result.checkpoint.weights == made.quantized(method="ptq").checkpoint.weights
    assert result.checkpoint.val_metric == result.ptq_val_metric


def test_full_distillation_needs_no_labels(made: Made, tmp_path: Path) -> None:
    """Other labels for the training samples change nothing; without distillation they do."""
    x, y = learnable.pictures(200, 0, noise=1.5)
    for name in ("val-4.npz", "test-4.npz"):
        (tmp_path / name).write_bytes((made.data.folder / name).read_bytes())
    np.savez(tmp_path / "train-4.npz", x=x, y=(y + 1) % 4)
    wrong = replace(made, data=reference(made.data.card, tmp_path))
    indices = np.arange(0, 200, 3)
    np.save(tmp_path / "calibration.npy", indices)
    for distill, same in ((1.0, True), (0.5, False)):
        how: dict[str, Any] = {"method": "qat", "distill": distill, "epochs": 2, "learning_rate": 1e-3}
        results = [each.quantized(**how) for each in (with_indices(made, tmp_path), with_indices(wrong, tmp_path))]
        trained = [result.checkpoint.history[-1].train_loss for result in results]
        assert (trained[0] == trained[1]) is same
        clear_scratch(made.work)


def with_indices(made: Made, folder: Path) -> Made:
    """Choose the calibration samples by index: the draw looks at the labels."""
    calibration = made.data.card.calibration.model_copy(update={"indices": str(folder / "calibration.npy")})
    card = made.data.card.model_copy(update={"calibration": calibration})
    clear_scratch(made.work)
    return replace(made, data=reference(card, made.data.folder))


def clear_scratch(work: Work) -> None:
    for file in work.scratch.iterdir():
        file.unlink()


def test_augmentation_and_batch_size_are_those_of_training(made: Made) -> None:
    plain = made.quantized(method="qat")
    noisy = TrainSpec.model_validate({"batch_size": 32, "augment": {"noise": 0.5}})
    assert made.quantized(method="qat", train=noisy).checkpoint.history[0].train_loss != pytest.approx(
        plain.checkpoint.history[0].train_loss, rel=1e-6
    )


class StoppedError(Exception):
    """Stands for kill -9."""


class Stopping(learnable.Listening):
    """Raises at the second report of a loss."""

    left = 2

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.left -= bool(steps and numbers)
        if not self.left:
            raise StoppedError


@pytest.mark.parametrize("ranges", ["ema", "lsq"])
def test_a_stopped_training_goes_on(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ranges: str) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", -1.0)
    how: dict[str, Any] = {"method": "qat", "ranges": ranges, "epochs": 3, "distill": 0.5, "learning_rate": 1e-3}
    undisturbed = made.quantized(**how)
    with pytest.raises(StoppedError):
        replace(made, work=learnable.again(made.work, tmp_path / "b", Stopping())).quantized(**how)
    resumed = replace(made, work=learnable.again(made.work, tmp_path / "b")).quantized(**how)
    assert resumed.checkpoint.weights == undisturbed.checkpoint.weights


def test_a_pruned_network_is_quantized(made: Made) -> None:
    network = restore_float(made.checkpoint, made.work.store)
    edits = plan(network, learnable.SHAPE, channel_share=0.3, round_to=1)
    weights = put_weights(apply(network, edits).state_dict(), made.work.store)
    pruned = replace(made, checkpoint=replace(made.checkpoint, weights=weights, edits=edits))
    result = pruned.quantized(method="qat")
    assert result.checkpoint.edits == edits
    assert pruned.integers(result) > 0.3
    assert len(pruned.exported(result).files) == 2


# ── the margin ──────────────────────────────────────────────────────────────────────────────────────────────────────


def damaged(made: Made, layer: str) -> Made:
    """Give each output channel of a layer one huge weight, on an input that is always zero.

    The float network computes what it did; the layer's int8 weights all become zero but for those.
    """
    tensors = dict(safetensors.torch.load(made.work.store.get(made.checkpoint.weights)))
    norm = {"body.3": "body.1", "fc": "body.4"}[layer]
    tensors[f"{norm}.weight"][0], tensors[f"{norm}.bias"][0] = 0.0, -1.0  # ReLU makes it zero
    tensors[f"{layer}.weight"][:, 0] = 0.0
    checkpoint = replace(made.checkpoint, weights=put_weights(tensors, made.work.store))
    dead = replace(made, checkpoint=checkpoint)
    reached = dead.value(restore_float(checkpoint, made.work.store))
    tensors[f"{layer}.weight"][:, 0] = 1000.0
    weights = put_weights(tensors, made.work.store)
    same = replace(checkpoint, weights=weights, val_metric=reached)
    assert dead.value(restore_float(same, made.work.store)) == reached > 0.5
    return replace(made, checkpoint=same)


@pytest.mark.parametrize("layer", ["body.3", "fc"])
@pytest.mark.parametrize("how", ["ptq", "ema", "lsq"])
def test_the_worst_layer_goes_back_to_float_until_the_margin_is_met(
    made: Made, tmp_path: Path, layer: str, how: str
) -> None:
    said = learnable.Listening()
    bad = damaged(replace(made, work=learnable.again(made.work, tmp_path / "bad", said)), layer)
    settings: dict[str, Any] = (
        {"method": "ptq"} if how == "ptq" else {"method": "qat", "ranges": how, "learning_rate": 1e-4}
    )
    unhelped = bad.quantized(**settings)
    assert unhelped.checkpoint.val_metric < bad.checkpoint.val_metric - 0.1
    result = bad.quantized(**settings, margin_pp=3)
    assert result.float_layers == (layer,)
    assert result.checkpoint.val_metric >= bad.checkpoint.val_metric - 0.03
    assert {row.layer for row in result.layers if row.precision == "fp32"} == {layer}
    assert min(result.layers, key=lambda row: row.output_sqnr_db).layer == layer
    assert said.lines[-1].startswith(f"{layer} back to float: ")

    mixed = restore_prepared(result, made.work.store)
    assert result.checkpoint.val_metric == bad.integers(result)
    # calibration alone is far worse here, so the learned steps of all other layers stay
    assert any(name.endswith("log_scale") for name in mixed.state_dict()) is (how == "lsq")
    check_files(bad, result, layer)


def check_files(made: Made, result: Quantized, layer: str) -> None:
    """See that the mixed network's files name the float layer, and agree with torch in every runtime."""
    frozen = restore_quantized(result, made.work.store)
    x, _ = learnable.pictures(200, 7, noise=1.5)
    with torch.no_grad():
        wanted = frozen(torch.from_numpy(x)).numpy()
    files = made.exported(result).files
    assert [file.variant.format for file in files] == ["onnx", "tflite"]
    for file in files:
        assert [reason.split(" ")[0] for reason in file.float_ops] == [layer]
        for runtime in runtimes_of(file):
            if unavailable(runtime):
                continue
            session = open_session(made.work.store.path(file.file), runtime, signature=file.signature, exact=True)
            got = session.run({"input": x})["output"]
            assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.99, runtime


def test_the_best_attempt_stays_where_the_margin_cannot_be_met(made: Made) -> None:
    hopeless = replace(made, checkpoint=replace(made.checkpoint, val_metric=1.01))
    result = hopeless.quantized(margin_pp=0)
    plain = made.quantized()
    assert result.checkpoint.val_metric >= plain.checkpoint.val_metric
    assert (result.float_layers == ()) is (result.checkpoint.val_metric == plain.checkpoint.val_metric)
    assert result.checkpoint.val_metric == made.integers(result)


@pytest.mark.parametrize("most", [0, 1, 3, 5, 42, 150])
def test_the_fewest_layers_are_found_by_few_tries(most: int) -> None:
    for wanted in (*range(1, most + 1), None):
        tried: list[int] = []

        def keeps(count: int, wanted: int | None = wanted, tried: list[int] = tried) -> bool:
            tried.append(count)
            return wanted is not None and count >= wanted

        assert fewest_that_keep(most, keeps) == wanted
        assert len(tried) == len(set(tried)) <= 15
        assert tried[:4] == list(range(1, min(4, wanted or most, most) + 1))


# ── ways to calibrate ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_way_to_calibrate_whose_integers_come_nearest_to_float_is_taken(
    trained: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(trained.work.progress, "say", said.append)
    best = trained.quantized(calibration="min-max")
    plain = trained.quantized(calibration="min-max", equalize=False, correct_biases=False)
    (words,) = [line for line in said if line.startswith("calibration: ")]
    found, as_it_is = (float(part.split()[-2]) for part in words.split(";"))
    assert found >= as_it_is
    assert any(
        not torch.equal(mine, theirs)
        for mine, theirs in zip(trained.restored(best).values(), trained.restored(plain).values(), strict=True)
    )


def test_learned_rounding_is_an_option_that_ends_in_files(trained: Made) -> None:
    plain = trained.quantized(bits=7)
    learned = trained.quantized(bits=7, rounding="adaround")
    assert learned.checkpoint.weights != plain.checkpoint.weights
    assert trained.integers(learned) >= trained.integers(plain) - 0.05
    assert len(trained.exported(learned).files) == 2
