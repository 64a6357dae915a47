"""Hyperparameter importance for each model, with intervals. A random forest over the model's trials gives permutation importances.

Optuna's default evaluator (PED-ANOVA) often ranks an irrelevant parameter first with 30 trials. For a random forest, unseen trials
also show how much the forest explains.
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
"""Number of forests. Each forest is fitted to another resample of the trials. This number gives an interval within seconds."""
TREES = 40
FEWEST_TRIALS = 10
"""Minimum number of complete trials of a model. With fewer trials no forest is fitted."""
FEW_TRIALS = 60
"""With fewer trials the order of the parameters is doubtful. With 30 trials an irrelevant parameter often ranks first."""
LITTLE_EXPLAINED = 0.2
"""Share of the variance of unseen trials. A forest that explains a smaller share says little about the parameters."""
MOST_TRIALS = 400
"""Maximum number of trials in one resample. More trials change little and cost seconds."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of one parameter.

    Attributes:
        share: loss of explained variance on unseen trials if the values of this parameter are shuffled.
        interval: 5th and 95th percentile over the resamples.
    """

    name: str
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The importance of all parameters of one model, highest first.

    Attributes:
        trials: number of complete trials.
        explained: share of the variance of unseen trials' ranks that the forest explains. Below 0 the forest is worse than the mean.
    """

    model: str
    parameters: tuple[Importance, ...]
    trials: int
    explained: float

    @property
    def doubt(self) -> str:
        """The reason why the importances are doubtful; empty if they are not doubtful."""
        if self.trials < FEW_TRIALS:
            return f"Only {self.trials} complete trials of {self.model}: below {FEW_TRIALS} the order of the parameters may be chance."
        if self.explained < LITTLE_EXPLAINED:
            return f"The forest explains {100 * max(0.0, self.explained):.0f} % of the differences between trials of {self.model}: its parameters say little."
        return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """The design matrix of some trials. It has one row for each trial and one column for each parameter that varies.

    Attributes:
        names: parameters, in the order of the columns.
        matrix: float64 [trials, parameters]. A value that is not a number is stored as its index, a missing parameter as NaN.
        accuracy: float64 [trials], validation accuracy, 0 to 1.
        choices: the values of each parameter whose values are not numbers, in the order of their indices.
    """

    names: tuple[str, ...]
    matrix: NDArray[numpy.float64]
    accuracy: NDArray[numpy.float64]
    choices: Mapping[str, tuple[Scalar, ...]]


def design_of(trials: Sequence[TrialRow], model: str) -> Design:
    """Return the design matrix of the complete trials of a model.

    Args:
        trials: trials of one study.
        model: name of the model.

    Returns:
        The design matrix.
    """
    own = [trial for trial in trials if trial.state == "complete" and trial.value is not None and trial.model == model]
    names = [name for name in dict.fromkeys(name for trial in own for name in trial.params) if name != "model"]
    columns: dict[str, list[float]] = {}
    choices: dict[str, tuple[Scalar, ...]] = {}
    for name in names:
        values = [trial.params.get(name) for trial in own]
        if any(isinstance(value, str | bool) for value in values):
            known = {value for value in values if value is not None}
            choices[name] = tuple(sorted(known, key=lambda value: (str(type(value)), value)))
        column = [math.nan if value is None else as_number(value, choices.get(name)) for value in values]
        if len(set(column) - {math.nan}) > 1:
            columns[name] = column
    matrix = numpy.array(list(columns.values()), dtype=float).T if columns else numpy.empty((len(own), 0))
    accuracy = numpy.array([trial.value for trial in own], dtype=float)
    return Design(names=tuple(columns), matrix=matrix, accuracy=accuracy, choices=choices)


def as_number(value: Scalar, choices: Sequence[Scalar] | None) -> float:
    """Return the number that stands for a value in a design matrix.

    Args:
        value: the value of a parameter.
        choices: the parameter's entry in `Design.choices`; None if its values are numbers.

    Returns:
        The value, or its index among the choices.
    """
    return float(value) if choices is None else float(choices.index(value))


def importances(trials: Sequence[TrialRow], model: str) -> Importances | None:
    """Compute the importance of each parameter for one model (Breiman, Machine Learning 45, 2001).

    Each forest fits the ranks of the accuracies in a resample of the trials. Ranks give a trial of very low accuracy no more weight
    than any other trial. Then each parameter is shuffled in turn on the trials outside the resample.

    Args:
        trials: trials of one study.
        model: name of the model.

    Returns:
        The importances; None if the model has too few complete trials.
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
    """Predict the accuracy on a grid of two parameters with a forest that is fitted to all trials.

    Args:
        design: the trials.
        x: name of the first parameter.
        y: name of the second parameter.
        at: values of all other parameters. A parameter that is missing here is NaN.
        grid: values of `x` and values of `y`.

    Returns:
        Predicted accuracy, float64 [len(y values), len(x values)].
    """
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
    """Return the explained share of the variance for the given matrix, then for the matrix with each column shuffled."""
    copies = [matrix]
    for column in range(matrix.shape[1]):
        shuffled = matrix.copy()
        shuffled[:, column] = chance.permutation(shuffled[:, column])
        copies.append(shuffled)
    # One call predicts all matrices, because a call costs more than its rows.
    guesses = forest.predict(numpy.concatenate(copies)).reshape(len(copies), -1)
    spread = float(((truth - truth.mean()) ** 2).sum())
    return [1 - float(((guess - truth) ** 2).sum()) / spread for guess in guesses]
