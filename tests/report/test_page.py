"""The page as text: complete, self-contained, harmless, the same every time."""

from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.artifacts.evidence import Place
from pipeline.artifacts.files import LayerCost
from pipeline.artifacts.outcome import Check, Commit
from pipeline.artifacts.training import Paid, Pruned, PruneStep
from pipeline.catalog import load_target
from pipeline.errors import StorageError
from pipeline.instruments import counts
from pipeline.report import sentences
from pipeline.report.page import render
from pipeline.runs.store import Store
from tests.judging.cases import INT8_ONNX
from tests.report.recorded import FOLDER, Recorded
from tests.report.variations import (
    HOST,
    HOSTILE,
    LAPTOP,
    PI,
    float_only,
    judged_anew,
    untimed,
    with_checks,
    with_targets,
    with_unpruned,
)

VOID = {"meta", "link", "br", "img"}
HERE = Place(how="measured", name="AMD EPYC")


class Outline(HTMLParser):
    """Checks that tags close in order; collects addresses, ids and section headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"{tag} has {key}"
            if key in ("src", "href", "action", "data", "srcset", "poster"):
                self.addresses.append(value or "")
            if key == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def words(text: str) -> str:
    """Return what is read on the page."""
    bare = re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(bare).replace("\u00a0", " ").split())


def quick(run: Recorded) -> str:
    """Return what is read on the page without the task's figures and the curves, which take long to draw."""
    outcome = run.outcome
    untrained = {
        bits: dataclasses.replace(each, checkpoint=dataclasses.replace(each.checkpoint, history=()))
        for bits, each in outcome.quantized.items()
    }
    steps = outcome.pruned.steps if outcome.pruned else ()
    bare = run.but(trained=None, finetuned=None, quantized=untrained, pruned=_bare_pruned(outcome.pruned, steps))
    return words(render(bare.outcome, bare.store, FOLDER))


def _bare_pruned(found: Pruned | None, steps: tuple[PruneStep, ...]) -> Pruned | None:
    if found is None:
        return None
    return dataclasses.replace(found, checkpoint=dataclasses.replace(found.checkpoint, history=()), steps=steps)


def pruned(*steps: PruneStep, run: Recorded) -> Recorded:
    assert run.outcome.pruned is not None
    return run.but(pruned=Pruned(checkpoint=run.outcome.pruned.checkpoint, steps=steps))


def step(paid: Paid | None, *, index: int = 1, kept: bool = True) -> PruneStep:
    return PruneStep(
        index=index,
        macs_before=1000,
        macs_after=700,
        parameters_before=100,
        parameters_after=80,
        paid=paid,
        val_metric_before=0.986,
        val_metric_after=0.985,
        kept=kept,
        why="17 % faster",
    )


TIMED = Paid(ratio=0.83, low=0.79, high=0.88, of="latency", place=HERE)
COUNTED = Paid(ratio=0.7, low=0.7, high=0.7, of="macs", place=counts.PLACE)


