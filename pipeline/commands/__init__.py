"""The commands of ``karui``, one file each."""

from __future__ import annotations

import click

from pipeline.commands import (
    bench,
    clean,
    compare,
    emulate,
    estimate,
    init,
    inspect,
    listing,
    predict,
    quantize,
    report,
    run,
    show,
    validate,
)

COMMANDS: tuple[click.Command, ...] = (
    run.run,
    quantize.quantize,
    validate.validate,
    emulate.emulate_,
    estimate.estimate,
    bench.bench,
    init.init,
    listing.list_,
    compare.compare,
    report.report,
    predict.predict,
    inspect.inspect,
    show.show,
    clean.clean,
)
