"""start: weights from a file (.safetensors, .npz, .pt) become the start of fine-tuning."""

from __future__ import annotations

from pipeline.artifacts.networks import WeightsFile
from pipeline.artifacts.training import Start
from pipeline.networks.checkpoints import put_weights
from pipeline.networks.weights import read_weights
from pipeline.runs.run import Work, stage


@stage(version=1)
def import_weights(work: Work, *, file: WeightsFile) -> Start:
    """Read the file without running code from it and put its tensors into the store.

    Raises ModelError for a missing or corrupt file, and for one that holds more than tensors.
    """
    return Start(label=f"weights:{file.path.name}", weights=put_weights(read_weights(file.path), work.store))