@pytest.mark.parametrize("name", ["digits", "plane", "float"])
def test_the_page_is_well_formed_and_loads_nothing(digits: Recorded, plane: Recorded, name: str) -> None:
    runs = {"digits": with_targets(digits, PI, HOST), "plane": plane, "float": float_only(digits)}
    text = runs[name].page()
    outline = Outline(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(each.startswith(("data:image/png", "data:,", "#")) for each in outline.addresses)
    for address in outline.addresses:
        if address.startswith("#"):
            assert address[1:] in outline.ids
    assert "script" not in outline.tags
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text
    assert len(text) < 900_000


def test_the_same_outcome_gives_the_same_bytes(digits: Recorded, whole: str) -> None:
    assert digits.page() == whole


def test_sections_come_in_the_promised_order(whole: str) -> None:
    order = ["verdict", "comparison", "training", "answers", "layers", "latency", "missing", "repeat"]
    places = [whole.index(f'<section id="{each}">') for each in order]
    assert places == sorted(places)


def test_the_page_says_what_matters(digits: Recorded, whole: str) -> None:
    text, where = words(whole), digits.outcome.places[0].name
    for part in (
        "exact McNemar test",
        "true gap of",
        "The margin of 1.00 pp",
        "What the head start is worth",
        "Pruning",
        f"Whether a step paid was decided by latency measured on {where}.",
        "never shipped",
        "Confusion, torch float",
        "Recall per class",
        "nodes run as integer kernels",
        "Saturation on x86 without VNNI",
        f"Latency measured on {where}, not on {PI}",
        f"latency p95 of ONNX int8 (onnxruntime) on {PI}",
        "same decision as trained (int8)",
        "classification, judged by accuracy (higher is better)",
        f"8-bit weights: {PI}",
        "ONNX int8 (7-bit weights)",
        "tflite-runtime",
    ):
        assert part in text, part


def test_another_tasks_page_speaks_of_its_own_metric(plane: Recorded) -> None:
    text = words(plane.page())
    for part in ("Predicted against true", "validation RMSE", "than float in RMSE", "judged by RMSE (lower is better)"):
        assert part in text, part
    assert "accuracy" not in text.lower()
    assert "confus" not in text.lower()


def rows_of_ways(text: str) -> list[dict[str, str]]:
    """Return the tables of all ways of running: way → what is read in its row."""
    tables = re.findall(r"<thead><tr><th scope=\"col\">way of running.*?</table>", text, flags=re.DOTALL)
    rows = [[words(row) for row in re.findall(r"<tr class.*?</tr>", table, flags=re.DOTALL)] for table in tables]
    return [{" ".join(row.split()[:3]): row for row in table} for table in rows]


def test_each_latency_has_one_value_and_its_origin(whole: str) -> None:
    assert words(whole).count("measured p50, ms measured p95, ms") == 3
    floats = [table["ONNX float onnxruntime"] for table in rows_of_ways(whole)]
    assert len(floats) == 3
    assert len(set(floats)) == 1  # of every target the same row, memory included


def test_the_typed_command_is_shown_with_its_threads(digits: Recorded, whole: str) -> None:
    def repeat(*typed: str) -> str:
        return sentences.repeat_command(digits.outcome, ("karui", "run", "digits", *typed))

    assert repeat("--out", "my runs/a") == "karui run digits --out 'my runs/a' --threads 1"
    assert repeat("--threads", "3") == "karui run digits --threads 3"
    assert repeat("--threads=3") == "karui run digits --threads=3"
    assert f"karui run digits --target {PI} --target {LAPTOP} --target {HOST} --threads 1" in words(whole)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((step(TIMED),), "whether pruning step 1 paid was decided by a measured time"),
        ((step(TIMED), step(TIMED, index=2)), "whether pruning steps 1, 2 paid was decided by a measured time"),
        ((step(COUNTED),), ""),
        ((step(None, kept=False),), ""),
        ((), ""),
    ],
)
def test_how_to_repeat_is_true(digits: Recorded, steps: tuple[PruneStep, ...], said: str) -> None:
    text = " ".join(sentences.repeat_sentences(pruned(*steps, run=digits).outcome))
    assert "with 1 thread and the same versions" in text
    assert ("decided by a measured time" in text) == bool(said)
    assert said in text


def test_pruning_says_what_decided(digits: Recorded) -> None:
    timed = quick(pruned(step(TIMED), step(TIMED, index=2, kept=False), run=digits))
    assert "1 of 2 steps kept" in timed
    assert "decided by latency measured on AMD EPYC." in timed
    assert "0.83 0.79 – 0.88 measured" in timed
    counted = quick(pruned(step(COUNTED), run=digits))
    assert "decided by a count of MACs." in counted
    assert "0.70 estimated" in counted
    assert "None of the 2 steps" in sentences.prune_result((step(None, kept=False), step(None, kept=False)))


def test_hostile_names_are_escaped_everywhere(digits: Recorded) -> None:
    quote = '"><img src=x onerror=alert(1)>'
    outcome = digits.outcome
    layers = (LayerCost(layer=HOSTILE, op=quote, output_shape=(2,), parameters=1, macs=1),)
    names = (HOSTILE, quote, *outcome.facts.classes[2:])
    place = Place(how="measured", name=quote)
    run = dataclasses.replace(digits, dataset=dataclasses.replace(digits.dataset, classes=names)).but(
        run=HOSTILE,
        summary=quote,
        versions={HOSTILE: quote},
        facts=dataclasses.replace(outcome.facts, classes=names),
        exports=tuple(dataclasses.replace(each, layers=layers) for each in outcome.exports),
        observed=(dataclasses.replace(outcome.observed[0], place=place, not_usable={HOSTILE: quote}, executed=()),),
    )
    text = run.page(("karui", HOSTILE))
    outline = Outline(text)
    assert "script" not in outline.tags
    assert outline.open == []
    assert "x" not in outline.addresses
    assert HOSTILE in words(text)
    assert HOSTILE not in text


