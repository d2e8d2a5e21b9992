"""observe: every file of one small network in every runtime, once over the test split, with what it costs here."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.evidence import Observed, Place, Predicted
from pipeline.artifacts.files import RUNTIME_OF_FORMAT, Exported, Variant, Way
from pipeline.data.load import load
from pipeline.data.source import Batch, Indices, Subset, everything
from pipeline.host import machine_name
from pipeline.instruments import here
from pipeline.instruments.answers import load_answers
from pipeline.instruments.here import FileWay
from pipeline.onboard import timing
from pipeline.onboard.arrays import Arrays
from pipeline.onboard.session import Session
from pipeline.quant.saturation import saturation_rows
from pipeline.runs import records
from pipeline.runtimes import unavailable, version
from pipeline.stages import observe as stage
from pipeline.stages.observe import observe
from tests.stages.networks_made import BITS, TEST_SAMPLES, Made, make

PLACE = Place(how="measured", name=machine_name())
SESSIONS = 3


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What goes into the stage and what comes out."""

    made: Made
    files: tuple[Exported, ...]
    references: tuple[Predicted, ...]
    observed: Observed


def observing(
    made: Made,
    files: Iterable[Exported],
    references: Iterable[Predicted],
    *,
    threads: tuple[int, ...] = (),
    place: Place = PLACE,
) -> Observed:
    return observe(
        made.work,
        data=made.data,
        facts=made.facts,
        files=tuple(files),
        references=tuple(references),
        threads=threads,
        place=place,
        runtimes={},
    )


@pytest.fixture(scope="module")
def all_ways(tmp_path_factory: pytest.TempPathFactory) -> Observation:
    made = make(tmp_path_factory.mktemp("observe"))
    files = tuple(file for each in made.exports() for file in each.files)
    first = made.predicted(made.checkpoint)
    references = (first, *(made.predicted(each, chosen=first.chosen) for each in made.quantized))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "SESSIONS", SESSIONS)  # a process each for tflite-runtime: all of them take half a minute
        observed = observing(made, files, references, threads=(1,))
    return Observation(made=made, files=files, references=references, observed=observed)


def usable_ways(files: Iterable[Exported]) -> list[Way]:
    return [
        Way(variant=file.variant, program=runtime)
        for file in files
        for kind, runtimes in RUNTIME_OF_FORMAT.items()
        for runtime in runtimes
        if kind == file.variant.format and not unavailable(runtime)
    ]


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_file_in_every_usable_runtime_answers(all_ways: Observation) -> None:
    observed, store = all_ways.observed, all_ways.made.work.store
    assert len({file.variant.key for file in all_ways.files}) == 6  # float, 8 and 7 bits in two formats
    assert [each.way for each in observed.answers] == usable_ways(all_ways.files)
    test = load(all_ways.made.data).test
    labels = test.wanted(everything(test))["class"]
    for each in observed.answers:
        answers = load_answers(each, store)
        assert answers.outputs["output"].shape == (TEST_SAMPLES, 4)
        right = answers.outputs["output"].argmax(1) == labels
        np.testing.assert_array_equal(answers.score, right)
        assert each.value == pytest.approx(right.mean())
        assert each.low < each.value < each.high
        assert each.place == PLACE
        assert each.samples == TEST_SAMPLES
        assert each.version == version(each.way.program)  # type: ignore[arg-type]  # files are not run by torch
        assert (each.steps == {}) is (each.way.variant.precision == "fp32")
    assert set(observed.not_usable) == {
        each for each in ("onnxruntime", "litert", "tflite-runtime") if unavailable(each)
    }


def test_float_files_give_what_torch_gives(all_ways: Observation) -> None:
    store = all_ways.made.work.store
    wanted = load_answers(all_ways.references[0].answered, store).outputs["output"]
    for each in all_ways.observed.answers:
        if each.way.variant.precision == "fp32":
            got = load_answers(each, store).outputs["output"]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


def test_every_way_is_compared_with_the_float_reference_over_the_whole_split(all_ways: Observation) -> None:
    observed, store = all_ways.observed, all_ways.made.work.store
    reference = load_answers(all_ways.references[0].answered, store)
    assert [each.second for each in observed.comparisons] == [each.way for each in observed.answers]
    for compared, answered in zip(observed.comparisons, observed.answers, strict=True):
        assert compared.metric == "accuracy"
        assert compared.first == all_ways.references[0].answered.way
        got, second = compared.comparison, load_answers(answered, store)
        assert got.samples == TEST_SAMPLES
        assert got.value_float == pytest.approx(reference.value)
        assert got.difference == pytest.approx(second.value - reference.value)
        assert got.low <= got.difference <= got.high
        assert got.agreement == pytest.approx(np.mean(reference.decisions == second.decisions))
    files = [each for each in observed.comparisons if each.second.variant.precision == "fp32"]
    assert all(each.comparison.difference == pytest.approx(0, abs=1 / TEST_SAMPLES) for each in files)


