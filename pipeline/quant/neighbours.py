"""What stands around an operation, past those that only move values, and whether rounding there is worth it."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from pipeline.graph.ends import is_end
from pipeline.graph.kinds import kind_of, module_of
from pipeline.quant.scheme import RULES, Output

_SUMS = frozenset({"Add", "Sub"})


def better_float(quantized: Collection[fx.Node]) -> set[fx.Node]:
    """Return what should not become int8 after all, given what else does.

    A sum that a layer norm reads: it divides by each sample's spread, and makes steps larger.  Arithmetic with
    constants beside a float operation: to convert after it takes no longer than before, and rounds once.  A softmax
    that only float operations read: a step of 1/256 is more than a share of many has, and float kernels are faster.
    """
    left = set(quantized)
    while True:
        dropped = {
            node for node in left if _is_normed(node) or _is_beside_float(node, left) or _is_float_softmax(node, left)
        }
        if not dropped:
            return set(quantized) - left
        left -= dropped


def _is_normed(node: fx.Node) -> bool:
    return _kind(node) in _SUMS and any(_kind(reader) == "LayerNormalization" for reader in _readers(node))


def _is_beside_float(node: fx.Node, quantized: Collection[fx.Node]) -> bool:
    if _kind(node) != "Scale":
        return False
    source = _source(node)
    from_integers = is_end(source) or source in quantized
    return not from_integers or not _feeds_integers(node, quantized)


def _is_float_softmax(node: fx.Node, quantized: Collection[fx.Node]) -> bool:
    return _kind(node) == "Softmax" and not _feeds_integers(node, quantized)


def _feeds_integers(node: fx.Node, quantized: Collection[fx.Node]) -> bool:
    return any(is_end(reader) or reader in quantized for reader in _readers(node))


def _readers(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    for user in node.users:
        found += _readers(user) if _moves(user) else [user]
    return found


def _source(node: fx.Node) -> fx.Node:
    source = node.all_input_nodes[0]
    return _source(source) if _moves(source) else source


def _moves(node: fx.Node) -> bool:
    return node.op == "call_module" and RULES[_kind(node)].output is Output.SAME


def _kind(node: fx.Node) -> str:
    return kind_of(module_of(node)) if node.op == "call_module" else ""
