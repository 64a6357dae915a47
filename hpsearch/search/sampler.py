"""Sample points of the search space, with a balance between models and within the limits of the study.

The values of a trial depend on the seed of the study, the number of the trial, the name of the parameter, and the trials
that finished before. So a trial draws the same values again if its worker was killed between two draws. Two workers never
draw the same sequence.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpsearch.analysis.outlook import trailing_models
from hpsearch.config.components import Scalar
from hpsearch.config.distributions import Searched
from hpsearch.config.sections import Budget, Sampler
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.errors import StudyStoppedError
from hpsearch.search.budget import accuracies_by_model
from hpsearch.search.failpoints import Failpoint, reached
from hpsearch.search.halving import Halving
from hpsearch.search.study_view import TrialsView, one_trial_per_space, trials_with, value_of
from hpsearch.storage.optuna_internals import get_trial_id
from hpsearch.storage.records import counts_towards_budget, is_own_trial

MAX_DRAWS = 200
"""Maximum number of draws for one trial. If all draws exceed the limits, the search stops."""
MAX_LEARNED_DRAWS = 10
"""Number of draws by the study's sampler. It does not know the limits and may exceed them again, so later draws are random."""

Accept = Callable[[Mapping[str, Scalar]], bool]


class SpaceSampler(BaseSampler):
    """Draws one whole point of a space for each trial, with one of Optuna's samplers.

    Args:
        space: the search space.
        section: the section `[sampler]`.
        budget: the section `[budget]`, of which only `balance` is used.
        seed: the study's seed.
        n_images: number of validation images.
        accept: returns whether a point is within the limits of the study. If not, another point is drawn.
        halving: the rule that pauses trials, if any. The sampler learns from paused trials as from pruned trials.
    """

    def __init__(
        self, space: Space, section: Sampler, budget: Budget, *, seed: int, n_images: int, accept: Accept, halving: Halving | None = None
    ) -> None:
        self._space = space
        self._section = section
        self._seed = seed
        self._n_images = n_images
        self._accept = accept
        self._balance = budget.balance
        self._halving = halving
        self._points: dict[int, Mapping[str, Scalar]] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space, because the first call of `sample_independent` draws the whole point.

        Args:
            study: the study.
            trial: the trial.

        Returns:
            No parameters.
        """
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return no values, because `sample_independent` draws the whole point.

        Args:
            study: the study.
            trial: the trial.
            search_space: no parameters.

        Returns:
            No values.
        """
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Return a trial's value of one parameter.

        Args:
            study: the study.
            trial: the trial.
            param_name: name of the parameter.
            param_distribution: its distribution.

        Returns:
            The value.

        Raises:
            StudyStoppedError: no draw was within the limits.
        """
        reached(Failpoint.BETWEEN_DRAWS, trial.number)
        if get_trial_id(trial) not in self._points:
            self._points = {get_trial_id(trial): self._draw_point(study, trial)}
        return self._points[get_trial_id(trial)][param_name]

    def _draw_point(self, study: Study, trial: FrozenTrial) -> Mapping[str, Scalar]:
        everything = TrialsView(study, lambda other: True)
        # Read system attributes from storage; `trial` may lack them.
        stored = next(each for each in everything.get_trials(deepcopy=False) if each.number == trial.number)
        given = {**stored.system_attrs.get("fixed_params", {}), **trial.params}
        # Values that this trial drew before it was killed must not influence its next draws.
        others = TrialsView(
            everything,
            lambda other: other.number != trial.number and is_own_trial(other),
            show=self._halving.as_sampled if self._halving else lambda other: other,
        )
        if self._balance and "model" not in given:
            given["model"] = self._next_model(others, trial)
        visible = trials_with(others, "model", given["model"]) if self._balance else others
        for attempt in range(MAX_DRAWS):
            point = self._space.draw(_Draft(self, visible, trial, given, attempt).value)
            if self._accept(point):
                return point
        raise StudyStoppedError(
            f"none of {MAX_DRAWS} draws had at most limits.parameters", hint="Raise the limit, or narrow the space to smaller models."
        )

    def _next_model(self, others: TrialsView, trial: FrozenTrial) -> Scalar:
        trials = others.get_trials(deepcopy=False)
        counts = Counter(value_of(other, "model") for other in trials if counts_towards_budget(other))
        trailing = trailing_models(accuracies_by_model(trials), self._n_images) if self._balance == "until_behind" else {}
        names = [name for name in self._space.names_of("model") if name not in trailing]
        return min(names, key=lambda name: (counts[name], derive_seed(self._seed, trial.number, name)))

    def inner(self, number: int, name: str, attempt: int) -> BaseSampler:
        """Return one of Optuna's samplers, seeded for one draw.

        Args:
            number: number of the trial.
            name: name of the parameter; empty for the joint draw.
            attempt: number of the draw, from 0.

        Returns:
            The sampler.
        """
        models = len(self._space.names_of("model")) if self._balance else 1
        startup = -(-(self._section.startup_trials or 0) // models)  # rounded up
        kind = self._section.kind if attempt < MAX_LEARNED_DRAWS else "random"
        return _make_sampler(kind, startup, derive_seed(self._seed, number, name, attempt), study_seed=self._seed)


def _make_sampler(kind: str, startup_trials: int, seed: int, *, study_seed: int) -> BaseSampler:
    """Make one of Optuna's samplers.

    QMC needs the seed of the study, because with a new seed for each draw its sequence would be plain random.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if kind == "tpe":
            return TPESampler(seed=seed, n_startup_trials=startup_trials, multivariate=True, group=True)
        if kind == "gp":
            return GPSampler(seed=seed, n_startup_trials=startup_trials)
        if kind == "qmc":
            return QMCSampler(seed=study_seed, scramble=True, warn_independent_sampling=False)
        return RandomSampler(seed=seed)


class _Draft:
    """Draws the values of a point without storing them."""

    def __init__(self, sampler: SpaceSampler, study: Any, trial: FrozenTrial, given: Mapping[str, Scalar], attempt: int) -> None:
        self._sampler, self._study, self._trial, self._given, self._attempt = sampler, study, trial, given, attempt
        joint = sampler.inner(trial.number, "", attempt)
        # Draw the given parameters too. Without them, the other parameters would get other values.
        self._joint = joint.sample_relative(study, trial, joint.infer_relative_search_space(one_trial_per_space(study), trial))

    def value(self, name: str, searched: Searched) -> Scalar:
        """Return the point's value of one parameter."""
        if name in self._given:
            return self._given[name]
        if name in self._joint:
            return cast("Scalar", self._joint[name])
        distribution = searched.optuna
        if distribution.single():
            return searched.extremes[0]
        inner = self._sampler.inner(self._trial.number, name, self._attempt)
        return cast("Scalar", inner.sample_independent(self._study, self._trial, name, distribution))
