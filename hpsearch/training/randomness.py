"""Random generators of a run, each seeded from the run's seed and the name of its purpose."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from hpsearch.config.seeds import derive_seed

TORCH_SEED_BITS = 63
"""torch takes seeds below 2^63 on every platform."""


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a generator for one purpose, on the CPU, so that every device gets the same numbers.

    Args:
        seed: the seed of the run.
        names: the purpose, for example `"batches", 3`.

    Returns:
        A new generator.
    """
    return torch.Generator().manual_seed(derive_seed(seed, *names, bits=TORCH_SEED_BITS))


@contextmanager
def seeded_generators(seed: int, *names: str | int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python within the block, and restore them afterwards.

    A model may use any of these generators. Restoring them keeps runs that alternate from affecting
    each other. A caller may also draw random numbers between two epochs.

    Args:
        seed: the seed of the run.
        names: the purpose, for example `"epoch", 3`.
        device: the device of the run.

    Yields:
        Nothing.
    """
    value = derive_seed(seed, *names, bits=TORCH_SEED_BITS)
    python, legacy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(value)
        random.seed(value)
        numpy.random.seed(value % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)
