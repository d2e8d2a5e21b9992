"""The network under construction: modules under legal, unique names, each tried on shapes as soon as it is added."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.graph.ends import Outputs
from pipeline.networks.axes import BATCH
from pipeline.networks.onnx.constants import MOST_ELEMENTS
from pipeline.networks.onnx.modules import OnnxNetwork, Step
from pipeline.networks.onnx.values import Refusal, TouchesBatch, Value

_RESERVED = frozenset({"input", "output", "samples"})


class Building:
    """Adds steps to a network; ``mark`` and ``back`` take some away again."""

    def __init__(self) -> None:
        self.network = OnnxNetwork()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._examples: dict[int, Tensor] = {}
        self._formed: dict[tuple[int, bool], Value] = {}
        self._count = 0

    def input(self, shape: Sequence[int], *, lifted: bool) -> Value:
        """Add the input; its samples have this shape, or are its rows."""
        value = Value(number=0, shape=tuple(shape), lifted=lifted)
        with self._mode:
            self._examples[0] = torch.empty(BATCH, *(shape if lifted else shape[1:]))
        return value

    def mark(self) -> int:
        """Return how many steps there are."""
        return len(self.network.steps)

    def back(self, mark: int) -> None:
        """Take away all steps after the first ``mark``."""
        for step in self.network.steps[mark:]:
            self._examples.pop(step.output, None)
            self.network._modules.pop(step.name, None)
        gone = {step.output for step in self.network.steps[mark:]}
        self._formed = {key: each for key, each in self._formed.items() if each.number not in gone}
        del self.network.steps[mark:]

    def run(self, module: nn.Module, values: Sequence[Value], *, lifted: bool, name: str) -> Value:
        """Add a module that is given these values as (n, …), or lifted as (n, *shape)."""
        inputs = [self.formed(value, lifted=lifted) for value in values]
        example = self._tried(module, inputs, lifted=lifted)
        if example.shape[:1] != (BATCH,):
            raise Refusal("mixes samples") if lifted else TouchesBatch
        shape = tuple(example.shape[1:]) if lifted else (1, *example.shape[1:])
        return self._added(self._attached(module, name), inputs, example, shape, lifted=lifted)

    def run_merged(self, module: nn.Module, value: Value, *, first: int, name: str) -> Value:
        """Add a layer that is given (n * first, …)."""
        example = self._tried(module, [value], lifted=True)
        return self._added(self._attached(module, name), [value], example, (first, *example.shape[1:]), lifted=True)

    def moved(self, value: Value, move: Callable[[Tensor], Tensor], shape: Sequence[int], *, lifted: bool) -> Value:
        """Read a value in another shape."""
        value = self.formed(value, lifted=lifted)
        with self._mode, torch.no_grad():
            example = move(self._examples[value.number])
        return self._added("", [value], example, tuple(shape), lifted=lifted, move=move)

    def formed(self, value: Value, *, lifted: bool) -> Value:
        """Return a value as it lies in memory for lifted nodes, or for others."""
        if value.lifted == lifted:
            return value
        if not lifted and value.shape[:1] != (1,):
            raise TouchesBatch
        key = value.number, lifted
        if key not in self._formed:
            move: Callable[[Tensor], Tensor] = _unsqueezed if lifted else _squeezed
            with self._mode:
                example = move(self._examples[value.number])
            self._formed[key] = self._added("", [value], example, value.shape, lifted=lifted, move=move)
        return self._formed[key]

    def joined(self, values: Mapping[str, Value], *, lifted: bool) -> Value:
        """Add the end of a network with several outputs: all of them side by side; ``lifted``: as (n, *shape)."""
        inputs = [self.formed(each, lifted=lifted or each.shape[:1] != (1,)) for each in values.values()]
        shapes = [each.shape if each.lifted else each.shape[1:] for each in inputs]
        module = Outputs(tuple(values), shapes)
        example = self._tried(module, inputs, lifted=True)
        return self._added(self._attached(module, "outputs"), inputs, example, (1, *example.shape[1:]), lifted=False)

    def finished(self, value: Value, *, lifted: bool) -> OnnxNetwork:
        """Return the network that gives a value, lifted or as (n, …); what nothing reads is gone."""
        plain = self.formed(value, lifted=lifted)
        network = self.network
        network.result = plain.number
        network.result_shape = tuple(plain.shape if lifted else plain.shape[1:])
        needed, kept = {plain.number}, list[Step]()
        for step in reversed(network.steps):
            if step.output in needed:
                needed.update(step.inputs)
                kept.append(step)
            else:
                network._modules.pop(step.name, None)
        network.steps = kept[::-1]
        return network

    def _tried(self, module: nn.Module, inputs: Sequence[Value], *, lifted: bool) -> Tensor:
        try:
            with self._mode, torch.no_grad(), _unlogged():
                example = module.eval()(*(self._examples[each.number] for each in inputs))
        except (
            ArithmeticError,
            AssertionError,
            IndexError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if not lifted:
                raise TouchesBatch from error
            raise Refusal(f"does not fit what it is given: {next(iter(str(error).splitlines()), '')}") from error
        if not isinstance(example, Tensor) or not example.is_floating_point():
            raise Refusal("gives no real numbers")
        if math.prod(example.shape) > MOST_ELEMENTS * BATCH:
            raise Refusal("gives a tensor of impossible size")
        return example

    def _added(
        self,
        name: str,
        inputs: Sequence[Value],
        example: Tensor,
        shape: tuple[int, ...],
        *,
        lifted: bool,
        move: Callable[[Tensor], Tensor] | None = None,
    ) -> Value:
        self._count += 1
        numbers = tuple(each.number for each in inputs)
        self.network.steps.append(Step(name=name, inputs=numbers, output=self._count, move=move))
        self._examples[self._count] = example
        return Value(number=self._count, shape=shape, lifted=lifted)

    def _attached(self, module: nn.Module, name: str) -> str:
        label = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "node"
        if label[0].isdigit() or label in _RESERVED or hasattr(OnnxNetwork, label) or label in vars(self.network):
            label = f"node_{label}"
        free, count = label, 2
        while free in self.network._modules:
            free, count = f"{label}_{count}", count + 1
        self.network.add_module(free, module)
        return free


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep torch from writing down what it refuses: that is told in the words of the file."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unsqueezed(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def _squeezed(x: Tensor) -> Tensor:
    return x.flatten(0, 1)
