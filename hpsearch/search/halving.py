"""Asynchronous successive halving (ASHA): which trials go on, and which are paused.

A trial is compared at a few rungs, which are shares of its own epochs. The best at a rung go on at once. Any other trial is paused with
its checkpoint. It goes on later if it then belongs to the best at its rung, because worse trials have reached the rung since.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2. There, the rungs are equal numbers of
epochs. Shares are fairer where the learning rate falls towards the end of each training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import Scalar
from hpsearch.config.sections import Pruner
from hpsearch.config.space import Space
from hpsearch.search.study_view import value_of
from hpsearch.storage.records import BASELINE, BY_HAND, TrialKey, is_own_trial, is_paused, read_pause, trained_epochs


@dataclass(frozen=True, kw_only=True)
class Halving:
    """The rule of a study that pauses trials.

    Attributes:
        rungs: shares of the epochs of a trial, above 0 and below 1, rising.
        reduction_factor: one of this many trials goes on at a rung.
    """

    space: Space
    rungs: tuple[float, ...]
    reduction_factor: float

    @classmethod
    def of(cls, section: Pruner, space: Space) -> Self | None:
        """Return the rule that a study file asks for.

        Args:
            section: the section `[pruner]`.
            space: the search space.

        Returns:
            The rule; None if the pruner does not pause trials.
        """
        if section.kind != "asha":
            return None
        return cls(space=space, rungs=tuple(section.rungs or ()), reduction_factor=section.reduction_factor or 2)

    def positions(self, epochs: int) -> tuple[float, ...]:
        """Return where a training meets the rungs.

        Args:
            epochs: number of epochs of the training.

        Returns:
            For each rung, the number of epochs: a share of the first epoch, or a whole number. Some may be equal.
        """
        return _positions(epochs, self.rungs)

    def partial_epochs(self, epochs: int) -> tuple[float, ...]:
        """Return the rungs in the first epoch.

        Args:
            epochs: number of epochs of the training.

        Returns:
            Shares of the first epoch, rising.
        """
        return tuple(position for position in self.positions(epochs) if position < 1)

    def must_pause(self, trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> bool:
        """Return whether a trial must be paused where it stands.

        Args:
            trial: a running trial.
            trials: all trials of the study.

        Returns:
            True if the trial stands at a rung, does not belong to the best there, and was not promoted from there.
        """
        here, positions = trained_epochs(trial), self._positions(trial)
        if here not in positions or _is_exempt(trial) or (read_pause(trial) or {}).get("at") == here:
            return False
        level = max(level for level, position in enumerate(positions) if position == here)
        ranking = self._ranking(trials, level, value_of(trial, "model"))
        return trial.number not in [each.number for each in ranking[: self._kept(ranking)]]

    def next_promotion(self, trials: Sequence[FrozenTrial], *, at_least_one: bool) -> FrozenTrial | None:
        """Return the paused trial that goes on next: the best of those that now belong to the best of their rung, at the last such rung.

        Args:
            trials: all trials of the study.
            at_least_one: whether the best trial of each rung goes on, however few trials have reached the rung. It is needed when no new
                trial will be begun.

        Returns:
            The trial; None if no paused trial belongs to the best.
        """
        models = sorted({value_of(trial, "model") for trial in trials if is_paused(trial)}, key=str)
        for level in reversed(range(len(self.rungs))):
            found = []
            for model in models:
                ranking = self._ranking(trials, level, model)
                kept = max(int(at_least_one), self._kept(ranking))
                found += [trial for trial in ranking[:kept] if is_paused(trial) and self._level(trial) == level]
            if found:
                return max(found, key=lambda trial: (self._value(trial, level) or 0.0, -trial.number))
        return None

    def can_compare(self, trial: FrozenTrial) -> bool:
        """Return whether a trial was measured at a rung. A paused trial may not be, if the study file has other rungs since.

        Args:
            trial: a trial of the study.

        Returns:
            True if it was.
        """
        return self._level(trial) is not None

    def epochs_ahead(self, trial: FrozenTrial) -> float:
        """Return how many epochs a trial has trained when it can next be paused.

        Args:
            trial: a trial that has not ended.

        Returns:
            The number of epochs. For a paused trial, the epochs that it has trained.
        """
        here, epochs = trained_epochs(trial), self.space.epochs(_params(trial))
        if is_paused(trial):
            return here
        return epochs if _is_exempt(trial) else min((position for position in self.positions(epochs) if position > here), default=epochs)

    def as_sampled(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as a sampler must see it. A paused trial counts as pruned, and the steps of both are the rungs they reached.

        Args:
            trial: a trial of the study.

        Returns:
            The same trial, or a changed copy.
        """
        level = self._level(trial) if is_paused(trial) or trial.state == TrialState.PRUNED else None
        if level is None:
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.PRUNED
        shown.intermediate_values = {level: self._value(trial, level) or 0.0}
        return shown

    def _kept(self, ranking: Sequence[FrozenTrial]) -> int:
        return int(len(ranking) / self.reduction_factor)

    def _ranking(self, trials: Iterable[FrozenTrial], level: int, model: object) -> list[FrozenTrial]:
        """Return the trials of a model that have reached a rung, the best there first. Failed trials are left out."""
        there = [
            (value, trial)
            for trial in trials
            if trial.state != TrialState.FAIL
            and is_own_trial(trial)
            and value_of(trial, "model") == model
            and (value := self._value(trial, level)) is not None
        ]
        return [trial for _, trial in sorted(there, key=lambda pair: (-pair[0], pair[1].number))]

    def _level(self, trial: FrozenTrial) -> int | None:
        """Return the last rung that a trial has reached; None before the first rung."""
        positions = self._positions(trial)
        return next((level for level in reversed(range(len(self.rungs))) if _accuracy_at(trial, positions[level]) is not None), None)

    def _value(self, trial: FrozenTrial, level: int) -> float | None:
        """Return the validation accuracy of a trial at a rung; None if it was not measured there."""
        return _accuracy_at(trial, self._positions(trial)[level])

    def _positions(self, trial: FrozenTrial) -> tuple[float, ...]:
        return self.positions(self.space.epochs(_params(trial)))


def _accuracy_at(trial: FrozenTrial, position: float) -> float | None:
    """Return the validation accuracy at a position in epochs; None if it was not measured. What an audit trained does not count."""
    if position > trial.user_attrs.get(TrialKey.AUDIT, position):
        return None
    if position >= 1:
        return trial.intermediate_values.get(int(position))
    # A decision looks at all trials, so their rungs are not made into objects.
    return next((rung["val_accuracy"] for rung in trial.user_attrs.get(TrialKey.RUNGS, ()) if rung["share"] == position), None)


@cache
def _positions(epochs: int, rungs: tuple[float, ...]) -> tuple[float, ...]:
    exact = (share * epochs for share in rungs)
    return tuple(position if position < 1 else round(position) for position in exact)


def _params(trial: FrozenTrial) -> dict[str, Scalar]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _is_exempt(trial: FrozenTrial) -> bool:
    """Return whether a trial is never paused: a baseline, with which the result is compared, or a trial that the user or the audit chose."""
    return trial.user_attrs.get(TrialKey.ORIGIN) in (BASELINE, BY_HAND) or TrialKey.AUDIT in trial.user_attrs
