"""Make the pruner of a study. It compares a trial only with trials of the same model, because models learn at different speeds."""

from __future__ import annotations

from typing import Any

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpsearch.config.sections import Pruner
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


def make_pruner(section: Pruner, space: Space) -> BasePruner:
    """Make the pruner that a study file asks for. The steps of the pruner are epochs, counted from 1.

    Args:
        section: the section `[pruner]` of the study file.
        space: the search space.

    Returns:
        The pruner.
    """
    # Optuna may already prune at step n_warmup_steps. hpsearch must not prune a trial in its first `warmup_epochs`, so add 1.
    curve_options = {
        "n_startup_trials": section.startup_trials or 0,
        "n_warmup_steps": (section.warmup_epochs or 0) + 1,
        "n_min_trials": section.min_trials or 1,
    }
    halving_options = {"min_resource": section.min_epochs or 1, "reduction_factor": section.reduction_factor or 3}
    inner: BasePruner
    if section.kind == "median":
        inner = MedianPruner(**curve_options)
    elif section.kind == "percentile":
        inner = PercentilePruner(section.percentile or 50.0, **curve_options)
    elif section.kind == "halving":
        inner = SuccessiveHalvingPruner(**halving_options)
    elif section.kind == "hyperband":
        inner = HyperbandPruner(max_resource=space.max_epochs, **halving_options)
    else:
        return NopPruner()
    return _SameModelPruner(inner)
