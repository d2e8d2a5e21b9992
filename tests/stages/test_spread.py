"""spread: more threads ship only where they surely win."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts.evidence import Interval
from pipeline.artifacts.files import Exported, Variant
from pipeline.instruments import here
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes import version
from pipeline.stages.spread import doubled, spread
from tests import learnable


@pytest.mark.parametrize(
    ("highs", "most", "tried"),
    [
        ([], 1, []),
        ([1.1], 4, [2]),
        ([1.0], 4, [2]),  # as fast is not faster
        ([0.9, 1.2], 8, [2, 4]),
        ([0.6, 0.7, 0.8], 8, [2, 4, 8]),
        ([0.6, 0.7], 7, [2, 4]),
    ],
)
def test_threads_are_doubled_as_long_as_they_win(highs: list[float], most: int, tried: list[int]) -> None:
    left = list(highs)
    found = doubled(lambda _more, _fewer: Interval(value=0.5, low=0.4, high=left.pop(0)), most=most)
    assert [(each.threads, each.than) for each in found] == [(count, count // 2) for count in tried]
    assert not left


@pytest.mark.parametrize("cores", [1, 2])
def test_a_file_is_timed_with_more_threads(tmp_path: Path, cores: int) -> None:
    work, data, ref = learnable.work(tmp_path), learnable.dataset(tmp_path), learnable.network(tmp_path)
    content = to_bytes(write_onnx(folded_graph(build_network(ref, seed=0).eval(), learnable.SHAPE), name="small"))
    file = Exported(
        variant=Variant(format="onnx", precision="fp32"),
        file=work.store.put(content),
        filename="small.onnx",
        size_bytes=len(content),
        signature=learnable.signature(),
    )
    found = spread(
        work, data=data, file=file, program="onnxruntime", version=version("onnxruntime"), cores=cores,
        place=here.place(),
    )  # fmt: skip
    assert [each.threads for each in found.tried] == [2][: cores - 1]
    assert found.threads == (2 if any(each.ratio.high < 1 for each in found.tried) else 1)
    assert all(0 < each.ratio.low <= each.ratio.value <= each.ratio.high for each in found.tried)
    assert found.summary.startswith(f"{found.threads} thread")
