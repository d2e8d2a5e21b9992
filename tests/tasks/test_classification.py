"""Losses against sums written out by hand, decoding, accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.tasks.classification import accuracy, cross_entropy, decode, distillation

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
LABELS = torch.tensor([0, 1])
TEMPERATURE = 3.0


def softmax(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy())
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_spreads_a_share_of_each_label_over_all_classes(smoothing: float) -> None:
    wanted = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    by_hand = -(wanted * np.log(softmax(LOGITS))).sum(1).mean()
    assert float(cross_entropy(smoothing)(LOGITS, LABELS, LOGITS)) == pytest.approx(by_hand, rel=1e-6)


class Doubling(nn.Module):
    """A teacher."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distillation_mixes_labels_with_the_teachers_softened_outputs(weight: float) -> None:
    inputs = torch.tensor([[1.0, 0.5, -1.0], [0.2, -0.3, 0.1]])
    teacher = softmax(Doubling()(inputs) / TEMPERATURE)
    student = softmax(LOGITS / TEMPERATURE)
    divergence = (teacher * (np.log(teacher) - np.log(student))).sum(1).mean() * TEMPERATURE**2
    hard = -np.log(softmax(LOGITS))[[0, 1], LABELS].mean()
    loss = distillation(Doubling(), weight)(LOGITS, LABELS, inputs)
    assert float(loss) == pytest.approx(weight * divergence + (1 - weight) * hard, rel=1e-5)


def test_full_distillation_uses_no_labels_and_leaves_the_teacher_alone() -> None:
    teacher = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train()
    loss = distillation(teacher, 1.0)
    assert not teacher.training
    logits = LOGITS.clone().requires_grad_()
    first, second = loss(logits, LABELS, LOGITS), loss(logits, LABELS.flip(0), LOGITS)
    assert float(first.detach()) == float(second.detach())
    first.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    loss = distillation(nn.Identity(), 1.0)(LOGITS, LABELS, LOGITS)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_decoding_takes_the_first_of_equal_logits() -> None:
    logits = np.array([[0, 1, 1], [2, 2, 0], [0, 0, 5]], np.float32)
    assert decode(logits).tolist() == [1, 0, 2]
    assert accuracy(logits, np.array([1, 1, 2])) == pytest.approx(2 / 3)
