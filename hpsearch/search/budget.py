"""Check the budget of a study. It sets the numbers of trials and epochs over all runs and workers, and the time over all runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.outlook import by_model, look_ahead
from hpsearch.config.sections import Budget
from hpsearch.config.space import Space
from hpsearch.errors import StudyStoppedError
from hpsearch.search.halving import Halving
from hpsearch.search.study_view import value_of
from hpsearch.storage.records import TrialKey, counts_towards_budget, is_own_trial, is_paused, last_accuracy, read_study, trained_epochs

MAX_EQUAL_FAILURES = 3
"""A run stops after this number of failures in a row at the same place of the code. They come from a bug and not from bad luck."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Measures how long the runs of a study have lasted.

    Attributes:
        run: id of this run. The seconds of the run are stored under this id.
        started: `time.monotonic()` of this machine when the run began.
        now: returns the current time of the same clock.
    """

    run: str
    started: float
    now: Callable[[], float] = time.monotonic

    def spent(self, study: optuna.Study) -> float:
        """Return the seconds of all runs, including this run.

        Args:
            study: the study.

        Returns:
            Seconds.
        """
        row = read_study(study)
        return row.seconds_spent - row.run_seconds.get(self.run, 0.0) + self.now() - self.started


def budget_allows_trial(
    existing: Iterable[FrozenTrial], budget: Budget, n_images: int, space: Space | None = None, halving: Halving | None = None
) -> bool:
    """Return whether the budget of trials and epochs allows one more trial, and `stop` does not end the search.

    Args:
        existing: all trials of the study, in any state.
        budget: the budget.
        n_images: number of validation images.
        space: the search space. A trial that has not ended counts as if it runs to its last epoch. None if all trials have ended.
        halving: the rule that pauses trials, if any. With it, a trial counts as if it runs until it can next be paused.

    Returns:
        True if there are fewer trials and fewer epochs than the budget has, and further trials are worth their time.
    """
    own = [trial for trial in existing if is_own_trial(trial)]
    return (
        (budget.trials is None or sum(map(counts_towards_budget, own)) < budget.trials)
        and budget_has_epochs(own, budget, space, halving)
        and not (budget.stop == "auto" and gains_little(own, n_images))
    )


def gains_little(existing: Iterable[FrozenTrial], n_images: int) -> bool:
    """Return whether further trials are expected to gain less than the standard error of the best accuracy.

    Args:
        existing: trials of the search.
        n_images: number of validation images.

    Returns:
        True if a search with `stop = "auto"` ends.
    """
    outlook = look_ahead(accuracies_by_model(existing), n_images)
    return outlook is not None and outlook.is_small


def accuracies_by_model(trials: Iterable[FrozenTrial]) -> dict[str, list[float]]:
    """Return the accuracies that the trials of each model were last seen with.

    Args:
        trials: trials of the study.

    Returns:
        The accuracies of the trials that ended or are paused.
    """
    return by_model((str(value_of(trial, "model")), last_accuracy(trial)) for trial in trials)


def budget_has_epochs(existing: Iterable[FrozenTrial], budget: Budget, space: Space | None = None, halving: Halving | None = None) -> bool:
    """Return whether epochs of the budget are left, whatever the number of trials.

    Args:
        existing: all trials of the study, in any state.
        budget: the budget.
        space: the search space, as in `budget_allows_trial`.
        halving: the rule that pauses trials, if any.

    Returns:
        True if there are fewer epochs than the budget has, or if it counts none.
    """
    counted = filter(counts_towards_budget, existing)
    return budget.epochs is None or sum(_epochs(trial, space, halving) for trial in counted) < budget.epochs


def _epochs(trial: FrozenTrial, space: Space | None, halving: Halving | None) -> float:
    if TrialKey.AUDIT in trial.user_attrs:
        return float(trial.user_attrs[TrialKey.AUDIT])  # the rest is beyond the budget
    if trial.state.is_finished() or space is None:
        return trained_epochs(trial) or 1  # else a search whose trials all fail at once would never end
    if halving is not None:
        return halving.epochs_ahead(trial)
    return space.epochs({**trial.system_attrs.get("fixed_params", {}), **trial.params})


def refuse_repeated_failure(study: str, trials: Iterable[FrozenTrial], run: str) -> None:
    """Raise an error if the last trials of a run all failed at the same place of the code.

    Trials of earlier runs do not count, because the bug may have been fixed since then. The last trials are those with the highest
    numbers, because the clock of a machine can be set back.

    Args:
        study: name of the study.
        trials: all trials of the study.
        run: id of the run.

    Raises:
        StudyStoppedError: the last trials failed at the same place. The message names the reason of the last failure.
    """
    ended = [
        trial
        for trial in trials
        # A paused trial was trained, so the failures before and after it are not in a row.
        if (trial.state.is_finished() or is_paused(trial))
        and any(attempt["run"] == run for attempt in trial.user_attrs.get(TrialKey.ATTEMPTS, []))
    ]
    last = sorted(ended, key=lambda trial: trial.number)[-MAX_EQUAL_FAILURES:]
    if len(last) < MAX_EQUAL_FAILURES or any(trial.state != TrialState.FAIL for trial in last):
        return
    ends = [trial.user_attrs.get(TrialKey.END, {}) for trial in last]
    # The messages of two failures differ if they name sampled values, but their place is the same.
    places = {end.get("place") or end.get("reason") for end in ends}
    if len(places) == 1 and None not in places:
        numbers = ", ".join(str(trial.number) for trial in last)
        raise StudyStoppedError(
            f"trials {numbers} failed in the same way: {ends[-1].get('reason')}",
            hint=f"`hpsearch show {study} {last[-1].number}` shows where. Once it is fixed, the same command continues.",
        )
