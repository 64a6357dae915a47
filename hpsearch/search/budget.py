"""Exactly N trials, over all runs and workers; and when the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import StudyStoppedError
from hpsearch.storage.records import TrialKey, counts_towards_budget, read_study

MOST_FAILURES_ALIKE = 3
"""The same failure so many times in a row is a bug, not bad luck: the study stops."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How long the runs of a study have lasted.

    Attributes:
        run: id of this run, under which its seconds are stored.
        started: `time.monotonic()` of this machine when it began.
    """

    run: str
    started: float
    now: Callable[[], float] = time.monotonic

    def elapsed(self) -> float:
        """Seconds since this run began."""
        return self.now() - self.started

    def spent(self, study: optuna.Study) -> float:
        """Seconds of all runs, this one included."""
        row = read_study(study)
        return row.seconds_spent - row.run_seconds.get(self.run, 0.0) + self.elapsed()


def budget_allows_trial(existing: Iterable[FrozenTrial], *, trials: int) -> bool:
    """Whether one trial more, on top of all that there are in whatever state, is within the budget of so many trials."""
    return sum(map(counts_towards_budget, existing)) < trials


def refuse_repeated_failure(study: str, trials: Iterable[FrozenTrial], run: str) -> None:
    """Stop a run whose last trials all failed in the same way; those of earlier runs may be mended by now.

    Args:
        study: its name.
        trials: all of its trials.
        run: id of the run.

    Raises:
        StudyStoppedError: with the failure.
    """
    ended = [(trial.datetime_complete, trial) for trial in trials if trial.datetime_complete]
    in_run = [(at, trial) for at, trial in ended if any(attempt["run"] == run for attempt in trial.user_attrs.get(TrialKey.ATTEMPTS, []))]
    last = [trial for _, trial in sorted(in_run, key=lambda pair: pair[0])][-MOST_FAILURES_ALIKE:]
    if len(last) < MOST_FAILURES_ALIKE or any(trial.state != TrialState.FAIL for trial in last):
        return
    reasons = {trial.user_attrs.get(TrialKey.END, {}).get("reason") for trial in last}
    if len(reasons) == 1 and None not in reasons:
        numbers = ", ".join(str(trial.number) for trial in last)
        raise StudyStoppedError(
            f"trials {numbers} failed in the same way: {reasons.pop()}",
            hint=f"`hpsearch show {study} {last[-1].number}` shows where. Once it is mended, the same command continues.",
        )
