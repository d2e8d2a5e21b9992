"""Where the device's faults become the project's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.onboard.arrays import Arrays, Signature
from pipeline.onboard.faults import OnboardFault
from pipeline.onboard.session import Session, Timer


@contextlib.contextmanager
def model_errors() -> Iterator[None]:
    """Turn faults into ModelError."""
    try:
        yield
    except OnboardFault as fault:
        raise ModelError(fault.what, where=fault.where, remedy=fault.remedy) from fault


class GuardedSession:
    """A session whose faults are ModelErrors; ``steps`` where they were read from the file."""

    def __init__(self, session: Session, steps: Mapping[str, float] | None = None) -> None:
        self._session = session
        self._steps = session.steps if steps is None else steps

    @property
    def runtime(self) -> str:
        """Name of the runtime."""
        return self._session.runtime

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return self._session.version

    @property
    def label(self) -> str:
        """Runtime and version."""
        return self._session.label

    @property
    def signature(self) -> Signature:
        """What goes in and comes out."""
        return self._session.signature

    @property
    def steps(self) -> Mapping[str, float]:
        """One step of each quantized output."""
        return self._steps

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return outputs (n, …) of inputs (n, …).  Raises ModelError."""
        with model_errors():
            return self._session.run(inputs)

    def timer(self, inputs: Arrays) -> Timer:
        """Return a timer of single inferences.  Raises ModelError, as does the timer."""
        with model_errors():
            times_ms = self._session.timer(inputs)

        def guarded(count: int) -> list[float]:
            with model_errors():
                return times_ms(count)

        return guarded

    def close(self) -> None:
        """Let go of the file."""
        self._session.close()
