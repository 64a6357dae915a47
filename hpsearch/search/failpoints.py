"""Failpoints: named steps of a trial at which fault tests end the process."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Failpoint(StrEnum):
    """The steps of a trial between which a process may die."""

    AFTER_ASK = "after ask"
    BEFORE_ATTEMPT = "before the attempt is stored"
    BETWEEN_DRAWS = "between two draws"
    AFTER_DRAWS = "after the draws"
    BETWEEN_CHECKPOINT_AND_STORE = "between checkpoint and store"
    AFTER_EPOCH = "after an epoch is stored"
    BETWEEN_EPOCHS_AND_END = "between epochs and end"
    BETWEEN_END_AND_TELL = "between end and tell"
    AFTER_TELL = "after tell"


on_reached: Callable[[Failpoint, int], None] | None = None
"""Called at each failpoint with the number of the trial. Fault tests set it; a search leaves it empty."""


def reached(point: Failpoint, trial: int) -> None:
    """Report that a trial reached a failpoint; do nothing unless a test set `on_reached`.

    Args:
        point: the step.
        trial: number of the trial.
    """
    if on_reached is not None:
        on_reached(point, trial)
