"""What a file says about itself, as text: it comes back as it went, and what is damaged or forged is refused."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.onboard.about import (
    ARRAY,
    MOST_LABELS,
    NUMBERS,
    PICTURE,
    PROBABILITIES,
    SCORES,
    TABLE,
    About,
    Column,
    Input,
    Output,
    Raw,
    Stored,
    from_text,
    to_text,
)
from pipeline.onboard.arrays import PictureForm, TensorSpec
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.frontend import StepCall

Way = tuple[str | int, ...]  # keys and places that lead to a value in the text

PICTURES = Input(
    name="picture",
    axes="CHW",
    shape=(3, 4, 5),
    raw=Raw(PICTURE, "uint8", (3, 4, 5), colours="RGB", resize="fit", background=(1, 2, 3)),
    steps=(StepCall("normalize", {"divide": 255.0, "mean": [0.1, 0.2, 0.3], "std": [2.0]}),),
    stored=Stored("picture", "NHWC", "int8", (4, 5, 3), scale=0.1, zero_point=-128),
)
ROWS = Input(
    name="row",
    axes="F",
    shape=(4,),
    raw=Raw(TABLE, "float32", (2,), columns=(Column("size"), Column('Größe, "m"\n', ("rot", "", "grün")))),
    steps=(
        StepCall("fill", {"values": [0.5, 1.0]}),
        StepCall("one_hot", {"columns": [1], "codes": [[0, 1, 2]]}),
        StepCall("clip", {"limit": 4}),
    ),
    stored=Stored("row", "NF", "float32", (4,)),
)
SIGNAL = Input("signal", "TF", (8, 2), Raw(ARRAY, "float32", (8, 2)), (), Stored("s:0", "NTF", "float32", (8, 2)))
CLASSES = Output("output", "K", (2,), SCORES, 1.0, Stored("output", "NK", "int8", (2,), 1 / 3, 7))
SHARES = Output("shares", "K", (2,), PROBABILITIES, 1.0, Stored("shares", "NK", "float32", (2,)))
PRICE = Output("price", "T", (1,), NUMBERS, 1e-300, Stored("price", "NT", "float32", (1,)))


def about(*ends: Input | Output) -> About:
    """Describe a network with these inputs and outputs."""
    return About(
        recipe="mine",
        task="classification",
        karui="1.0",
        data="set",
        data_sha256="ab" * 32,
        labels=("Ähre", "b\nc", "\u2028", "🦀"),
        inputs=tuple(end for end in ends if isinstance(end, Input)),
        outputs=tuple(end for end in ends if isinstance(end, Output)),
    )


FULL = about(PICTURES, ROWS, SIGNAL, CLASSES, SHARES, PRICE)
WORDS: dict[str, Any] = json.loads(to_text(FULL))


def changed(way: Way, value: object = None, *, delete: bool = False) -> str:
    """Return the text of FULL with another value at one place, or without it."""
    words = copy.deepcopy(WORDS)
    place: Any = words
    for key in way[:-1]:
        place = place[key]
    if delete:
        del place[way[-1]]
    else:
        place[way[-1]] = value
    return json.dumps(words)


def ways(value: object, way: Way = ()) -> Iterator[Way]:
    """Yield the way to every value; a step's own settings are left to the step."""
    if way:
        yield way
    if isinstance(value, (dict, list)) and way[-1:] != ("settings",):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from ways(below, (*way, key))


def at(way: Way) -> Any:
    """Return the value of FULL's text at one place."""
    found: Any = WORDS
    for key in way:
        found = found[key]
    return found


def named(way: Way) -> str:
    """Return a way as the name of a test."""
    return ".".join(map(str, way))


WAYS = list(ways(WORDS))
# one way to every field: not to each label, each input …
FIELDS = list({tuple("*" if isinstance(key, int) else key for key in way): way for way in WAYS}.values())
KEYS = [way for way in FIELDS if isinstance(way[-1], str)]
# one value of every kind that JSON has
OTHERS = [None, True, 7, 0.5, "7", ["x"], {"x": 1}]
WRONG = [
    (way, other)
    for way in FIELDS
    for other in OTHERS
    if type(other) is not type(at(way)) and not (isinstance(at(way), float) and other == 7 and other is not True)
]


# ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "given",
    [
        about(PICTURES, CLASSES),
        about(ROWS, SHARES),
        about(SIGNAL, PRICE),
        FULL,
        replace(FULL, labels=()),
        replace(FULL, labels=tuple(map(str, range(3000)))),
        about(replace(SIGNAL, shape=(), axes="", raw=Raw(ARRAY, "float32", ())), PRICE),
        about(replace(SIGNAL, steps=(StepCall("normalize"),)), PRICE),
    ],
    ids=["picture", "table", "array", "several", "no labels", "many labels", "scalar", "no settings"],
)
def test_it_comes_back_as_it_went(given: About) -> None:
    text = to_text(given)
    back = from_text(text, "file")
    assert back == given
    assert to_text(back) == text
    assert text.isascii()
    assert "\n" not in text


def test_the_text_is_the_same_for_equal_contents_and_another_for_others() -> None:
    assert to_text(copy.deepcopy(FULL)) == to_text(FULL)
    one_less = replace(PICTURES, raw=replace(PICTURES.raw, background=(1, 2, 2)))
    assert to_text(about(one_less, ROWS, SIGNAL, CLASSES, SHARES, PRICE)) != to_text(FULL)


@pytest.mark.parametrize("number", [1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**-24 / 255])
def test_scales_come_back_to_the_last_bit(number: float) -> None:
    output = replace(PRICE, times=number, stored=replace(PRICE.stored, scale=number))
    (back,) = from_text(to_text(about(SIGNAL, output)), "file").outputs
    assert (back.times.hex(), back.stored.scale.hex()) == (number.hex(), number.hex())


def test_whole_numbers_may_stand_where_others_belong() -> None:
    back = from_text(changed(("outputs", 0, "times"), 3), "file")
    assert (back.outputs[0].times, type(back.outputs[0].times)) == (3.0, float)


def test_what_later_versions_add_is_passed_over() -> None:
    assert from_text(changed(("licence",), "MIT"), "file") == FULL
    assert from_text(changed(("inputs", 0, "raw", "unit"), "m"), "file") == FULL


def test_a_picture_file_becomes_a_sample_as_it_was_in_training() -> None:
    (back,) = from_text(to_text(about(PICTURES, CLASSES)), "file").inputs
    assert back.raw.form == PictureForm((3, 4, 5), "fit", (1, 2, 3))


