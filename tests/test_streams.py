"""Who reads what is printed: closed pipes, ASCII alone, programs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.own_project import KARUI, Karui, draw, in_a_process
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture


@pytest.fixture
def known(karui: Karui) -> Karui:
    """Train a recipe, so that the next run only recalls."""
    recipe = karui.recipe(options='hidden = "32"')
    recipe.write_text(recipe.read_text().replace("[train]\nepochs = 1\n", "[train]\nepochs = 10\n"))  # beats chance
    assert karui("run", "mine.toml", "--set", "quantize.method=none").status == 0
    return karui


RECALLED = "run mine.toml --set quantize.method=none"

# redirection → exit status
REDIRECTIONS = {"| head -1": 0, "--json | head -1": 0, ">&-": 0, "--json >&- 2>&-": 0, ">/dev/full": 1}


def test_streams_that_do_not_listen(known: Karui) -> None:
    for redirection, status in REDIRECTIONS.items():
        command = f"{' '.join(KARUI)} {RECALLED} {redirection}"
        done = subprocess.run(["bash", "-c", command], cwd=known.folder, capture_output=True, text=True, check=False)
        assert done.returncode == status, redirection
        assert not any(words in done.stderr for words in ("Traceback", "Exception", "bug in karui")), done.stderr
        assert ("the result cannot be printed: [Errno 28]" in done.stderr) == bool(status)


def test_ascii_alone_is_enough(karui: Karui) -> None:
    draw(Path("pictures"), ["kätze", "dog"], 40, side=8)
    karui.picture_card(side=8)
    karui.recipe(data="pictures-card.toml")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = ("run", "mine.toml", "--set", "quantize.method=none", "--set", "train.epochs=20", "--allow-open")
    assert karui(*command).status == 0
    table = in_a_process(*command, cwd=karui.folder, env=ascii_only)
    assert table.returncode == 0, table.stderr
    assert table.stdout.isascii()
    assert re.search(r"^(ok|~) raspberry-pi-4b: ship TFLite float", table.stdout, re.MULTILINE)
    document = in_a_process(*command, "--json", "--quiet", cwd=karui.folder, env=ascii_only)
    assert document.stdout.isascii()
    assert json.loads(document.stdout)["recipe"] == "mine"
    assert document.stderr == ""
    wrong = in_a_process("run", "mine.toml", "--set", "data=dügits", cwd=karui.folder, env=ascii_only)
    assert wrong.returncode == 2
    assert "did you mean 'digits'?" in wrong.stderr


def test_json_is_one_document(known: Karui) -> None:
    met = known("run", "mine.toml", "--set", "quantize.method=none", "--json")
    assert met.status == 0
    assert json.loads(met.out)["targets"][0]["passed"] is True
    missed = known("run", "mine.toml", "--set", "quantize.method=none", "--json", "--set", "limits.accuracy_min=1")
    assert missed.status == 3
    assert json.loads(missed.out)["targets"][0]["passed"] is False
    refused = known("run", "mine.toml", "--json", "--set", "train.epochs=-1")
    assert refused.status == 2
    assert json.loads(refused.out) == {
        "error": {
            "what": "[train] epochs = -1: expected at least 0",
            "where": "--set train.epochs=-1",
            "remedy": "",
            "exit_status": 2,
        }
    }
    assert "error: --set train.epochs=-1: [train] epochs = -1" in refused.err
    beside = known("compare", "mine", "mine", "--json")
    assert json.loads(beside.out)["warnings"] == []
    assert json.loads(beside.out)["differences"][0]["difference"] == 0
    misused = known("run", "mine.toml", "--json", "--threads", "0")
    assert json.loads(misused.out)["error"]["exit_status"] == misused.status == 2
