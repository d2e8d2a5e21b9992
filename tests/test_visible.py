"""Text of others on a terminal and in a page: nothing of it acts, and what people write stays as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.visible import shown_json, shown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("a\r\x00\x7f\x9b", "a\\x0d\\x00\\x7f\\x9b"),
        ("bytes \udcff", "bytes \\udcff"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("two\nlines\tand a tab", "two\nlines and a tab"),
        ("Käfer 猫 כלב 👩\u200d🔬 naïve − × →", "Käfer 猫 כלב 👩\u200d🔬 naïve − × →"),
    ],
)
def test_what_acts_is_written_out_and_the_rest_stays(text: str, shown: str) -> None:
    assert shown_text(text) == shown
    assert shown_text(shown) == shown


@given(st.text())
def test_nothing_that_is_shown_acts(text: str) -> None:
    assert not [each for each in shown_text(text) if ord(each) < 32 and each != "\n"]
    assert not set(shown_text(text)) & set(
        map(chr, [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
    )


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_the_same(table: dict[str, str]) -> None:
    document = shown_json(json.dumps(table, ensure_ascii=False, indent=2))
    assert json.loads(document) == table
    assert "\u202e" not in document
