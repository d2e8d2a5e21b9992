"""What was read out of Python files is recalled for the same content alone, and lies where compiled code lies."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.reading import Reader, Source

WHEEL = Source(digest="1" * 64, imports=frozenset({"toy", "toy.axle"}))
ASKING = (
    "from pipeline.runs import keys; print(keys.ingredients('pipeline.stages.report', 'report', {}).key,"
    " keys._reader().is_new, len(keys._reader().kept))"
)


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    file = tmp_path / "maker.py"
    file.write_text("read = 1\n")
    return file


class Asked:
    """A reader's way to read, which counts how often it is asked."""

    def __init__(self) -> None:
        self.questions: list[tuple[bytes, str]] = []

    def __call__(self, content: bytes, module: str) -> Source:
        self.questions.append((content, module))
        return WHEEL


def kept(maker: Path) -> Reader:
    reader = Reader(Asked(), made_by=str(maker))
    assert reader.source(b"import toy.axle\n", "toy.wheel") == WHEEL
    reader.keep()
    return reader


def recalls(maker: Path, content: bytes = b"import toy.axle\n", module: str = "toy.wheel") -> bool:
    asked = Asked()
    assert Reader(asked, made_by=str(maker)).source(content, module) == WHEEL
    return not asked.questions


def test_the_same_content_is_recalled_and_no_other(maker: Path) -> None:
    kept(maker)
    assert recalls(maker)
    assert not recalls(maker, b"import toy.bolt\n")
    assert not recalls(maker, module="toy.__init__")  # relative imports mean something else there


def test_nothing_is_recalled_once_its_maker_changed(maker: Path) -> None:
    before = maker.stat()
    kept(maker)
    maker.write_text("read = 2\n")
    os.utime(maker, ns=(before.st_atime_ns, before.st_mtime_ns))  # same time, same size
    assert not recalls(maker)


@pytest.mark.parametrize("old", ["1" * 64, "toy.axle"])
def test_an_altered_file_is_not_believed(maker: Path, old: str) -> None:
    file = kept(maker).file
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, old[::-1].replace("1", "2", 1)))
    assert not recalls(maker)


@pytest.mark.parametrize("text", ["", "[]", "{}", "1", '{"entries": [1]}', '{"entries": {"a": 1}}', "\udcff"])
def test_what_is_no_such_file_is_passed_over_and_written_anew(maker: Path, text: str) -> None:
    file = kept(maker).file
    file.write_text(text, errors="surrogateescape")
    assert not recalls(maker)
    kept(maker)
    assert recalls(maker)


def test_an_entry_of_another_shape_is_passed_over(maker: Path) -> None:
    reader = kept(maker)
    entries = {"a": 1}
    seal = hashlib.sha256(json.dumps([reader.version, entries], sort_keys=True).encode()).hexdigest()
    reader.file.write_text(json.dumps({"seal": seal, "entries": entries}))
    assert not recalls(maker)


def test_nothing_is_written_where_no_compiled_code_is(maker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reader = kept(maker)
    assert not reader.file.parent.exists()


def test_a_folder_that_cannot_be_written_to_is_no_trouble(maker: Path) -> None:
    (maker.parent / "__pycache__").write_text("")  # a file in its place: root may write everywhere else
    kept(maker)
    assert not recalls(maker)


def test_it_is_written_beside_the_compiled_code_and_leaves_nothing_else(maker: Path) -> None:
    reader = kept(maker)
    assert [file.name for file in reader.file.parent.iterdir()] == [reader.file.name]
    assert reader.file.parent == maker.parent / "__pycache__"


def test_a_key_is_the_same_read_and_recalled(tmp_path: Path) -> None:
    def asked(*flags: str) -> list[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, *flags, "-c", ASKING], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.split()

    key, unkept, files = asked("-B")
    assert int(files) > 50
    assert unkept == "True"
    assert asked() == [key, "False", files]
    assert len(list(tmp_path.rglob("keys.*.sources.json"))) == 1
    assert asked() == [key, "False", files]
    assert not list(tmp_path.rglob("keys.*.sources.[0-9]*"))
