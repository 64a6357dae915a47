"""Seeds: every source of randomness of a study has a seed that derives from the study's seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int, bits: int = 32) -> int:
    """Return a seed for one purpose. Other names give an unrelated seed.

    Args:
        seed: the seed to derive from.
        names: the purpose, for example `"trial", 3`.
        bits: the size; numpy's RandomState, which Optuna's samplers use, takes 32 bits and torch 63.

    Returns:
        A number from 0 to 2**bits - 1.
    """
    text = "/".join(map(repr, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)
