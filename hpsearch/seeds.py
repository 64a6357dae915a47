"""One seed from another: every source of randomness of a study derives from the study's seed by name."""

from __future__ import annotations

import hashlib

SEED_BITS = 32
"""numpy's RandomState, which Optuna's samplers use, takes no more."""


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed below 2**32 for the thing that `names` say, independent of those for other names."""
    text = "\x1f".join(map(repr, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: SEED_BITS // 8], "big")
