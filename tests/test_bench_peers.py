"""What ``bench/bench_peers.py`` says about files of others: better than ours only beyond chance."""

from __future__ import annotations

import pytest

from bench.bench_peers import OURS, Compared, Row, markdown
from pipeline.artifacts.evidence import Comparison, Interval
from pipeline.tasks import classification


def row(file: str, *, gap: tuple[float, float], time: tuple[float, float], network: str = "net") -> Row:
    return Row(
        network=network,
        runtime="onnxruntime",
        file=file,
        size_bytes=1000,
        p50_us=10.0,
        time=Interval(value=sum(time) / 2, low=time[0], high=time[1]),
        value=0.9,
        gap=Comparison(
            samples=100,
            value_float=0.9,
            value_int8=0.9,
            difference=sum(gap) / 2,
            low=gap[0],
            high=gap[1],
            p=0.5,
            detectable=0.01,
            agreement=0.99,
            method="exact McNemar test, Tango 1998",
            one_sided_low=gap[0],
            one_sided_high=gap[1],
        ),
        integer_share=0.5,
        parameters=1234,
    )


@pytest.mark.parametrize(
    ("gap", "time", "told"),
    [
        ((-0.01, 0.01), (0.9, 1.1), ""),
        ((0.001, 0.01), (0.9, 1.1), "value"),
        ((-0.01, -0.001), (0.8, 0.9), "time"),
        ((0.001, 0.01), (0.8, 0.9), "value and time"),
    ],
)
def test_better_is_beyond_chance(gap: tuple[float, float], time: tuple[float, float], told: str) -> None:
    assert row("peer", gap=gap, time=time).beats_ours == told


def test_the_page_names_who_is_better_and_never_float() -> None:
    rows = (
        row("float", gap=(0.001, 0.01), time=(2, 3)),
        row(OURS, gap=(0, 0), time=(1, 1)),
        row("peer", gap=(0.001, 0.01), time=(2, 3)),
    )
    page = markdown([Compared(rows=rows, failed=("else failed",))], "some-pictures", classification.METRIC)
    assert "On the better side of ours lie the intervals of: peer on net in value. An interval misses" in page
    assert "| peer | 90.00 % | +0.55 (+0.10 to +1.00) | 2.50 (2.00 to 3.00) | 1,000 | 50% |" in page
    assert "1,234 parameters; 100 test pictures." in page
    assert "\nelse failed\n" in page
    assert "\nNot measured here: resnet18.\n" in page
    alone = markdown([Compared(rows=rows[:2], failed=())], "some-pictures", classification.METRIC)
    assert "No interval of a peer lies on the better side" in alone
