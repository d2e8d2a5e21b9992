"""Which channels of a network hang together, read off its flat graph: such can only be taken away together.

Each output channel of a layer with weights is an *atom*.  For every value an array says which atom its elements come
from; sums, gates and depthwise convolutions tie atoms to one another.  Where nobody can say what would become of a
channel (it is the network's output, it is cut or split, a constant of its size meets it) its atoms are fixed.

Shapes: C channels, O output channels, G groups; arrays of atoms have a value's axes without the batch, with one element
along axes where all is alike; FIXED stands for what is no atom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.graph import ops
from pipeline.graph.kinds import compute_nodes, kind_of, module_of, output_node
from pipeline.networks.atoms import FIXED, MOVES, Atoms, all_fixed, compressed, unknown, varying
from pipeline.networks.edits import Convolution

Side = Literal["out", "in"]

_BOTH = frozenset(["Add", "Sub", "Mul", "Div"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """Channels of one layer, and to which set each belongs."""

    layer: str
    side: Side
    places: NDArray[np.int64]
    sets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coupled:
    """Layers whose channels go together, in ``count`` sets: a set goes as a whole."""

    count: int
    members: tuple[Member, ...]
    of_a_layer: int  # so many channels of one layer make a set: more than one where its convolution has groups

    @property
    def makers(self) -> tuple[str, ...]:
        """Return the layers whose outputs these channels are."""
        return tuple(dict.fromkeys(member.layer for member in self.members if member.side == "out"))


def coupled_channels(network: nn.Module, flat: fx.GraphModule) -> tuple[tuple[Coupled, ...], tuple[str, ...]]:
    """Return what can be taken away, and why the rest stays, one reason for each layer that says so.

    ``flat`` is the network's flat graph before batch norms are folded.
    """
    follower = _Follower(network)
    for node in flat.graph.nodes:
        if node.op == "placeholder":
            follower.values[node] = all_fixed(len(node.meta["shape"]) - 1)
    for node in compute_nodes(flat):
        follower.take(node)
    last = output_node(flat)
    follower.fix(follower.values[last], f"layer '{last.meta['label']}' makes the network's output")
    return follower.groups(), tuple(dict.fromkeys([*follower.reasons.values(), *follower.notes]))


def owner_of(layers: Mapping[str, nn.Module], node: fx.Node) -> str:
    """Return the network's own layer whose weights a node has, or computes its own from; "" where there is none.

    ``layers``: name → module of the network.
    """
    weight = getattr(module_of(node), "weight", None)
    for name in (str(node.meta.get("owner", "")), str(node.meta.get("called", "")).rpartition(".")[0]):
        layer = layers.get(name)
        own = None if layer is None else layer._parameters.get("weight")
        shapes = [None if each is None else each.shape for each in (own, weight)]
        if layer is not None and name and shapes[0] == shapes[1]:
            return name
    return ""


def _all_parts(node: fx.Node, size: int, whole: int) -> bool:
    """Whether a value is cut into equal parts, this one among them, as ``chunk`` does."""
    own = module_of(node)
    users = [module_of(each) for each in node.all_input_nodes[0].users if each.op == "call_module"]
    parts = {(each.axis, each.start, each.stop, each.step) for each in users if isinstance(each, ops.Slice)}
    assert isinstance(own, ops.Slice)  # noqa: S101  (its kind says so)
    return all((own.axis, start, start + size, 1) in parts for start in range(0, whole, size))


class _Follower:
    """Follows atoms through the nodes of a flat graph."""

    def __init__(self, network: nn.Module) -> None:
        self.layers: Mapping[str, nn.Module] = dict(network.named_modules())
        self.values: dict[fx.Node, Atoms] = {}
        self.made: dict[str, Atoms] = {}  # layer → atoms of its outputs (O,)
        self.read: dict[tuple[str, Side], Atoms] = {}  # what edits of a layer's side are told by
        self.parents: list[int] = []
        self.reasons: dict[int, str] = {}  # atom → why it is fixed
        self.notes: list[str] = []  # why layers have no atoms

    # ── atoms ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def root(self, atom: int) -> int:
        """Return the atom that stands for all that this one is tied to."""
        while self.parents[atom] != atom:
            self.parents[atom] = self.parents[self.parents[atom]]
            atom = self.parents[atom]
        return atom

    def fix(self, atoms: Atoms, why: str) -> None:
        """Let these atoms stay."""
        for atom in np.unique(atoms):
            if atom != FIXED:
                self.reasons.setdefault(int(atom), why)

    def tie(self, first: Atoms, second: Atoms, why: str) -> None:
        """Let each atom of one array go only with the one at its place in the other."""
        pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
        for one, other in pairs.T:
            if FIXED in (one, other):
                self.fix(np.array([one, other]), why)
            else:
                self.parents[self.root(int(one))] = self.root(int(other))

    def new(self, count: int) -> Atoms:
        """Make atoms (count,)."""
        begin = len(self.parents)
        self.parents.extend(range(begin, begin + count))
        return np.arange(begin, begin + count)

    def along(self, atoms: Atoms, axis: int, count: int, why: str) -> Atoms:
        """Return the atoms (count,) along the only axis that may vary; what varies elsewhere is fixed."""
        if any(each != axis % atoms.ndim for each in varying(atoms)):
            self.fix(atoms, why)
            return np.full(count, FIXED)
        flat = atoms.ravel()
        if len(flat) == 1 and count > 1:
            self.fix(flat, why)
            return np.full(count, FIXED)
        return flat

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, node: fx.Node) -> None:
        """Follow the atoms of a node's inputs to its value."""
        module, kind = module_of(node), kind_of(module_of(node))
        inputs = [self.values[each] for each in node.args if isinstance(each, fx.Node)]
        why = f"layer '{node.meta['label']}' ({kind}) needs all of its channels"
        own = {"Conv": self._convolution, "ConvTranspose": self._convolution, "BatchNormalization": self._batch_norm}
        own |= {"LayerNormalization": self._layer_norm, "Slice": self._part}
        own |= {"Gemm": self._linear, "Projection": self._linear} | dict.fromkeys(_BOTH, self._both)
        value = own[kind](node, inputs, why) if kind in own else MOVES.get(kind, unknown)(module, inputs, node)
        if value is None:
            for each in inputs:
                self.fix(each, why)
        self.values[node] = all_fixed(len(node.meta["shape"]) - 1) if value is None else compressed(value)

    def _both(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        shapes = [tuple(each.meta["shape"][1:]) for each in node.args if isinstance(each, fx.Node)]
        if len({each.ndim for each in inputs}) > 1:
            return None
        for (one, shape), other in zip(zip(inputs, shapes, strict=True), reversed(inputs), strict=True):
            axes = varying(other)
            if axes and not varying(one) and len(shape) == other.ndim and all(shape[axis] == 1 for axis in axes):
                return other  # one value for all channels
        first, second = np.broadcast_arrays(*inputs)
        self.tie(first, second, why)
        return np.where(first == FIXED, second, first)

    def _owned(self, node: fx.Node, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> str:
        owner = owner_of(self.layers, node)
        if owner and isinstance(self.layers[owner], kinds):
            return owner
        self.notes.append(f"the weights of layer '{node.meta['label']}' are no parameter of a layer of torch.nn")
        return ""

    def _convolution(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        module, atoms = module_of(node), inputs[0]
        owner = self._owned(node, type(module))
        if not isinstance(module, Convolution) or not owner:
            return None
        groups, depthwise = module.groups, module.groups == module.in_channels == module.out_channels > 1
        grouped = groups > 1 and not depthwise
        if grouped and (groups == module.in_channels or isinstance(module, nn.ConvTranspose2d)):
            return None
        channels = self.along(atoms, 0, module.in_channels, why)
        if depthwise:
            made = self._reading(owner, "out", channels, why)
        else:
            self._reading(owner, "in", channels, why)
            made = self._making(owner, module.out_channels)
        if grouped:
            for side in (channels, made):
                rows = side.reshape(groups, -1)  # channels at one place of all groups
                self.tie(np.broadcast_to(rows[:1], rows.shape), rows, why)
        return made.reshape(-1, *(1,) * (atoms.ndim - 1))

    def _linear(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        module, owner = module_of(node), self._owned(node, nn.Linear)
        if not isinstance(module, nn.Linear) or not owner:
            return None
        self._reading(owner, "in", self.along(inputs[0], -1, module.in_features, why), why)
        return self._making(owner, module.out_features).reshape(*(1,) * (inputs[0].ndim - 1), -1)

    def _batch_norm(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        owner = self._owned(node, _BatchNorm)
        if owner:
            self._reading(owner, "out", self.along(inputs[0], 0, node.meta["shape"][1], why), why)
        return inputs[0] if owner else None

    def _layer_norm(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        """Let a norm over the channels lose some; of one over several axes, or of numbers alone, all stay."""
        module, atoms = module_of(node), inputs[0]
        assert isinstance(module, nn.LayerNorm)  # noqa: S101  (its kind says so)
        first = atoms.ndim - len(module.normalized_shape)
        if all(axis < first for axis in varying(atoms)):
            return atoms
        owner = owner_of(self.layers, node)
        if len(module.normalized_shape) != 1 or not owner or not isinstance(self.layers[owner], nn.LayerNorm):
            return None
        self._reading(owner, "out", self.along(atoms, -1, module.normalized_shape[0], why), why)
        return atoms

    def _part(self, node: fx.Node, inputs: list[Atoms], why: str) -> Atoms | None:
        """Let one of several equal parts lose what each of the others loses at the same place."""
        module, atoms = module_of(node), inputs[0]
        assert isinstance(module, ops.Slice)  # noqa: S101  (its kind says so)
        axis = module.axis - 1
        if axis not in varying(atoms):
            return atoms
        size, whole = module.stop - module.start, atoms.shape[axis]
        if varying(atoms) != [axis] or whole % size or not _all_parts(node, size, whole):
            return None
        parts = atoms.reshape(whole // size, size)
        self.tie(np.broadcast_to(parts[:1], parts.shape), parts, why)
        return atoms.take(range(module.start, module.stop), axis)

    def _making(self, layer: str, count: int) -> Atoms:
        """Return the atoms of a layer's outputs, the same each time it is called."""
        if layer not in self.made:
            self.made[layer] = self.read[layer, "out"] = self.new(count)
        return self.made[layer]

    def _reading(self, layer: str, side: Side, channels: Atoms, why: str) -> Atoms:
        """Note what a layer reads; one that is called twice reads channels that go together."""
        before = self.read.setdefault((layer, side), channels)
        if before is not channels:
            self.tie(before, channels, why)
        return channels

    # ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def groups(self) -> tuple[Coupled, ...]:
        """Return the sets of atoms that are free, those of the same layers together."""
        roots = np.array([self.root(atom) for atom in range(len(self.parents))], dtype=np.int64)
        free = self._free(roots)
        makers: dict[int, dict[str, int]] = {}  # root → layer → how many of its channels
        for layer, atoms in self.made.items():
            for root, count in zip(*np.unique(roots[atoms], return_counts=True), strict=True):
                makers.setdefault(int(root), {})[layer] = int(count)
        found: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for root in sorted(makers):
            if free[root]:
                found.setdefault(tuple(makers[root].items()), []).append(root)
        group_of, set_of = np.full(len(roots) + 1, FIXED), np.zeros(len(roots) + 1, dtype=np.int64)
        for number, members in enumerate(found.values()):
            group_of[members], set_of[members] = number, np.arange(len(members))
        members_of: list[list[Member]] = [[] for _ in found]
        for (layer, side), atoms in self.read.items():
            own = np.where(atoms == FIXED, len(roots), roots[atoms] if len(roots) else atoms)
            for number in np.unique(group_of[own]):
                if number != FIXED:
                    (places,) = np.nonzero(group_of[own] == number)
                    member = Member(layer=layer, side=side, places=places, sets=set_of[own[places]])
                    members_of[number].append(member)
        return tuple(
            Coupled(count=len(roots_of), members=tuple(members), of_a_layer=max(count for _, count in signature))
            for (signature, roots_of), members in zip(found.items(), members_of, strict=True)
        )

    def _free(self, roots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each root whether it may go; of a layer all outputs may, or none."""
        free = np.ones(len(roots), dtype=bool)
        free[[roots[atom] for atom in self.reasons]] = False
        while True:
            halfway = [
                atoms for atoms in self.made.values() if not free[roots[atoms]].all() and free[roots[atoms]].any()
            ]
            if not halfway:
                return free
            for atoms in halfway:
                free[roots[atoms]] = False
