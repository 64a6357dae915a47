"""Where a run's randomness comes from: seeds derived by name, and global generators lent for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from hpsearch.config.seeds import derive_seed

TORCH_SEED_BITS = 63


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A generator on the CPU for one purpose, so that every device draws the same."""
    return torch.Generator().manual_seed(derive_seed(seed, *names, bits=TORCH_SEED_BITS))


@contextmanager
def seeded_generators(seed: int, *names: str | int, device: torch.device) -> Iterator[None]:
    """Seed torch's, numpy's and Python's global generators, and give them back as they were.

    A model may draw from any of them. Giving them back keeps two runs that take turns, and the
    caller's own draws between two epochs, from disturbing one another.
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
