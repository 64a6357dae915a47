"""Pruners, among trials of the same model: LeNet-5 is not measured by the CNN's curves."""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpsearch.config.sections import Pruner
from hpsearch.config.space import Space
from hpsearch.search.study_view import trials_with


class SameModelPruner(BasePruner):
    """Asks one of Optuna's pruners, which sees only the trials of the same model."""

    def __init__(self, inner: BasePruner) -> None:
        self._inner = inner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, judged at its last reported epoch, should end."""
        model = trial.params.get("model")
        return self._inner.prune(study if model is None else trials_with(study, "model", model), trial)


def make_pruner(section: Pruner, space: Space) -> BasePruner:
    """The pruner that a study file asks for. Steps are epochs, counted from 1."""
    # Optuna first prunes at step n_warmup_steps itself; `warmup_epochs` are all free.
    curves = {
        "n_startup_trials": section.startup_trials or 0,
        "n_warmup_steps": (section.warmup_epochs or 0) + 1,
        "n_min_trials": section.min_trials or 1,
    }
    inner: BasePruner
    if section.kind == "median":
        inner = MedianPruner(**curves)
    elif section.kind == "percentile":
        inner = PercentilePruner(section.percentile or 50.0, **curves)
    elif section.kind == "halving":
        inner = SuccessiveHalvingPruner(min_resource=section.min_epochs or 1, reduction_factor=section.reduction_factor or 3)
    elif section.kind == "hyperband":
        inner = HyperbandPruner(
            min_resource=section.min_epochs or 1, max_resource=most_epochs(space), reduction_factor=section.reduction_factor or 3
        )
    else:
        return NopPruner()
    return SameModelPruner(inner)


def most_epochs(space: Space) -> int:
    """The longest training of the space, in epochs."""
    longest = [
        int(value)
        for parameter in space
        if parameter.owner == "trainer" and parameter.option == "epochs"
        for value in parameter.distribution.extremes
    ]
    return max(longest, default=0) or space.config({}, seed=0).epochs
