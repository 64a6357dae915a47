"""The result of one epoch of training, and its form in a database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpsearch.errors import ConfigError, TrainingError
from hpsearch.formatting import one_line

EARLIER_NAMES = {"validation_loss": "val_loss", "validation_accuracy": "val_accuracy"}
"""Names of fields that version 0.1 stored, and the present names of these fields."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images, and the measurements after the pass.

    Attributes:
        number: counts from 1.
        train_loss: mean cross-entropy over a fixed sample of the training images, without dropout or
            augmentation. The sample has as many images as the validation part.
        train_accuracy: share of the sample that is classified correctly, 0 to 1.
        val_loss: mean cross-entropy over the validation images.
        val_accuracy: share of the validation images that is classified correctly, 0 to 1.
        learning_rate: learning rate of the last step in the epoch.
        seconds: time of the epoch, including validation.
        images_per_second: training images in each second of training, without the time of validation.
        weights_hash: SHA-256 of all weights and buffers after the epoch, hexadecimal.
        diverged: whether the loss was not finite. Training ends after such an epoch.

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

    def require_finite(self, run: str) -> None:
        """Raise an error if the training diverged in this epoch.

        Args:
            run: what was trained.

        Raises:
            TrainingError: the loss was not finite.
        """
        if self.diverged:
            raise TrainingError(f"the loss of {run} diverged in epoch {self.number}", hint="Take another trial, or a lower lr.")

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Epoch:
        """Return the epoch that `to_dict` wrote, in this version or an earlier one.

        Args:
            stored: field names to values; None becomes NaN.

        Returns:
            The epoch.

        Raises:
            ConfigError: `stored` is not such a table.
        """
        try:
            values: dict[str, Any] = {EARLIER_NAMES.get(key, key): math.nan if value is None else value for key, value in stored.items()}
            epoch = cls(**values)
            numbers = [value for key, value in values.items() if key not in ("number", "weights_hash", "diverged")]
            if type(epoch.number) is not int or not isinstance(epoch.weights_hash, str) or not all(map(_is_number, numbers)):
                raise TypeError("a value has another type")
        except (AttributeError, TypeError) as error:
            raise ConfigError(f"a stored epoch is damaged ({one_line(str(error))})") from error
        return epoch


@dataclass(frozen=True, kw_only=True)
class Rung:
    """An early measurement, inside the first epoch. A search compares trials by it; it changes nothing in the training.

    Attributes:
        share: share of the first epoch that is trained, above 0 and below 1.
        images: number of images that the training has seen.
        val_accuracy: share of the validated images that is classified correctly, 0 to 1.
        n_validated: number of validation images that are classified: the same share of the validation images.
        seconds: time of the training so far, including the measurements.
    """

    share: float
    images: int
    val_accuracy: float
    n_validated: int
    seconds: float

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Rung:
        """Return the measurement whose fields were stored.

        Args:
            stored: field names to values.

        Returns:
            The measurement.

        Raises:
            ConfigError: `stored` is not such a table.
        """
        try:
            rung = cls(**stored)
            if not all(map(_is_number, asdict(rung).values())):
                raise TypeError("a value has another type")
        except TypeError as error:
            raise ConfigError(f"a stored rung is damaged ({one_line(str(error))})") from error
        return rung


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
