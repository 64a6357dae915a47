"""Make the pruner of a study. It compares a trial only with trials of the same model, because models learn at different speeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.sections import Pruner
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.search.study_view import TrialsView
from hpsearch.storage.records import is_own_trial


class _SameModelPruner(BasePruner):
    """Shows only the trials of the search and of the same model to one of Optuna's pruners."""

    def __init__(self, inner: BasePruner) -> None:
        self._inner = inner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        model = trial.params.get("model")
        view: Any = TrialsView(study, lambda other: is_own_trial(other) and model in (None, other.params.get("model")))
        return self._inner.prune(view, trial)


class _PercentilePruner(BasePruner):
    """Prunes a trial whose best epoch so far is worse than most complete trials were at the same share of their epochs.

    Optuna's pruner of this name compares equal epochs. That cuts long trainings whose learning rate falls at the end: after epoch 3 of 12,
    their accuracy is still lower than that of a training of 4 epochs, which they overtake later. If all trainings have the same number of
    epochs, both pruners decide the same.
    """

    def __init__(self, space: Space, *, kept: float, startup_trials: int, warmup_epochs: int, min_trials: int) -> None:
        self._space = space
        self._kept = kept
        self._startup_trials = startup_trials
        self._warmup_epochs = warmup_epochs
        self._min_trials = min_trials

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if epoch is None or epoch <= self._warmup_epochs or len(complete) < max(1, self._startup_trials):
            return False
        share = epoch / self._space.epochs(trial.params)
        values = [value for other in complete if (value := _value_at(other, share * self._space.epochs(other.params))) is not None]
        if len(values) < self._min_trials:
            return False
        return max(trial.intermediate_values.values()) < float(numpy.percentile(values, 100 - self._kept))


def _value_at(trial: FrozenTrial, position: float) -> float | None:
    """Return the accuracy of a trial at a position between its epochs, interpolated; None before its first and after its last epoch."""
    # A share that is a whole number of epochs must meet that epoch, whatever the rounding.
    position = round(position) if math.isclose(position, round(position)) else position
    before, after = (trial.intermediate_values.get(epoch) for epoch in (math.floor(position), math.ceil(position)))
    return None if before is None or after is None else before + (after - before) * (position % 1)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Draws trials that the pruner would stop, and that are trained to their end all the same, to see how often the pruner is wrong.

    Attributes:
        share: the share of the trials to be stopped, 0 to 1.
        seed: the study's seed.
    """

    share: float
    seed: int

    def draws(self, number: int) -> bool:
        """Return whether a trial is drawn. The answer never changes.

        Args:
            number: number of the trial.

        Returns:
            True if the trial goes on.
        """
        return derive_seed(self.seed, "audit", number, bits=32) < self.share * 2**32


def make_pruner(section: Pruner, space: Space) -> BasePruner:
    """Make the pruner that a study file asks for. The steps of the pruner are epochs, counted from 1.

    Args:
        section: the section `[pruner]` of the study file.
        space: the search space.

    Returns:
        The pruner.
    """
    halving_options = {"min_resource": section.min_epochs or 1, "reduction_factor": section.reduction_factor or 3}
    inner: BasePruner
    if section.kind in ("median", "percentile"):
        inner = _PercentilePruner(
            space,
            kept=section.percentile or 50.0,
            startup_trials=section.startup_trials or 0,
            warmup_epochs=section.warmup_epochs or 0,
            min_trials=section.min_trials or 1,
        )
    elif section.kind == "halving":
        inner = SuccessiveHalvingPruner(**halving_options)
    elif section.kind == "hyperband":
        inner = HyperbandPruner(max_resource=space.max_epochs, **halving_options)
    else:
        return NopPruner()
    return _SameModelPruner(inner)
