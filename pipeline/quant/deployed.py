"""A network that trains with rounding and answers with integers, so that epochs are chosen by what will be shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.quant.calibrate import bound_scales
from pipeline.quant.prepare import freeze


class Deployed(nn.Module):
    """A prepared graph: fake-quantized in training mode, its frozen integers in evaluation mode."""

    def __init__(self, prepared: fx.GraphModule) -> None:
        super().__init__()
        self.prepared = prepared
        self._frozen: tuple[nn.Module, ...] = ()  # in a tuple, so that its tensors are no weights

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load other weights: the integers of the old ones are dropped."""
        self._frozen = ()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def forward(self, x: Tensor) -> Tensor:
        """As the network, (N, …) → (N, …)."""
        if self.training:
            self._frozen = ()  # the weights are about to move
        network = self.prepared if self.training else self._integers(x.device)
        result: Tensor = network(x)
        return result

    def _integers(self, device: torch.device) -> nn.Module:
        if not self._frozen:
            with torch.inference_mode(mode=False):
                bound_scales(self.prepared)  # training moves ranges
                self._frozen = (freeze(self.prepared).to(device),)
        return self._frozen[0]
