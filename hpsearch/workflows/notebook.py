"""Each figure of the report for a study by name, for notebooks: `hpsearch.workflows.notebook.history("quickstart")`.

A figure is plotly's: a notebook shows it, and `figure.write_html(...)` keeps it.

Example:
    A search of the study `stripes` has ended in the folder `runs`.

    >>> import hpsearch
    >>> figure = hpsearch.figures.history("stripes")
    >>> figure.write_html("history.html")
"""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from hpsearch.analysis.importance import FEWEST_TRIALS
from hpsearch.analysis.leaderboard import rank
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.errors import UsageError, did_you_mean
from hpsearch.report.figures import prediction_figures as figures_of_predictions
from hpsearch.report.figures import repeat_figures as figures_of_repeats
from hpsearch.report.figures import search_figures as figures
from hpsearch.report.figures import space_figures as figures_of_space
from hpsearch.report.figures.search_figures import Cost
from hpsearch.report.sections.space_results import searched
from hpsearch.report.study_results import EvaluatedTrial, StudyResults
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import study_name
from hpsearch.workflows.write_report import read_studies

__all__ = [
    "accuracy_by_cost",
    "confusion",
    "confusion_difference",
    "contour",
    "curves",
    "finalists",
    "history",
    "importances",
    "models",
    "parallel",
    "recall",
    "recall_difference",
    "slice_of",
    "timeline",
    "way",
]

Runs = Path | str


def history(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """Accuracy by the trial's number and model, and the best so far of each model.

    Here and below:

    Args:
        study: a study's name, or a study file.
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.

    Raises:
        UsageError: there is no such study, or it has not what the figure shows.
    """
    return figures.history(_read(study, storage, runs).trials)


def accuracy_by_cost(study: str, by: Cost = "parameters", *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """Accuracy against `parameters`, `flops` or `seconds`, by model, with the Pareto line."""
    return figures.accuracy_by_cost(_read(study, storage, runs).trials, by)


def models(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """All complete trials of each model."""
    return figures.models(_read(study, storage, runs).trials)


def curves(study: str, top: int = 5, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """Learning curves of the best of each model, the others faint."""
    return figures.curves(_read(study, storage, runs).trials, top)


def timeline(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """Who trained what when."""
    return figures.timeline(_read(study, storage, runs).trials)


def importances(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """The importance of each parameter for each model."""
    results = _read(study, storage, runs)
    if not results.importances:
        raise UsageError(f"no model of '{results.name}' has {FEWEST_TRIALS} complete trials", hint="`hpsearch run --trials` searches on.")
    return figures_of_space.importances(results.importances)


def slice_of(study: str, parameter: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """Accuracy against the values of one parameter, by model."""
    results = _read(study, storage, runs)
    _require(results, parameter)
    return figures_of_space.slice_of(results.trials, parameter, results.space)


def contour(study: str, model: str, x: str, y: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """What a random forest expects of a model over two parameters, the others as in its best trial."""
    results = _read(study, storage, runs)
    best = rank(results.trials, model)[:1]
    if not best:
        raise UsageError(f"no trial of '{model}' is complete in '{results.name}'", hint=did_you_mean(model, results.models))
    for name in (x, y):
        _require(results, name)
    return figures_of_space.contour(results.trials, model, x, y, results.space)


def parallel(study: str, top: int = 10, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """One line a trial across its parameters, the best of each model in colour."""
    results = _read(study, storage, runs)
    return figures_of_space.parallel(results.trials, results.space, searched(results), top)


def recall(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """The recall of each class, for the best trial of each model."""
    return figures_of_predictions.recall({each.trial.model: each.metrics for each in _judged(_read(study, storage, runs))})


def recall_difference(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """The recall of each class, the best model's less the second's."""
    first, second = _two(_read(study, storage, runs))
    return figures_of_predictions.recall_difference(first.metrics, second.metrics)


def confusion(study: str, model: str | None = None, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """What the best trial of a model takes for what; by default of the best model."""
    results = _read(study, storage, runs)
    evaluated = [each for each in _judged(results) if model in (None, each.trial.model)]
    if not evaluated:
        raise UsageError(f"no predictions of '{model}' are at hand", hint=did_you_mean(str(model), results.models))
    return figures_of_predictions.confusion([each.name for each in evaluated[0].metrics.classes], evaluated[0].metrics.confusion)


def confusion_difference(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """The confusion of the best model less that of the second, in images."""
    first, second = _two(_read(study, storage, runs))
    names = [each.name for each in first.metrics.classes]
    return figures_of_predictions.confusion_difference(names, first.metrics.confusion, second.metrics.confusion)


def finalists(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """The finalists on fresh seeds and splits."""
    results = _read(study, storage, runs)
    if results.verdict is None:
        raise UsageError(f"'{results.name}' has no finalists", hint=f"`hpsearch finalists {results.name}` runs them.")
    return figures_of_repeats.finalists(results.verdict)


def way(study: str, *, storage: str | None = None, runs: Runs = DEFAULT_RUNS) -> go.Figure:
    """What each change from the baseline to the winner did."""
    results = _read(study, storage, runs)
    if results.explanation is None:
        raise UsageError(f"nobody has explained '{results.name}'", hint=f"`hpsearch explain {results.name}` does.")
    return figures_of_repeats.way(results.explanation[0])


def _read(study: str, storage: str | None, runs: Runs) -> StudyResults:
    return read_studies([study_name(study)], Workspace(storage=storage, runs=Path(runs)))[0]


def _judged(results: StudyResults) -> list[EvaluatedTrial]:
    if not results.evaluated:
        raise UsageError(f"no predictions of '{results.name}' are at hand", hint="Trials leave them in the folder of runs when they end.")
    return [results.evaluated[trial.model] for trial in rank(each.trial for each in results.evaluated.values())]


def _two(results: StudyResults) -> tuple[EvaluatedTrial, EvaluatedTrial]:
    evaluated = _judged(results)
    if len(evaluated) < 2:
        raise UsageError(f"'{results.name}' has predictions of one model only: there is nothing to compare")
    return evaluated[0], evaluated[1]


def _require(results: StudyResults, parameter: str) -> None:
    known = list(dict.fromkeys(name for trial in rank(results.trials) for name in trial.params))
    if parameter not in known:
        raise UsageError(f"'{parameter}' is no parameter of a complete trial of '{results.name}'", hint=did_you_mean(parameter, known))
