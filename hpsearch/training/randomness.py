"""Random generators of a run, each seeded from the run's seed and the name of its purpose."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


def global_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators of torch, numpy and Python.

    Args:
        device: the device of the run.

    Returns:
        Tensors and plain values, for a checkpoint and for `seeded_generators`.
    """
    version, words, gauss = random.getstate()
    _, keys, *rest = numpy.random.get_state(legacy=True)
    states = {"python": [version, list(words), gauss], "numpy": [numpy.asarray(keys).tolist(), *rest], "torch": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_global_states(states: Mapping[str, Any], device: torch.device) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = states["numpy"]
    numpy.random.set_state(("MT19937", numpy.array(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def seeded_generators(seed: int, *names: str | int, device: torch.device, states: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python within the block, and restore them afterwards.

    A model may use any of these generators. Restoring them keeps runs that alternate from affecting
    each other. A caller may also draw random numbers between two epochs.

    Args:
        seed: the seed of the run.
        names: the purpose, for example `"epoch", 3`.
        device: the device of the run.
        states: the result of `global_states` in an earlier block with the same seed and names, to continue that block; None to begin.

    Yields:
        Nothing.
    """
    value = derive_seed(seed, *names, bits=TORCH_SEED_BITS)
    python, legacy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(value)
        random.seed(value)
        numpy.random.seed(value % 2**32)
        if states is not None:
            _set_global_states(states, device)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)
