"""Arithmetic, choices and reductions: bounds, exponents, divisors and masks of every kind.

Shapes: N batch, T steps, F features.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pipeline.networks.from_torch import folded_graph
from tests.networks.files import in_int8_files
from tests.networks.nets import Block, Function, agrees

STEPS = (6, 8)  # (T, F)
RAMP = torch.linspace(-1, 1, 8)

NUMBERS: dict[str, Function] = {
    "bounds that cross": lambda x: x.clamp(1, -1) + x,
    "bounds that meet": lambda x: F.hardtanh(x, 0.0, 0.0) + x.clamp(0.5, 0.5) + x,
    "a number and a computed bound": lambda x: torch.clamp(x, torch.full((8,), -0.5), x.relu() + 0.1),
    "bounds for each element": lambda x: torch.clamp(x, min=-RAMP.abs(), max=torch.ones(8)).clamp_max(0.9),
    "one side": lambda x: torch.clip(x, max=1).clamp_min(-0.2),
    "powers that are whole": lambda x: x**0 + x**1 + x**5 + 1**x + x**True,
    "powers below zero": lambda x: (x.abs() + 0.5) ** -2 + (x.abs() + 0.5).rsqrt() + (x * x + 1) ** -0.5,
    "remainders of powers of two": lambda x: torch.fmod(4 * x, 2) + torch.remainder(4 * x, -2) + (4 * x) % 0.5,
    "whole quotients": lambda x: x // 0.5 + torch.div(x, 0.25, rounding_mode="trunc"),
    "rounded to decimals": lambda x: torch.round(x, decimals=1) + torch.round(100 * x, decimals=-1) + (9 * x).round_(),
    "trigonometry": lambda x: torch.tan(x.tanh()) + torch.sin(x) * torch.cos(x),
    "between two constants": lambda x: torch.lerp(torch.zeros(8), RAMP, x) + torch.lerp(x, RAMP, 0.25),
    "constants divided and taken from": lambda x: RAMP / (x.abs() + 1) + torch.sub(RAMP, x, alpha=3),
    "constants with a factor": lambda x: x.sub(RAMP, alpha=2) + torch.add(x, 3, alpha=2) - RAMP / torch.full((8,), 4.0),
    "constants of other types": lambda x: x * torch.arange(8) + x * (RAMP > 0) + torch.tensor(3) + torch.arange(8.0),
    "products and quotients added": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5).addcmul(x, x, value=-1),
    "a matrix product added": lambda x: torch.addmm(torch.ones(3), x[:, 0], RAMP[:, None].repeat(1, 3), alpha=2),
    "fewer axes met by more": lambda x: x * x.mean(1).unsqueeze(1) + x.mean((1, 2), keepdim=True) + x[:, :1],
    "a grown axis of both": lambda x: x.amax(1, keepdim=True) * x.amax(2, keepdim=True),
    "choices of numbers": lambda x: torch.where(x > 0, 1.0, -1.0) * torch.where(x > RAMP, RAMP, x),
    "masks in place of parts": lambda x: x.masked_fill(x < 0, -1) + torch.where(RAMP > 0, torch.zeros(()), x),
    "constants compared": lambda x: torch.ge(RAMP, x) * x + (x == math.inf) + torch.isnan(x) + torch.eq(x, x),
    "logic of truths": lambda x: x * torch.logical_and(x > 0, torch.logical_not(x > 1)) + ((x > 0) | (x < -1)),
    "logic with constants": lambda x: (
        x * torch.logical_or(x > 0, torch.arange(8)) + torch.logical_and(x > 0, 2 * RAMP)
    ),
    "logic of numbers": lambda x: torch.logical_and(x.relu(), x.relu()) + torch.logical_not(x.relu()) * x,
    "a mask that is computed": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=(x @ x.mT) > -9, scale=0.3),
    "a causal mask of fewer rows": lambda x: F.scaled_dot_product_attention(x[:, :3], x, x, is_causal=True),
    "an einsum whose constant stands first": lambda x: torch.einsum("oi,bti->bto", torch.ones(3, 8), x),
    "alpha of every elu": lambda x: F.celu(x, 2.0) + F.elu(x, 0.3) + F.leaky_relu(x, 0.0) + F.selu(x),
}  # fmt: skip

REDUCED: dict[str, Function] = {
    "spread of several axes": lambda x: x.std((-1, -2), keepdim=True) * x + x.var(-1, correction=2).unsqueeze(-1),
    "sums kept": lambda x: x.sum((1, -1), keepdim=True) + x.sum(1, dtype=torch.float64).float().unsqueeze(1),
    "largest of several axes": lambda x: x.amax((-1, 1)) - x.amin((1, 2)) + x.max(-1).values.min(1)[0],
    "turned before": lambda x: x.permute(0, 2, 1).mean(-1) + x.transpose(1, 2).sum(2),
    "norms of every order": lambda x: torch.stack(
        [torch.linalg.vector_norm(x, order, (1, 2)) for order in (0, 0.5, 1, math.inf, -math.inf)], 1
    ),
    "a norm of matrices": lambda x: torch.linalg.norm(x, dim=(1, 2), keepdim=True) * x,
    "logarithms of sums over several axes": lambda x: (
        torch.logsumexp(x, (-1, -2), keepdim=True) + torch.logsumexp(x, 1, keepdim=True)
    ),
    "sums so far": lambda x: x.cumsum(-2) + x.flip(-1).cumsum(-1),
    "any and all": lambda x: (x > 1).any(1) * 1.0 + (x > -2).all(1) + torch.count_nonzero(x.relu(), 1),
    "smallest and largest at once": lambda x: torch.sub(*x.aminmax(dim=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    agrees(NUMBERS[name], STEPS)


@pytest.mark.parametrize("name", REDUCED)
def test_reductions(name: str) -> None:
    agrees(REDUCED[name], STEPS)


@pytest.mark.parametrize("name", ["bounds that cross", "rounded to decimals", "between two constants"])
def test_numbers_in_int8_files(name: str) -> None:
    in_int8_files(folded_graph(Block(NUMBERS[name]).eval(), STEPS), STEPS)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm((6, 8), bias=False), nn.GroupNorm(3, 6, affine=False), nn.GroupNorm(2, 6)], ids=str
)
def test_norms_with_and_without_weights(norm: nn.Module) -> None:
    with torch.no_grad():
        for each in norm.parameters():
            each.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    agrees(norm, STEPS)
