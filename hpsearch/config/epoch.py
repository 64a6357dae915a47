"""The result of one epoch of training, and its form in a database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

EARLIER_NAMES = {"validation_loss": "val_loss", "validation_accuracy": "val_accuracy"}
"""Names that version 0.1 stored, and their names of today."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images and what was measured after it.

    Attributes:
        number: counts from 1.
        train_loss: mean cross-entropy over a fixed sample of the training images, as many as
            there are validation images, without dropout or augmentation.
        train_accuracy: share of that sample classified correctly, 0 to 1.
        val_loss: mean cross-entropy over the validation images.
        val_accuracy: share of the validation images classified correctly, 0 to 1.
        learning_rate: that of the epoch's last step.
        seconds: time of the epoch, validation included.
        images_per_second: training images over the time of the training steps alone.
        weights_hash: SHA-256 of all weights and buffers after the epoch, hexadecimal.
        diverged: the loss was not finite; training ends here.

    Example:
        >>> import hpsearch
        >>> epoch = hpsearch.Epoch(
        ...     number=1,
        ...     train_loss=0.7,
        ...     train_accuracy=0.75,
        ...     val_loss=0.8,
        ...     val_accuracy=0.7,
        ...     learning_rate=0.001,
        ...     seconds=12.5,
        ...     images_per_second=4000.0,
        ...     weights_hash="00",
        ... )
        >>> hpsearch.Epoch.from_dict(epoch.to_dict()) == epoch
        True
    """

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    weights_hash: str
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the epoch for JSON.

        Returns:
            Field names to values; None for a number that is not finite.
        """
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Epoch:
        """Return the epoch that `to_dict` wrote, in this version or an earlier one.

        Args:
            stored: field names to values; None becomes NaN.

        Returns:
            The epoch.
        """
        values: dict[str, Any] = {EARLIER_NAMES.get(key, key): math.nan if value is None else value for key, value in stored.items()}
        return cls(**values)
