"""One class per sample: cross-entropy, accuracy, the largest logit.

Shapes: N batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (N, K), labels (N,), inputs (N, …)) → scalar

_DISTILLATION_TEMPERATURE = 3.0


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy with optional label smoothing (Szegedy et al. 2016)."""

    def loss(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return loss


def distillation(teacher: nn.Module, weight: float, label_smoothing: float = 0.0) -> Loss:
    """Mix cross-entropy with the teacher's softened outputs (Hinton et al. 2015); ``weight`` 1 uses no labels."""
    teacher = teacher.eval()
    t = _DISTILLATION_TEMPERATURE

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.log_softmax(teacher(inputs) / t, 1)  # (N, K)
        soft = F.kl_div(F.log_softmax(logits / t, 1), wanted, reduction="batchmean", log_target=True) * t * t
        hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return weight * soft + (1 - weight) * hard

    return loss


def decode(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N, K) → class of each sample (N,); the first of equal logits."""
    classes: NDArray[np.int64] = logits.argmax(1)
    return classes


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of samples whose largest logit is the label's, 0 … 1."""
    return float((decode(logits) == labels).mean())
