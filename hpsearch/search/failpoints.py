"""Define failpoints, which are named steps of a trial. Fault tests end the process at a failpoint."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Failpoint(StrEnum):
    """The steps of a trial between which a process may die."""

    AFTER_ASK = "after ask"
    BEFORE_ATTEMPT = "before the attempt is stored"
    BETWEEN_DRAWS = "between two draws"
    AFTER_DRAWS = "after the draws"
    BETWEEN_RUNG_AND_DECISION = "between a rung and the decision to pause"
    BETWEEN_PAUSE_AND_QUEUE = "between pause and queue"
    BETWEEN_CHECKPOINT_AND_STORE = "between checkpoint and store"
    AFTER_EPOCH = "after an epoch is stored"
    BETWEEN_EPOCHS_AND_END = "between epochs and end"
    BETWEEN_END_AND_TELL = "between end and tell"
    AFTER_TELL = "after tell"


on_reached: Callable[[Failpoint, int], None] | None = None
"""Function that is called at each failpoint, with the failpoint and the number of the trial. Only fault tests set it."""


def reached(point: Failpoint, trial: int) -> None:
    """Call `on_reached` because a trial reached a failpoint. Do nothing if no test has set `on_reached`.

    Args:
        point: the step.
        trial: number of the trial.
    """
    if on_reached is not None:
        on_reached(point, trial)
