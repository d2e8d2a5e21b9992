"""LSTM, GRU and RNN layers as one operation each: a sequence in, a sequence out.

Shapes: N batch, T steps, F features, D directions, H hidden features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """One layer in one or both directions; where no states are given it starts from zeros."""

    def __init__(self, layer: nn.LSTM | nn.GRU | nn.RNN, *, gives_cells: bool = False) -> None:
        super().__init__()
        self.layer, self.gives_cells = layer, gives_cells

    @property
    def name(self) -> str:
        """Return the operation's name in ONNX."""
        return "LSTM" if isinstance(self.layer, nn.LSTM) else "GRU" if isinstance(self.layer, nn.GRU) else "RNN"

    @property
    def directions(self) -> int:
        """Return 2 where it goes backwards, too."""
        return 2 if self.layer.bidirectional else 1

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        """(N, T, F), states (N, D * H) → (N, T, D * H), or the last cells of an LSTM (N, D * H)."""
        first = [each.reshape(len(each), self.directions, -1).transpose(0, 1).contiguous() for each in states]
        given = (first[0], first[1]) if len(first) > 1 else first[0] if first else None
        sequence, last = self.layer(x, given)
        result: Tensor = last[1].transpose(0, 1).flatten(1) if self.gives_cells else sequence
        return result

    def macs(self, steps: int) -> int:
        """Return the multiply-accumulates of so many steps."""
        return steps * sum(each.numel() for name, each in self.layer.named_parameters() if name.startswith("weight"))

    def weights(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return of each direction the weights (gates * H, F), (gates * H, H) and both biases (gates * H,)."""
        found = []
        for suffix in ("", "_reverse")[: self.directions]:
            inputs, hidden = (getattr(self.layer, f"weight_{part}_l0{suffix}").detach() for part in ("ih", "hh"))
            zeros = torch.zeros(len(inputs))
            biases = [
                getattr(self.layer, f"bias_{part}_l0{suffix}").detach() if self.layer.bias else zeros
                for part in ("ih", "hh")
            ]
            found.append((inputs, hidden, biases[0], biases[1]))
        return found