def test_what_comes_of_a_network_is_compared_with_it_before_pruning_in_the_same_runtime(all_ways: Observation) -> None:
    made = all_ways.made
    before, float_onnx, int8_onnx = made.unpruned().files[0], all_ways.files[0], all_ways.files[2]
    assert (before.variant.key, before.filename) == ("onnx-fp32-unpruned", "small.fp32-unpruned.onnx")
    own = made.predicted(made.checkpoint, unpruned=True)
    seen = observing(made, (before, float_onnx, int8_onnx), (*all_ways.references, own))
    assert [each.way.variant.unpruned for each in seen.answers] == [True, False, False]
    pairs = [(each.first.variant.key, each.second.variant.key) for each in seen.comparisons]
    assert pairs == [
        ("torch-fp32", "onnx-fp32"),
        ("torch-fp32", "onnx-int8"),
        ("onnx-fp32-unpruned", "onnx-fp32"),
        ("onnx-fp32-unpruned", "onnx-int8"),
    ]
    assert seen.comparisons[2].comparison.difference == 0  # the same weights here
    assert seen.comparisons[3].comparison.value_float == pytest.approx(seen.answers[0].value)


def test_what_was_trained_is_what_runs(all_ways: Observation) -> None:
    int8 = [each.way for each in all_ways.observed.answers if each.way.variant.precision == "int8"]
    trained = [each for each in all_ways.observed.agreements if each.first.program == "torch"]
    assert [each.second for each in trained] == int8
    for each in trained:
        assert each.first.variant == dataclasses.replace(each.second.variant, format="torch")  # the same width
        # a tie of two classes may break the other way; TFLite's runtimes round their fixed-point multiplier once more
        assert each.same >= 0.99
        assert each.max_steps <= (1 if each.second.program == "onnxruntime" else 2)
        assert each.mean_steps < 0.5


def test_int8_files_of_one_width_are_compared_with_each_other(all_ways: Observation) -> None:
    between = [each for each in all_ways.observed.agreements if each.first.program != "torch"]
    for bits in BITS:
        variant = Variant(format="onnx", precision="int8", weight_bits=bits)
        ways = [each for each in usable_ways(all_ways.files) if each.variant.weight_bits == bits]
        found = [each for each in between if each.second.variant.weight_bits == bits]
        assert [each.second for each in found] == ways[1:]
        assert all(each.first == Way(variant=variant, program="onnxruntime") for each in found)


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def costs_are_told(observed: Observed, threads: tuple[int, ...]) -> None:
    ways = [each.way for each in observed.answers]
    found = {(each.quantity, each.way, each.threads): each for each in observed.measurements}
    assert len(found) == len(observed.measurements) == 3 * len(ways) * len(threads)  # one latency has one value
    for way, count in itertools.product(ways, threads):
        p50, p95 = (found[(name, way, count)] for name in ("latency_p50_ms", "latency_p95_ms"))
        assert 0 < p50.low <= p50.value <= p50.high
        assert p50.value <= p95.value
        assert p50.value < 50  # microseconds of work, on a busy machine too
        assert p50.place == p95.place == PLACE
        peak = found[("peak_memory_bytes", way, count)]
        assert peak.low == peak.value == peak.high
        assert 0 < peak.value < 2**28


def test_latency_and_memory_of_every_way(all_ways: Observation) -> None:
    costs_are_told(all_ways.observed, (1,))


def test_costs_with_every_number_of_threads_and_answers_once(all_ways: Observation) -> None:
    got = observing(all_ways.made, float_onnx(all_ways.files), all_ways.references, threads=(1, 2))
    assert [each.threads for each in got.timings] == [1, 2]
    assert {len(each.session_medians_ms) for each in got.timings} <= {*range(timing.LEAST_SESSIONS, here.SESSIONS + 1)}
    assert len(got.answers) == 1
    costs_are_told(got, (1, 2))


def test_timings_are_kept_by_session(all_ways: Observation) -> None:
    observed, store = all_ways.observed, all_ways.made.work.store
    assert [each.way for each in observed.timings] == [each.way for each in observed.answers]
    for each in observed.timings:
        samples = store.get_array(each.samples_ms)
        assert len(samples) == len(each.session_medians_ms) == SESSIONS
        np.testing.assert_allclose(np.median(samples, axis=1), each.session_medians_ms)
        found = {number.quantity: number.value for number in observed.measurements if number.way == each.way}
        assert found["latency_p95_ms"] == np.quantile(samples, 0.95, method="inverted_cdf")
        assert each.version == version(each.way.program)  # type: ignore[arg-type]  # files are not run by torch


