"""AdaRound: weights on their grid, some of them not at the nearest point, and outputs nearer to float."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.adaround import adaround
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.sensitivity import sqnr_db

SHAPE = (3, 6, 6)


def inputs(seed: int) -> Tensor:
    return torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(seed))


def made() -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return a float graph and its calibrated twin with weights of 4 bits."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(128, 4)
    )
    folded = folded_graph(network.eval(), SHAPE)
    prepared = prepare(folded, weight_bits=4)
    calibrate(prepared, inputs(0), QuantizeSpec(calibration="min-max"))
    return folded, prepared


def test_learned_rounding_is_nearer_to_float_on_samples_it_has_not_seen() -> None:
    folded, prepared = made()
    with torch.no_grad():
        wanted = folded(inputs(1))
        before = sqnr_db(wanted, freeze(prepared)(inputs(1)))
        adaround(prepared, inputs(0), seed=0)
        assert sqnr_db(wanted, freeze(prepared)(inputs(1))) > before + 1


def test_every_weight_goes_up_or_down_to_its_grid_and_scales_stay() -> None:
    _, prepared = made()
    for_each = [prepared.get_submodule(name) for name in ("0", "2", "4")]
    before = [(layer.weight.detach().clone(), layer.weight_scale().clone()) for layer in for_each]  # type: ignore[operator]
    adaround(prepared, inputs(0), seed=0)
    not_nearest = 0
    for layer, (weight, scale) in zip(for_each, before, strict=True):
        steps = (weight.flatten(1) / scale[:, None]).double()
        found = layer.freeze().weight.flatten(1).double()  # type: ignore[operator]
        assert torch.equal(layer.weight_scale(), scale)  # type: ignore[operator]
        assert bool(((found == steps.floor()) | (found == steps.ceil()) | ((found - steps).abs() < 1e-4)).all())
        not_nearest += int((found != steps.round()).sum())
    assert not_nearest > 10


def test_the_same_seed_gives_the_same_weights() -> None:
    (_, one), (_, other) = made(), made()
    adaround(one, inputs(0), seed=3)
    adaround(other, inputs(0), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