def test_without_int8_nothing_is_said_about_it(digits: Recorded) -> None:
    text = words(float_only(digits).page())
    assert "There is no int8 file to compare with." in text
    assert "Float is wrong" in text
    assert "Confusion, ONNX int8" not in text


def test_without_times_nothing_is_invented(digits: Recorded) -> None:
    text = quick(untimed(digits))
    assert f"Latency: not measured (neither here nor on {PI})" in text
    assert "Single inferences" not in text


def test_a_run_without_pruning_and_head_start(digits: Recorded) -> None:
    text = quick(digits.but(pruned=None))
    assert "Pruning" not in text
    assert "head start" not in text


def test_on_the_target_itself_nothing_is_missing(digits: Recorded) -> None:
    text = quick(with_targets(digits, HOST))
    assert "on the target: not measured" not in text
    assert "not on host" not in text
    assert "The files ran elsewhere" not in text


def test_a_limit_is_shown_with_its_certainty(digits: Recorded) -> None:
    def check(got: float | None, low: float | None, high: float | None) -> Check:
        return Check(
            quantity="accuracy",
            variant=INT8_ONNX,
            bound="at least",
            limit=0.97,
            unit="share",
            got=got,
            low=low,
            high=high,
        )

    found = {
        "✓ met accuracy (int8) ≥ 97.00 % 98.00 % 97.50 … 98.50 %": (0.98, 0.975, 0.985),
        "≈ met, not for sure accuracy (int8) ≥ 97.00 % 97.50 % 96.00 … 98.50 %": (0.975, 0.96, 0.985),
        "✗ missed, not for sure accuracy (int8) ≥ 97.00 % 96.50 %": (0.965, 0.96, 0.985),
        "✗ missed accuracy (int8) ≥ 97.00 % 91.00 %": (0.91, 0.90, 0.92),
        "? open accuracy (int8) ≥ 97.00 % not measured": (None, None, None),
    }
    text = quick(with_checks(digits, *(check(*ends) for ends in found.values())))
    assert [said for said in found if said not in text] == []


def test_missing_arrays_are_named(digits: Recorded, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        render(digits.outcome, Store(tmp_path), FOLDER)


def test_saturation_is_an_alarm_only_where_a_target_saturates(digits: Recorded) -> None:
    eight = with_targets(digits, PI)
    assert "No target of these files computes that way." in quick(eight)
    profile = load_target(LAPTOP).model_copy(update={"weight_bits": 8, "runtime": "onnxruntime"})
    avx2 = judged_anew(digits, *digits.outcome.observed, profile=profile)
    assert "✗ can saturate" in quick(avx2)
    assert "computes that way" not in quick(avx2)
    seven = quick(with_targets(digits, LAPTOP))
    assert "No layer can reach that." in seven


def test_the_page_says_when_from_what_and_with_which_settings(digits: Recorded, whole: str) -> None:
    one = with_targets(digits, PI)
    settings = {
        "seed": "7",
        "data": '"digits"',
        "train.epochs": "12",
        "train.augment.flip": "true",
        "start.data": '"x"',
    }
    commit = Commit(sha="1a2b3c4d5e", changed=True)
    page = one.but(started="2026-01-02T03:04:05.678+00:00", commit=commit, settings=settings).page()
    assert "2026-01-02 03:04 UTC, " in page
    assert "of work, seed 7, commit 1a2b3c4d5e, with uncommitted changes</p>" in page
    assert "<dt>all stages</dt><dd>seed = 7, data = &#34;digits&#34;</dd>" in page
    assert "<dt>train</dt><dd>epochs = 12, augment.flip = true</dd>" in page
    plain = one.but(started="2026-01-02T03:04:05.678+00:00", commit=Commit(sha="1a2b", changed=None)).page()
    assert "commit 1a2b</p>" in plain
    assert "commit" not in whole.split("<nav", maxsplit=1)[0].split("</style>")[1]


def test_hints_stand_beside_the_verdict_and_nothing_in_them_acts(digits: Recorded, whole: str) -> None:
    page = with_targets(digits, PI).but(hints=("a picture is in both splits (\u202ecat/<b>.png)",)).page()
    assert '<li class="any">A picture is in both splits (\\u202ecat/&lt;b&gt;.png).</li>' in page
    assert "Worth a look" not in whole


def test_tables_can_be_heard(digits: Recorded) -> None:
    page = with_unpruned(digits).page()
    assert not re.findall(r"<th(?! scope=\"(?:col|row)\")[\s>]", page)
    tables = page.count("<table")
    assert tables > 8
    assert len(re.findall(r"<table[^>]*><caption>[^<]+</caption>", page)) == tables
