"""Trials that hang: a worker ends an overlong trial itself, unless its training never comes back to Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpsearch.storage.records import TrialRow

GRACE_SECONDS = 5.0
"""Beyond `trial_time`, for the worker to end the trial itself."""


class Watchdog:
    """Knows how long each running trial has been at its present epoch, by this process's clock alone.

    Args:
        trial_time: seconds that a trial has over all continuations; None for no limit.
    """

    def __init__(self, trial_time: float | None) -> None:
        self._trial_time = trial_time
        self._since: dict[tuple[int, int, int], float] = {}

    def look(self, running: Sequence[TrialRow], now: float) -> Iterator[tuple[int, str]]:
        """The running trials that have overrun their time by more than the grace, each with its worker's name."""
        if self._trial_time is None:
            return
        seen: dict[tuple[int, int, int], float] = {}
        for trial in running:
            if trial.attempts:
                key = (trial.number, len(trial.attempts), len(trial.epochs))
                seen[key] = self._since.get(key, now)
                if trial.seconds + now - seen[key] > self._trial_time + GRACE_SECONDS:
                    yield trial.number, trial.attempts[-1]["worker"]
        self._since = seen
