"""Where training computes: devices by name, threads for a while."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.training.devices import pick_device, using_threads


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert pick_device("cuda").type == "cuda"
        return
    with pytest.raises(ConfigError, match="--device cuda: no CUDA device here") as caught:
        pick_device("cuda")
    assert caught.value.exit_code == 2
    assert "--device cpu" in caught.value.remedy


def test_threads_are_given_back_whatever_happens() -> None:
    before = torch.get_num_threads()
    with using_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with using_threads(before + 2):
            assert torch.get_num_threads() == before + 2
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ZeroDivisionError), using_threads(before + 3):
        _ = 1 / 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("told", ["1", "2"])
def test_the_environment_does_not_decide(told: str) -> None:
    code = (
        "import torch\nfrom pipeline.training.devices import using_threads\n"
        "print(torch.get_num_threads())\nwith using_threads(3): print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": told}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [told, "3"]
