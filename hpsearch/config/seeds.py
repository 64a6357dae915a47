"""Derives the seed of each random generator of a study from the seed of the study."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int, bits: int = 32) -> int:
    """Return a seed for one purpose. Different names give unrelated seeds.

    Args:
        seed: the seed of the study or of the run.
        names: the purpose, for example `"trial", 3`.
        bits: size of the new seed. Optuna's samplers use numpy's RandomState, which takes 32 bits. torch takes 63 bits.

    Returns:
        A number from 0 to 2**bits - 1.
    """
    text = "/".join(map(repr, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)
