"""Samplers, their seeds and the balance between models.

What a trial draws depends on the study's seed, the trial's number, the parameter's name and the
trials finished before it: so a trial that was killed between two draws draws the same again, and
workers never repeat one another.
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

from hpsearch.config.components import Scalar
from hpsearch.config.distributions import Searched
from hpsearch.config.sections import Budget, Sampler
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.errors import StudyStoppedError
from hpsearch.search.study_view import TrialsView, trials_with, unlike_spaces, value_of
from hpsearch.storage.optuna_internals import get_trial_id
from hpsearch.storage.records import counts_towards_budget

MOST_DRAWS = 200
"""Draws of one trial before the limits are said to leave nothing."""
LEARNED_DRAWS = 10
"""A sampler that knows nothing beyond the limits is drawn there; after so many tries chance decides."""

Accept = Callable[[Mapping[str, Scalar]], bool]


class SpaceSampler(BaseSampler):
    """Draws whole points of a space, one a trial, by one of Optuna's samplers.

    Args:
        accept: whether a point is within the study's limits; one that is not is drawn again.
    """

    def __init__(self, space: Space, section: Sampler, budget: Budget, *, seed: int, accept: Accept) -> None:
        self._space = space
        self._section = section
        self._seed = seed
        self._accept = accept
        self._balance = budget.balance
        self._points: dict[int, Mapping[str, Scalar]] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: the whole point is drawn when its first value is asked for."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Nothing, as `infer_relative_search_space` says."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """The trial's value of one parameter.

        Raises:
            StudyStoppedError: no draw was within the limits.
        """
        if get_trial_id(trial) not in self._points:
            self._points = {get_trial_id(trial): self._draw(study, trial)}
        return self._points[get_trial_id(trial)][param_name]

    def _draw(self, study: Study, trial: FrozenTrial) -> Mapping[str, Scalar]:
        everything = TrialsView(study, lambda other: True)
        # Of its own system attributes the trial would be asked by itself.
        stored = next(each for each in everything.get_trials(deepcopy=False) if each.number == trial.number)
        given = {**stored.system_attrs.get("fixed_params", {}), **trial.params}
        # What the trial itself has drawn already, before it was killed, must not change what it draws next.
        others = TrialsView(everything, lambda other: other.number != trial.number)
        if self._balance and self._balance not in given:
            given[self._balance] = self._least_tried(others, trial)
        seen = trials_with(others, self._balance, given[self._balance]) if self._balance else others
        for attempt in range(MOST_DRAWS):
            point = self._space.draw(_Draft(self, seen, trial, given, attempt).value)
            if self._accept(point):
                return point
        raise StudyStoppedError(
            f"none of {MOST_DRAWS} draws had at most limits.parameters", hint="Raise the limit, or narrow the space to smaller models."
        )

    def _least_tried(self, others: TrialsView, trial: FrozenTrial) -> Scalar:
        tried = [other for other in others.get_trials(deepcopy=False) if counts_towards_budget(other)]
        counts = Counter(value_of(other, str(self._balance)) for other in tried)
        names = sorted(
            self._space.names_of(str(self._balance)), key=lambda name: (counts[name], derive_seed(self._seed, trial.number, name))
        )
        return names[0]

    def inner(self, number: int, name: str, attempt: int) -> BaseSampler:
        """One of Optuna's samplers, seeded for one draw."""
        models = len(self._space.names_of("model")) if self._balance else 1
        startup = -(-(self._section.startup_trials or 0) // models)
        kind = self._section.kind if attempt < LEARNED_DRAWS else "random"
        return make_sampler(kind, startup, derive_seed(self._seed, number, name, attempt), study_seed=self._seed)


def make_sampler(kind: str, startup_trials: int, seed: int, *, study_seed: int) -> BaseSampler:
    """One of Optuna's samplers by its name in a study file.

    Args:
        study_seed: of the sequence that QMC walks along; scrambled anew for each draw it would be plain random.
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
    """A trial on paper: gives the values of a point without storing any."""

    def __init__(self, sampler: SpaceSampler, study: Any, trial: FrozenTrial, given: Mapping[str, Scalar], attempt: int) -> None:
        self._sampler, self._study, self._trial, self._given, self._attempt = sampler, study, trial, given, attempt
        joint = sampler.inner(trial.number, "", attempt)
        # All of it, given or not: fewer draws would be other draws.
        self._joint = joint.sample_relative(study, trial, joint.infer_relative_search_space(unlike_spaces(study), trial))

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
