"""Each limit as a check: directions, units, bounds, and metrics beside the task's own."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.artifacts.evidence import Metric
from pipeline.artifacts.outcome import Check
from pipeline.declare.recipe import MetricLimits, RecipeLimits
from pipeline.judging.case import Case
from pipeline.judging.limits import checks_of
from tests.judging.cases import (
    ACCURACY,
    CASE,
    FLOAT_ONNX,
    INT8_ONNX,
    PSNR,
    RMSE,
    candidate,
    compared,
    comparison,
    target,
)

replace = dataclasses.replace
OTHERS = (
    Metric(name="F1", unit="share", higher_is_better=True),
    Metric(name="MAE", unit="", higher_is_better=False),
)


def checks(case: Case, **limits: MetricLimits) -> dict[str, Check]:
    wanted = replace(case, limits=RecipeLimits(metrics=limits))
    assert wanted.int8 is not None
    return {each.name: each for each in checks_of(wanted.int8, wanted)}


@pytest.mark.parametrize(
    ("metric", "difference", "found", "unit"),
    [
        (ACCURACY, -0.005, (0.5, 0.18, 0.82), "pp"),  # a share: points, a drop
        (PSNR, -0.2, (0.2, 0.1968, 0.2032), "dB"),  # higher is better: a drop
        (RMSE, 0.02, (0.02, 0.0168, 0.0232), ""),  # lower is better: a rise
        (RMSE, -0.02, (-0.02, -0.0232, -0.0168), ""),  # int8 gained
    ],
)
def test_a_loss_is_positive_with_its_one_sided_bounds(
    metric: Metric, difference: float, found: tuple[float, float, float], unit: str
) -> None:
    case = replace(CASE, metric=metric, compared=(compared(metric, comparison(1.0, difference)),))
    name = f"{metric.name} {'drop' if metric.higher_is_better else 'rise'} (int8)"
    check = checks(case, **{metric.name: MetricLimits(worse_by=0.01)})[name]
    assert (check.bound, check.unit) == ("at most", unit)
    assert check.limit == pytest.approx(1.0 if unit == "pp" else 0.01)
    assert (check.got, check.low, check.high) == pytest.approx(found)


def test_per_cent_are_of_floats_value() -> None:
    case = replace(CASE, metric=RMSE, compared=(compared(RMSE, comparison(0.5, 0.02)),))
    found = checks(case, RMSE=MetricLimits(worse_by_percent=1.0))["RMSE rise (int8)"]
    assert (found.limit, found.unit) == (1.0, "%")
    assert found.got == pytest.approx(4.0)


def test_a_targets_drop_means_points_of_shares_and_per_cent_of_others() -> None:
    limited = target({"accuracy_drop_pp": 0.3})
    share = checks(replace(CASE, target=limited))["accuracy drop (int8)"]
    assert (share.limit, share.unit) == (0.3, "pp")
    assert share.got == pytest.approx(0.5)
    other = replace(CASE, target=limited, metric=RMSE, compared=(compared(RMSE, comparison(0.5, 0.02)),))
    rise = checks(other)["RMSE rise (int8)"]
    assert (rise.limit, rise.unit) == (0.3, "%")
    assert rise.got == pytest.approx(4.0)


def test_both_ends_of_the_metrics_interval_decide() -> None:
    for lowest, state in ((0.97, "met"), (0.974, "uncertain"), (0.978, "uncertain"), (0.98, "missed")):
        assert checks(CASE, accuracy=MetricLimits(min=lowest))["accuracy (int8)"].state == state


def test_without_a_comparison_a_drop_is_open() -> None:
    found = checks(replace(CASE, compared=()), accuracy=MetricLimits(worse_by=0.01, worse_by_percent=1))
    assert found["accuracy drop (int8)"].state == "open"


def test_a_further_metric_is_checked_by_its_name() -> None:
    case = replace(
        CASE,
        fp32=candidate(FLOAT_ONNX, 0.98, 400_000, F1=0.95, MAE=0.1),
        int8=candidate(INT8_ONNX, 0.975, 100_000, F1=0.93, MAE=0.15),
        others=OTHERS,
    )
    found = checks(
        case,
        F1=MetricLimits(min=0.94, worse_by=0.01),
        MAE=MetricLimits(max=0.2, worse_by=0.01, worse_by_percent=60),
        R2=MetricLimits(min=0.5, worse_by=0.1),
    )
    assert (found["F1 (fp32)"].state, found["F1 (int8)"].state) == ("met", "missed")
    assert found["F1 drop (int8)"].state == "missed"
    assert found["F1 drop (int8)"].got == pytest.approx(2)
    assert found["F1 drop (int8)"].unit == "pp"
    assert (found["MAE (int8)"].bound, found["MAE (int8)"].state) == ("at most", "met")
    assert found["MAE rise (int8)"].got == pytest.approx(50)  # per cent, the later of the two
    assert (found["R2 (int8)"].state, found["R2 drop (int8)"].state) == ("open", "open")


def test_a_further_metric_may_get_better_without_a_limit_of_its_own() -> None:
    for value, lost, state in ((0.05, -0.05, "met"), (0.15, 0.05, "missed")):
        case = replace(
            CASE,
            fp32=candidate(FLOAT_ONNX, 0.98, 400_000, MAE=0.1),
            int8=candidate(INT8_ONNX, 0.975, 100_000, MAE=value),
            others=OTHERS,
        )
        found = checks(case, MAE=MetricLimits(worse_by=0.01))["MAE rise (int8)"]
        assert found.got == pytest.approx(lost)
        assert found.state == state