def test_the_signature_is_that_of_the_trained_network_not_of_the_file() -> None:
    signature = from_text(to_text(FULL), "file").signature
    assert signature.input == TensorSpec("picture", "float32", (3, 4, 5), "CHW")
    assert [each.name for each in signature.inputs] == ["picture", "row", "signal"]
    assert signature.outputs[1:] == (
        TensorSpec("shares", "float32", (2,), "K"),
        TensorSpec("price", "float32", (1,), "T"),
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_text(about(SIGNAL, replace(PRICE, times=number)))


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", KEYS, ids=named)
def test_every_field_must_be_there(way: Way) -> None:
    with pytest.raises(FileRefused, match=rf"^a/b\.onnx: what it says about itself is damaged \(KeyError: '{way[-1]}"):
        from_text(changed(way, delete=True), "a/b.onnx")


@pytest.mark.parametrize(("way", "other"), WRONG, ids=lambda part: named(part) if isinstance(part, tuple) else None)
def test_every_field_must_be_of_its_type(way: Way, other: object) -> None:
    with pytest.raises(FileRefused, match=r"^a/b\.onnx: what it says about itself is damaged .*\n  export it again"):
        from_text(changed(way, other), "a/b.onnx")


@pytest.mark.parametrize("ends", ["inputs", "outputs"])
def test_a_network_without_ends_is_refused(ends: str) -> None:
    with pytest.raises(FileRefused, match="no inputs or no outputs"):
        from_text(changed((ends,), []), "file")


@pytest.mark.parametrize(
    ("way", "value", "word"),
    [
        (("inputs", 0, "raw", "kind"), "smell", "kind 'smell'"),
        (("inputs", 0, "raw", "shape"), [4, 5], r"a picture of shape \(4, 5\)"),
        (("inputs", 0, "raw", "background"), [255], r"background \(255,\)"),
        (("inputs", 1, "raw", "shape"), [-2], r"\(-2,\) where sizes"),
        (("outputs", 0, "stored", "scale"), 10**400, "OverflowError"),
        (("inputs", 0, "raw", "background"), [0, 256, 0], r"background \(0, 256, 0\)"),
        (("inputs", 2, "raw", "shape"), [2**31, 2], "an array of shape"),
        (("inputs", 1, "raw", "columns"), [], "0 columns for a row of shape"),
        (("inputs", 1, "raw", "shape"), [3], "2 columns for a row of shape"),
        (("inputs", 0, "shape"), [3, 5, 4], r"its steps make \(3, 4, 5\) of a sample, not \(3, 5, 4\)"),
        (("inputs", 0, "steps", 0, "settings", "mean"), [0.0] * 4, "ValueError"),
        (("inputs", 0, "steps", 0, "settings", "mean"), ["much"], "ValueError"),
        (("inputs", 0, "steps", 0, "settings", "std"), [{}], "TypeError"),
        (("inputs", 0, "steps", 0, "settings", "divide"), 10**400, "OverflowError"),
        (("inputs", 0, "steps", 0, "settings", "coder"), 1, "TypeError: .*unexpected keyword argument 'coder'"),
        (("inputs", 1, "steps", 0, "settings", "values"), [[1.0], [1.0, 2.0]], "ValueError"),
        (("inputs", 1, "steps", 1, "settings", "codes"), [], "IndexError"),
        (("inputs", 1, "steps", 1, "settings", "codes"), [[0, 1]], r"its steps make \(3,\) of a sample, not \(4,\)"),
        (("inputs", 1, "steps", 2, "settings"), {}, "TypeError: .*missing 1 required"),
        (("inputs", 1, "steps", 2, "settings", "limit"), "x" * 70_000, "TypeError"),
    ],
)
def test_values_that_nobody_can_mean_are_refused(way: Way, value: object, word: str) -> None:
    with pytest.raises(FileRefused, match=word):
        from_text(changed(way, value), "file")


@pytest.mark.parametrize("format_", [0, 2, -1])
def test_another_format_is_refused_with_both_numbers(format_: int) -> None:
    with pytest.raises(
        FileRefused, match=rf"^file: describes itself in format {format_}, format 1 is known here\n  use"
    ):
        from_text(changed(("format",), format_), "file")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "way",
    [("outputs", 0, "times"), ("inputs", 0, "stored", "scale"), ("inputs", 0, "steps", 0, "settings", "mean")],
    ids=named,
)
def test_what_is_no_finite_number_is_refused(way: Way, word: str) -> None:
    text = changed(way, "HERE").replace('"HERE"', word)
    with pytest.raises(FileRefused, match=rf"damaged \(ValueError: {word} where a finite number belongs"):
        from_text(text, "file")


def test_an_unknown_step_is_named_with_those_that_are_known() -> None:
    with pytest.raises(FileRefused, match=r"^file: asks for the step 'melt'.*clip, fill, normalize, one_hot"):
        from_text(changed(("inputs", 1, "steps", 2, "step"), "melt"), "file")


@pytest.mark.parametrize("cut", [0, 1, 100, len(to_text(FULL)) // 2, len(to_text(FULL)) - 1])
def test_half_a_text_is_refused(cut: int) -> None:
    with pytest.raises(FileRefused, match="JSONDecodeError"):
        from_text(to_text(FULL)[:cut], "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=9), below, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(WAYS), JSON)
def test_any_json_in_any_place_is_read_or_refused(way: Way, value: object) -> None:
    text = changed(way, value)
    with contextlib.suppress(FileRefused):
        back = from_text(text, "file")
        assert from_text(to_text(back), "file") == back


@given(JSON)
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(FileRefused, match=r"^file: "):
        from_text(json.dumps(value), "file")


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(FileRefused, match=r"^file: "):
        from_text(text, "file")


def test_too_many_labels_are_refused_and_not_cut() -> None:
    many = replace(FULL, labels=tuple(map(str, range(MOST_LABELS))))
    assert from_text(to_text(many), "file") == many
    with pytest.raises(FileRefused, match="100,001 labels, at most 100,000 belong there"):
        from_text(to_text(replace(many, labels=(*many.labels, "one more"))), "file")