# ── what is read off the files ──────────────────────────────────────────────────────────────────────────────────────


def test_the_executed_graph_is_read_off_every_runtime(all_ways: Observation) -> None:
    found = {each.way: each.nodes for each in all_ways.observed.executed}
    assert list(found) == usable_ways(all_ways.files)
    for way, nodes in found.items():
        assert nodes
        if way.variant.precision == "int8":
            assert [node for node in nodes if not node.integer] == []
        else:
            assert not any(node.integer for node in nodes)


def test_saturation_is_examined_in_every_int8_onnx_file_whatever_the_machine(all_ways: Observation) -> None:
    found = {each.variant.weight_bits: each for each in all_ways.observed.saturation}
    assert list(found) == list(BITS)
    for bits, each in found.items():
        file = next(file for file in all_ways.files if file.variant == each.variant)
        assert each.rows == saturation_rows(all_ways.made.work.store.path(file.file))
        assert len(each.rows) == 3  # two convolutions and the head
        assert not (bits == 7 and any(row.can_saturate for row in each.rows))


# ── how often, and where ────────────────────────────────────────────────────────────────────────────────────────────


def float_onnx(files: Iterable[Exported]) -> list[Exported]:
    return [file for file in files if file.variant == Variant(format="onnx", precision="fp32")]


def test_every_file_passes_over_the_test_split_once(all_ways: Observation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three 8-bit targets hand in the same files, three times: each runs every sample once."""
    ran: Counter[str] = Counter()
    opened = FileWay.open

    def counting(self: FileWay, **how: Any) -> Session:
        session = opened(self, **how)
        run = session.run

        def run_counted(inputs: Arrays) -> Arrays:
            ran[self.way.key] += len(inputs["input"])
            return run(inputs)

        monkeypatch.setattr(session, "run", run_counted)
        return session

    monkeypatch.setattr(FileWay, "open", counting)
    files = [file for file in all_ways.files if file.variant.weight_bits in (8, 32)]
    got = observing(all_ways.made, files * 3, all_ways.references)
    assert ran == {way.key: TEST_SAMPLES for way in usable_ways(files)}
    assert [each.way for each in got.answers] == usable_ways(files)
    assert [each.variant.weight_bits for each in got.saturation] == [8]


def test_a_source_that_reads_files_is_read_once_for_all_ways(
    all_ways: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(all_ways.made.data)
    streamed = Streamed(whole=dataset.test, indices=everything(dataset.test), read_counts=Counter())
    monkeypatch.setattr(stage, "load", lambda _: dataclasses.replace(dataset, test=streamed))
    got = observing(all_ways.made, all_ways.files, all_ways.references)
    assert [each.outputs for each in got.answers] == [each.outputs for each in all_ways.observed.answers]
    assert max(streamed.read_counts.values()) <= 2  # the first sample tells how large all are


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed(Subset):
    """Samples that are not held, and how often each was read."""

    read_counts: Counter[int]

    def read(self, indices: Indices) -> Batch:
        self.read_counts.update(indices.tolist())
        return super().read(indices)


def test_the_place_is_the_one_that_was_handed_in(all_ways: Observation) -> None:
    place = Place(how="measured", name="another name of this machine", profile="board")
    got = observing(all_ways.made, float_onnx(all_ways.files), all_ways.references, place=place)
    assert got.place == place
    assert {each.place for each in got.answers} == {place}
    assert got.summary == "1 ways of running, measured on another name of this machine"


def test_without_int8(all_ways: Observation) -> None:
    got = observing(all_ways.made, float_onnx(all_ways.files), all_ways.references[:1])
    assert (got.agreements, got.saturation) == ((), ())
    assert [each.way.variant.key for each in got.answers] == ["onnx-fp32"]
    assert len(got.comparisons) == 1


def test_a_runtime_that_is_not_usable_is_told_with_its_reason(
    all_ways: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "unavailable", lambda runtime: None if runtime == "onnxruntime" else "not installed")
    got = observing(all_ways.made, all_ways.files, all_ways.references)
    assert got.not_usable == {"litert": "not installed", "tflite-runtime": "not installed"}
    assert {each.way.program for each in got.answers} == {"onnxruntime"}


def test_it_survives_the_record(all_ways: Observation) -> None:
    assert records.from_json(Observed, records.to_json(all_ways.observed)) == all_ways.observed
