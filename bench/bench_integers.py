"""Many random small networks, quantized: trained with rounding, frozen integers, ONNX and TFLite file must be one.

The same checks as in the tests, on more networks; says which seeds fail and why, and ends with 1 when any does.

    python bench/bench_integers.py --count 2000 [--first 0]
"""

from __future__ import annotations

import sys
import time

import click
import torch

from tests.quant.integers import faults

_TOLD_EVERY = 100


@click.command()
@click.option("--count", default=2000, show_default=True, help="How many networks.")
@click.option("--first", default=0, show_default=True, help="Seed of the first.")
def main(count: int, first: int) -> None:
    """Check so many random networks."""
    torch.set_num_threads(1)
    failed = 0
    started = time.monotonic()
    for seed in range(first, first + count):
        found = _faults(seed)
        failed += bool(found)
        for fault in found:
            print(f"seed {seed}: {fault}")
        if (seed - first + 1) % _TOLD_EVERY == 0:
            print(f"{seed - first + 1} networks, {failed} wrong, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{count - failed} of {count} networks right")
    sys.exit(failed > 0)


def _faults(seed: int) -> list[str]:
    try:
        return faults(seed)
    except Exception as error:  # noqa: BLE001  (a refusal by any part counts, and the rest goes on)
        return [f"{type(error).__name__}: {error}"]


if __name__ == "__main__":
    main()
