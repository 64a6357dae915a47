"""How much each parameter matters for a model: permutation importance of a random forest over its trials, with intervals.

Optuna's default evaluator (PED-ANOVA) compares the best trials with the others, and at thirty trials it ranks chance first;
a forest says itself how much it explains, on trials that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from hpsearch.config.components import Scalar
from hpsearch.storage.records import TrialRow

BOOTSTRAPS = 20
"""Forests, each on another resample of the trials: enough for the ends of an interval, and done in seconds."""
TREES = 40
FEWEST_TRIALS = 10
"""Complete ones of a model; below it no forest is grown."""
FEW_TRIALS = 60
"""Below it the order of the parameters is to be doubted: at 30 trials an irrelevant one often ranks first."""
LITTLE_EXPLAINED = 0.2
"""Of the variance of unseen trials; a forest that explains less knows little of its parameters."""
MOST_TRIALS = 400
"""Of one resample; more change little and cost seconds."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """One parameter.

    Attributes:
        share: how much less of the order of unseen trials the forest explains when this parameter is shuffled, 0 to 1.
        interval: from the 5th to the 95th percentile of the resamples.
    """

    name: str
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Importances:
    """All parameters of one model, the most important first.

    Attributes:
        trials: complete ones that the forest learned from.
        explained: share of the variance of unseen trials' ranks that it explains; below 0 it is worse than nothing.
    """

    model: str
    parameters: tuple[Importance, ...]
    trials: int
    explained: float

    @property
    def doubt(self) -> str:
        """Why not to trust them; empty if there is no reason."""
        if self.trials < FEW_TRIALS:
            return f"Only {self.trials} complete trials of {self.model}: below {FEW_TRIALS} the order of the parameters may be chance."
        if self.explained < LITTLE_EXPLAINED:
            return f"The forest explains {100 * max(0.0, self.explained):.0f} % of the differences between trials of {self.model}: its parameters say little."
        return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Trials as numbers: one row a trial, one column a parameter that varies.

    Attributes:
        matrix: float [trials, parameters]; a choice is the index of its value, a parameter that does not exist is NaN.
        accuracy: float [trials].
        choices: of the parameters that are no numbers, their values by index.
    """

    names: tuple[str, ...]
    matrix: NDArray[numpy.float64]
    accuracy: NDArray[numpy.float64]
    choices: Mapping[str, tuple[Scalar, ...]]


def design_of(trials: Sequence[TrialRow], model: str) -> Design:
    """The complete trials of a model as numbers."""
    own = [trial for trial in trials if trial.state == "complete" and trial.value is not None and trial.model == model]
    names = [name for name in dict.fromkeys(name for trial in own for name in trial.params) if name != "model"]
    columns: dict[str, list[float]] = {}
    choices: dict[str, tuple[Scalar, ...]] = {}
    for name in names:
        values = [trial.params.get(name) for trial in own]
        if any(isinstance(value, str | bool) for value in values):
            known = tuple(sorted({value for value in values if value is not None}, key=lambda value: (str(type(value)), value)))
            choices[name] = known
            column = [math.nan if value is None else float(known.index(value)) for value in values]
        else:
            column = [math.nan if value is None else float(value) for value in values]
        if len(set(column) - {math.nan}) > 1:
            columns[name] = column
    matrix = numpy.array(list(columns.values()), dtype=float).T if columns else numpy.empty((len(own), 0))
    accuracy = numpy.array([trial.value for trial in own], dtype=float)
    return Design(names=tuple(columns), matrix=matrix, accuracy=accuracy, choices=choices)


def importances(trials: Sequence[TrialRow], model: str) -> Importances | None:
    """The importance of each parameter for one model; None where there are too few trials to grow a forest.

    Each of several forests learns the rank of the trials' accuracy, so that a trial that learned nothing weighs no more than
    any other, from a resample of the trials; on the trials left out, each parameter is shuffled in turn (Breiman, Machine
    Learning 45, 2001).
    """
    design = design_of(trials, model)
    count = len(design.accuracy)
    if count < FEWEST_TRIALS or not design.names:
        return None
    ranks = numpy.argsort(numpy.argsort(design.accuracy, kind="stable"), kind="stable") / (count - 1)
    chance = numpy.random.default_rng(0)
    drops, explained = [], []
    for number in range(BOOTSTRAPS):
        chosen = chance.choice(count, size=min(count, MOST_TRIALS))
        unseen = numpy.setdiff1d(numpy.arange(count), chosen)[:MOST_TRIALS]
        if len(unseen) < 2 or numpy.ptp(ranks[unseen]) == 0:
            continue
        forest = _forest(number).fit(design.matrix[chosen], ranks[chosen])
        whole, *without = _explained(forest, design.matrix[unseen], ranks[unseen], chance)
        explained.append(whole)
        drops.append([max(0.0, whole - each) for each in without])
    table = numpy.array(drops)
    low, high = numpy.percentile(table, [5, 95], axis=0)
    found = [
        Importance(name=name, share=float(table[:, index].mean()), interval=(float(low[index]), float(high[index])))
        for index, name in enumerate(design.names)
    ]
    found.sort(key=lambda each: (-each.share, each.name))
    return Importances(model=model, parameters=tuple(found), trials=count, explained=float(numpy.mean(explained)))


def surface(
    design: Design, x: str, y: str, at: Mapping[str, float], grid: tuple[Sequence[float], Sequence[float]]
) -> NDArray[numpy.float64]:
    """What a forest over all trials expects on a grid of two parameters, all others as in `at`; float [len(y), len(x)]."""
    forest = _forest(0).fit(design.matrix, design.accuracy)
    points = numpy.array([[at.get(name, math.nan) for name in design.names]] * (len(grid[0]) * len(grid[1])))
    across, up = numpy.meshgrid(grid[0], grid[1])
    points[:, design.names.index(x)] = across.ravel()
    points[:, design.names.index(y)] = up.ravel()
    expected: NDArray[numpy.float64] = forest.predict(points).reshape(across.shape)
    return expected


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=TREES, min_samples_leaf=2, max_features=0.6, random_state=seed, n_jobs=1)


def _explained(forest: Any, matrix: NDArray[Any], truth: NDArray[Any], chance: numpy.random.Generator) -> list[float]:
    """The share of the variance that a forest explains: as it is, and with each column shuffled."""
    copies = [matrix]
    for column in range(matrix.shape[1]):
        shuffled = matrix.copy()
        shuffled[:, column] = chance.permutation(shuffled[:, column])
        copies.append(shuffled)
    # All at once: a call costs more than its rows.
    guesses = forest.predict(numpy.concatenate(copies)).reshape(len(copies), -1)
    spread = float(((truth - truth.mean()) ** 2).sum())
    return [1 - float(((guess - truth) ** 2).sum()) / spread for guess in guesses]
