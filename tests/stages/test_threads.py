"""threads: more of them only where they are clearly faster, also on a machine that is busy; quick; kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.networks import DataRef, NetworkRef, Threads
from pipeline.errors import ModelError
from pipeline.progress import Silent
from pipeline.runs.run import open_run
from pipeline.stages import threads as stage
from pipeline.stages.threads import CLEARLY_FASTER, choose_threads, fastest
from tests import learnable

# ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────────

seconds = st.floats(1e-4, 1.0)


@given(st.lists(seconds, min_size=3, max_size=30), st.floats(0.1, 0.85))
def test_what_is_clearly_faster_is_taken(single: list[float], ratio: float) -> None:
    assert fastest({1: single, 2: [ratio * took for took in single]}) == 2


@given(st.lists(seconds, min_size=3, max_size=30), st.floats(0.92, 20))
def test_what_is_hardly_faster_or_slower_is_not(single: list[float], ratio: float) -> None:
    assert fastest({1: single, 2: [ratio * took for took in single]}) == 1


def test_the_fastest_of_several_is_taken() -> None:
    single = [1.0] * 5
    assert fastest({1: single, 2: [0.6] * 5, 4: [0.4] * 5}) == 4
    assert fastest({1: single, 2: [0.4] * 5, 4: [0.6] * 5}) == 2


@given(st.integers(0, 2**32 - 1))
def test_a_busy_machine_hides_no_loss(seed: int) -> None:
    """Two threads win on an idle core and lose 6 to 18 times over on a busy one: in a third of the rounds, too much."""
    drawn = np.random.default_rng(seed)
    busy = np.arange(24) % 3 == 0
    both = np.where(busy, drawn.uniform(6, 18, 24), drawn.uniform(0.5, 0.8, 24))
    assert fastest({1: [1.0] * 24, 2: both.tolist()}) == 1


def test_noise_alone_is_no_reason() -> None:
    """In a thousand draws: one in many thousands would be one, if somebody looked for it."""
    for seed in range(1000):
        drawn = np.random.default_rng(seed)
        assert fastest({count: drawn.lognormal(0, 0.1, 25).tolist() for count in (1, 2)}) == 1


def test_a_single_outlier_takes_nothing_away() -> None:
    assert fastest({1: [1.0] * 9, 2: [0.6] * 8 + [30.0]}) == 2
    assert fastest({1: [1.0] * 8 + [30.0], 2: [1.5] * 9}) == 1


# ── trying ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def given_data(tmp_path: Path) -> tuple[DataRef, NetworkRef]:
    return learnable.dataset(tmp_path), learnable.network(tmp_path)


def chosen(tmp_path: Path, given_data: tuple[DataRef, NetworkRef], *, cores: int, batch_size: int = 32) -> Threads:
    data, ref = given_data
    return choose_threads(
        learnable.work(tmp_path),
        data=data,
        facts=learnable.facts(data),
        network=ref,
        batch_size=batch_size,
        cores=cores,
        machine="this one",
    )


def test_one_core_needs_no_trial(tmp_path: Path, given_data: tuple[DataRef, NetworkRef]) -> None:
    assert chosen(tmp_path, given_data, cores=1) == Threads(count=1)


def test_both_are_tried_on_real_steps_and_the_process_keeps_its_threads(
    tmp_path: Path, given_data: tuple[DataRef, NetworkRef]
) -> None:
    before = torch.get_num_threads()
    started = time.monotonic()
    found = chosen(tmp_path, given_data, cores=2)
    assert time.monotonic() - started < 10  # 2 s on an idle machine
    assert found.count in (1, 2)
    assert sorted(found.step_ms) == [1, 2]
    assert all(took > 0 for took in found.step_ms.values())
    assert found.count == 1 or found.step_ms[2] < found.step_ms[1]
    assert torch.get_num_threads() == before


SLOWED = """
import time
import torch
from torch import nn

class Slowed(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(192, classes)
    def forward(self, x):
        time.sleep(0.08 if torch.get_num_threads() == SLOW else 0.002)
        return self.fc(x.flatten(1))

def build(input_shape, classes):
    return Slowed(classes)
"""


@pytest.mark.parametrize(("slow", "best"), [(1, 2), (2, 1)])
def test_the_number_that_is_faster_for_this_network_is_taken(tmp_path: Path, slow: int, best: int) -> None:
    ref = learnable.network(tmp_path, SLOWED.replace("== SLOW", f"== {slow}"))
    found = chosen(tmp_path, (learnable.dataset(tmp_path), ref), cores=2)
    assert found.count == best
    assert found.step_ms[slow] > 80
    assert found.step_ms[best] < CLEARLY_FASTER * found.step_ms[slow]
    assert f"{slow}: {found.step_ms[slow]:.1f} ms" in found.summary


def test_a_long_step_is_tried_with_fewer_samples(
    tmp_path: Path, given_data: tuple[DataRef, NetworkRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def noting(_: object, __: object, inputs: torch.Tensor, ___: object) -> torch.Tensor:
        tried.append(len(inputs))
        time.sleep(0.0005 * len(inputs))
        return torch.zeros((), requires_grad=True)

    monkeypatch.setattr(stage, "loss_of", noting)
    monkeypatch.setattr(stage, "_LONGEST_STEP_S", 0.01)
    chosen(tmp_path, given_data, cores=2, batch_size=200)
    assert tried[0] == 200
    assert 2 <= tried[-1] <= 20


def test_a_network_that_cannot_be_trained_is_refused_as_training_would(tmp_path: Path) -> None:
    source = SLOWED.replace("== SLOW", "== 0").replace(
        "        time.sleep", "        assert not self.training\n        time.sleep"
    )
    with pytest.raises(ModelError, match="a training step raised AssertionError"):
        chosen(tmp_path, (learnable.dataset(tmp_path), learnable.network(tmp_path, source)), cores=2)


def test_the_decision_is_taken_once_for_a_machine(tmp_path: Path, given_data: tuple[DataRef, NetworkRef]) -> None:
    data, ref = given_data
    decide: Callable[..., Threads] = choose_threads
    with open_run(tmp_path / "run", progress=Silent()) as run:
        found = [
            run.step(
                "threads",
                decide,
                data=data,
                facts=learnable.facts(data),
                network=ref,
                batch_size=32,
                cores=2,
                machine=machine,
            )
            for machine in ("a", "a", "b")
        ]
        assert [note.recalled for note in run.notes] == [False, True, False]
    assert found[0] == found[1]
