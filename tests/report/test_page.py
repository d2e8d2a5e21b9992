"""The page as text: complete, self-contained, harmless, the same every time."""

from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.artifacts import Check, LayerCost
from pipeline.errors import StorageError
from pipeline.report.page import render, write_report
from tests.report.builder import HOSTILE, MACHINE, Made, make

FOLDER = Path("runs/digits")
VOID = {"meta", "link", "br", "img"}


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


def page(made: Made) -> str:
    return render(made.outcome, made.store, FOLDER, made.samples)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(make(tmp_path_factory.mktemp("plain")))


def words(text: str) -> str:
    """Return what is read on the page."""
    bare = re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(bare).split())


@pytest.mark.parametrize("int8", [True, False])
def test_the_page_is_well_formed_and_loads_nothing(tmp_path: Path, *, int8: bool) -> None:
    text = page(make(tmp_path, int8=int8))
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


def test_the_same_outcome_gives_the_same_bytes(tmp_path: Path, plain: str) -> None:
    assert page(make(tmp_path)) == plain


def test_sections_come_in_the_promised_order(plain: str) -> None:
    order = ["verdict", "comparison", "training", "confusion", "inputs", "layers", "latency", "missing", "repeat"]
    places = [plain.index(f'<section id="{each}">') for each in order]
    assert places == sorted(places)


def test_the_page_says_what_matters(plain: str) -> None:
    text = words(plain)
    for part in (
        "ship ONNX int8",
        "exact McNemar test",
        "true gap of",
        "The margin of 1.00 pp",
        "What the head start is worth",
        "1 of 2 steps kept",
        "did not get faster",
        "never shipped",
        "Float and int8 disagree",
        "9 of 9 nodes run as integer kernels",
        "could saturate there",
        f"measured on {MACHINE}",
        "latency p95 of ONNX int8 (onnxruntime) on raspberry-pi-4b",
        "limit on latency p95 (int8)",
        "karui run digits --target raspberry-pi-4b",
        "tflite-runtime 2.14.0",
    ):
        assert part in text.replace("\u00a0", " "), part


def test_the_typed_command_is_shown(tmp_path: Path) -> None:
    made = make(tmp_path)
    command = ("karui", "run", "digits", "--set", "train.epochs=5", "--out", "my runs/a")
    text = render(made.outcome, made.store, FOLDER, made.samples, command=command)
    assert "karui run digits --set train.epochs=5 --out 'my runs/a'" in words(text)


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    quote = '"><img src=x onerror=alert(1)>'
    layers = (LayerCost(layer=HOSTILE, op=quote, output_shape=(2,), parameters=1, macs=1),)
    made = make(tmp_path, class_names=(HOSTILE, quote), run=HOSTILE, layers=layers, samples=200)
    target = dataclasses.replace(
        made.outcome.targets[0], machine=quote, skipped_runtimes=((HOSTILE, quote),), executed={}
    )
    outcome = dataclasses.replace(made.outcome, targets=(target,), summary=quote, versions={HOSTILE: quote})
    text = render(outcome, made.store, FOLDER, made.samples, command=("karui", HOSTILE))
    outline = Outline(text)
    assert "script" not in outline.tags
    assert outline.open == []
    assert "x" not in outline.addresses
    assert HOSTILE in words(text)
    assert HOSTILE not in text


def test_without_int8_nothing_is_said_about_it(tmp_path: Path) -> None:
    text = words(page(make(tmp_path, int8=False, timed=False)))
    assert "There is no int8 file to compare with." in text
    assert "Float is wrong" in text
    assert "latency: not measured (neither here nor on raspberry-pi-4b)" in text.replace("Latency", "latency")


def test_a_run_without_pruning_and_head_start(tmp_path: Path) -> None:
    made = make(tmp_path)
    outcome = dataclasses.replace(made.outcome, finetuned=None, pruned=None)
    text = words(render(outcome, made.store, FOLDER, made.samples))
    assert "Pruning" not in text
    assert "head start" not in text


def test_on_the_target_itself_nothing_is_missing(tmp_path: Path) -> None:
    text = words(page(make(tmp_path, targets=(("host", 8),))))
    assert "on the target: not measured" not in text
    assert "not on a host" not in text


def test_every_target_has_its_verdict_and_its_layers(tmp_path: Path) -> None:
    text = words(page(make(tmp_path, targets=(("raspberry-pi-4b", 8), ("x86-laptop-avx2", 7)))))
    assert "for raspberry-pi-4b" in text
    assert "for x86-laptop-avx2" in text
    assert "8-bit weights: raspberry-pi-4b" in text
    assert "7-bit weights: x86-laptop-avx2" in text
    assert "ONNX int8 (7-bit weights)" in text


def test_report_is_written_beside_the_run(tmp_path: Path) -> None:
    made = make(tmp_path / "arrays")
    folder = tmp_path / "runs" / "digits"
    written = write_report(made.outcome, made.store, folder, made.samples)
    assert written == folder / "report.html"
    assert sorted(each.name for each in folder.iterdir()) == ["report.html", "report.json"]
    assert written.stat().st_size < 600_000


def test_missing_outputs_are_named_and_leave_the_old_page(tmp_path: Path) -> None:
    made = make(tmp_path / "arrays")
    folder = tmp_path / "run"
    write_report(made.outcome, made.store, folder, made.samples)
    before = (folder / "report.html").read_bytes()
    made.store.path(made.outcome.targets[0].columns[0].outputs).unlink()
    with pytest.raises(StorageError):
        write_report(made.outcome, made.store, folder, made.samples)
    assert (folder / "report.html").read_bytes() == before


def test_saturation_is_an_alarm_only_where_a_target_saturates(tmp_path: Path, plain: str) -> None:
    assert "No target of these files computes that way." in words(plain)
    made = make(tmp_path)
    check = Check(name="layers that can overflow 16 bits (int8)", limit=0, got=1, unit="", passed=False)
    target = made.outcome.targets[0]
    verdict = dataclasses.replace(target.verdict, checks=(*target.verdict.checks, check))
    outcome = dataclasses.replace(made.outcome, targets=(dataclasses.replace(target, verdict=verdict),))
    text = words(render(outcome, made.store, FOLDER, made.samples))
    assert "✗ can saturate" in text
    assert "computes that way" not in text
