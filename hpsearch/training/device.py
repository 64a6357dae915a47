"""Selects the device of a run, and makes torch's results on it reproducible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpsearch.errors import ConfigError
from hpsearch.formatting import many


def resolve_device(name: str) -> torch.device:
    """Return the torch device for a name.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is the first CUDA device, or the CPU if there is none.

    Returns:
        The device.

    Raises:
        ConfigError: the name is invalid, or the device does not exist here.
    """
    available = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise ConfigError(f"the device must be auto, cpu, cuda or cuda:N, but got '{name}'")
    number = int(index or 0)
    if number >= available:
        found = f"torch sees {many(available, 'CUDA device')}"
        raise ConfigError(
            f"the device '{name}' is not available: {found}", hint="Take --device cpu, or look at `nvidia-smi` and CUDA_VISIBLE_DEVICES."
        )
    return torch.device("cuda", number)


@contextmanager
def deterministic_algorithms(device: torch.device) -> Iterator[None]:
    """Use deterministic CUDA algorithms within the block.

    On a CPU, results repeat without this if the number of threads is the same.

    Args:
        device: the device of the run.

    Yields:
        Nothing.
    """
    if device.type != "cuda":
        yield
        return
    # cuBLAS reads this variable when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    # With `warn_only`, torch does not raise an error if an operation has no deterministic algorithm.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
