"""What is passed on names no folder of the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report.document import report_json
from pipeline.report.places import passed_on, without_folders
from tests.report.recorded import FOLDER, Recorded


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/ann/work/recipe.toml", "…/recipe.toml"),
        ("/home/ann/my pictures/", "…/my pictures"),
        ("~/work/recipe.toml", "…/recipe.toml"),
        ("~ann/recipe.toml", "…/recipe.toml"),
        (r"C:\Users\ann\recipe.toml", "…/recipe.toml"),
        ("--out=/home/ann/runs/a", "--out=…/a"),
        ("finetune.start=weights:/home/ann/w.pt", "finetune.start=weights:…/w.pt"),
        ("runs/a", "runs/a"),
        ("../a/recipe.toml", "../a/recipe.toml"),
        ("train.epochs=5", "train.epochs=5"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("data=https://example.org/a/b", "data=https://example.org/a/b"),
        ("3 / 4", "3 / 4"),
    ],
)
def test_words(word: str, shown: str) -> None:
    assert without_folders(word) == shown


def test_a_run_keeps_all_but_its_folders(digits: Recorded) -> None:
    outcome = digits.outcome
    card = outcome.data.card.model_copy(update={"own": {"folder": "/home/ann/pictures"}, "classes": ("/m/01/a", "b")})
    network = replace(outcome.network, path=Path("/home/ann/net.py"))
    told = replace(outcome, data=replace(outcome.data, card=card, folder=Path("/home/ann/cards")), network=network)
    shared = passed_on(told)
    assert shared.data.card.own == {"folder": "…/pictures"}
    assert shared.data.card.classes == ("/m/01/a", "b")
    assert shared.network.path == Path("…/net.py")
    assert replace(shared, data=outcome.data, network=outcome.network) == passed_on(outcome)
    assert "/home/ann" not in report_json(shared, FOLDER)
    assert "/home/ann" in report_json(told, FOLDER)
