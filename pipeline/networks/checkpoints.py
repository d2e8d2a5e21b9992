"""From a live network to a checkpoint in the store and back: weights as tensors, structure as replayable edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor, fx, nn

from pipeline.artifacts.evidence import Metric
from pipeline.artifacts.networks import Digest, NetworkRef
from pipeline.artifacts.training import Checkpoint, Edit, Epoch, Quantized
from pipeline.networks.build import build_network
from pipeline.networks.edits import apply
from pipeline.networks.from_torch import folded_graph
from pipeline.networks.weights import load_state
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.prepare import freeze, prepare
from pipeline.runs.store import Store


def save(
    network: nn.Module,
    store: Store,
    *,
    ref: NetworkRef,
    edits: Sequence[Edit] = (),
    metric: Metric,
    val_metric: float,
    history: Sequence[Epoch] = (),
) -> Checkpoint:
    """Put the network's weights into the store and describe them.

    ``val_metric``: what they reach on the validation split, in the unit of ``metric``.
    """
    return Checkpoint(
        network=ref,
        weights=save_weights(network, store),
        edits=tuple(edits),
        metric=metric,
        val_metric=val_metric,
        history=tuple(history),
    )


def save_weights(network: nn.Module, store: Store) -> Digest:
    """Put ``network.state_dict()`` as safetensors into the store; the same weights always give the same bytes."""
    return put_weights(network.state_dict(), store)


def put_weights(weights: Mapping[str, Tensor], store: Store) -> Digest:
    """Put named tensors as safetensors into the store; layers that share a tensor get a copy each."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    return store.put(safetensors.torch.save(tensors))


def restore_float(checkpoint: Checkpoint, store: Store) -> nn.Module:
    """Build the network, replay its edits, load its weights; in evaluation mode.

    Raises ModelError naming the tensors that do not fit.
    """
    network = apply(build_network(checkpoint.network, seed=0), checkpoint.edits)
    load_state(network, safetensors.torch.load(store.get(checkpoint.weights)), where="checkpoint")
    return network.eval()


def restore_prepared(quantized: Quantized, store: Store) -> fx.GraphModule:
    """Return the fake-quantized network with its trained weights and ranges, in evaluation mode."""
    checkpoint = quantized.checkpoint
    network = apply(build_network(checkpoint.network, seed=0), checkpoint.edits)
    folded = folded_graph(network, checkpoint.network.input_shape)
    prepared = prepare(folded, weight_bits=quantized.weight_bits, float_layers=quantized.float_layers)
    weights = safetensors.torch.load(store.get(checkpoint.weights))
    learn_step_sizes(prepared, like=weights)
    load_state(prepared, weights, where="int8 checkpoint")
    prepared.eval()
    return prepared


def restore_quantized(quantized: Quantized, store: Store) -> nn.Module:
    """Return the network that computes with the int8 files' integers, in evaluation mode."""
    return freeze(restore_prepared(quantized, store))


def learn_step_sizes(prepared: fx.GraphModule, *, like: Mapping[str, Tensor] | None = None) -> None:
    """Go over from moving averages to learned step sizes (LSQ), in place; ``like``: where these weights did."""
    for name, module in prepared.named_modules():
        if isinstance(module, ActivationQuantizer | QWeighted):
            own = "log_scale" if isinstance(module, ActivationQuantizer) else "log_weight_scale"
            if like is None or f"{name}.{own}" in like:
                module.learn_step_size()
