"""One seed from another: every source of randomness of a study derives from the study's seed, by name."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int, bits: int = 32) -> int:
    """A seed of so many bits for the thing that `names` say; other names give unrelated seeds.

    32 bits are what numpy's RandomState takes, which Optuna's samplers use; torch takes 63.
    """
    text = "/".join(map(repr, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)
