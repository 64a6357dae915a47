"""Functions for notebooks. From the name of a study they make each figure of the report, and a data frame of the trials.

A notebook shows a figure of plotly, and `figure.write_html(...)` saves the figure.

Example:
    A search of the study `stripes` has ended in the folder `runs`.

    >>> import hpsearch
    >>> figure = hpsearch.figures.history("stripes")
    >>> figure.write_html("history.html")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from hpsearch.analysis.importance import FEWEST_TRIALS
from hpsearch.analysis.leaderboard import rank, records
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.errors import UsageError, did_you_mean
from hpsearch.report.figures import prediction_figures, repeat_figures, search_figures, space_figures
from hpsearch.report.figures.search_figures import Cost
from hpsearch.report.sections.space_results import searched
from hpsearch.report.study_results import EvaluatedTrial, StudyResults
from hpsearch.storage.records import read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import study_name
from hpsearch.workflows.write_report import read_studies

__all__: list[str] = []
"""The names of all functions that draw a figure. `_by_name` adds them."""

DOCUMENTATION = """{summary}

Args:
    study: a study's name, or a study file.
{arguments}    storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
    runs: the folder of runs.

Returns:
    The figure.

Raises:
    UsageError: there is no such study, or it lacks what the figure shows.
"""
"""The docstring of every function that draws a figure."""


def _by_name(**arguments: str) -> Callable[[Callable[..., go.Figure]], Callable[..., go.Figure]]:
    """Change a function that takes the results of a study into a function that takes the name of the study.

    Args:
        arguments: descriptions of the function's own arguments.

    Returns:
        A decorator. It adds the arguments `storage` and `runs` to the signature and to the docstring.
    """

    def decorate(draw: Callable[..., go.Figure]) -> Callable[..., go.Figure]:
        def drawn(study: str, *args: Any, storage: str | None = None, runs: Path | str = DEFAULT_RUNS, **options: Any) -> go.Figure:
            return draw(read_studies([study_name(study)], Workspace(storage=storage, runs=Path(runs)))[0], *args, **options)

        name, _, *keywords, _ = inspect.signature(drawn).parameters.values()
        own = list(inspect.signature(draw).parameters.values())[1:]
        signature = inspect.Signature([name, *own, *keywords], return_annotation="go.Figure")
        drawn.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` reads it
        drawn.__name__ = drawn.__qualname__ = draw.__name__
        described = "".join(f"    {name}: {text}\n" for name, text in arguments.items())
        __all__.append(draw.__name__)
        drawn.__doc__ = DOCUMENTATION.format(summary=inspect.getdoc(draw), arguments=described)
        return drawn

    return decorate


@_by_name()
def history(study: StudyResults) -> go.Figure:
    """Draw the accuracy of each trial by trial number and model, and the best accuracy of each model so far."""
    return search_figures.history(study.trials)


@_by_name(by="`parameters`, `flops` or `seconds`.")
def accuracy_by_cost(study: StudyResults, by: Cost = "parameters") -> go.Figure:
    """Draw accuracy against cost by model, with the Pareto front."""
    return search_figures.accuracy_by_cost(study.trials, by)


@_by_name()
def models(study: StudyResults) -> go.Figure:
    """Draw all complete trials of each model."""
    return search_figures.models(study.trials)


@_by_name(top="the number of best trials of each model in colour.")
def curves(study: StudyResults, top: int = 5) -> go.Figure:
    """Draw the learning curves. The curves of the best trials of each model are in colour, all other curves are faint."""
    return search_figures.curves(study.trials, top)


@_by_name()
def timeline(study: StudyResults) -> go.Figure:
    """Draw the timeline of the workers."""
    return search_figures.timeline(study.trials)


@_by_name()
def importances(study: StudyResults) -> go.Figure:
    """Draw hyperparameter importance for each model."""
    if not study.importances:
        raise UsageError(f"no model of '{study.name}' has {FEWEST_TRIALS} complete trials", hint="`hpsearch run --trials` continues.")
    return space_figures.importances(study.importances)


@_by_name(parameter="its name, such as `sgd.lr`.")
def slice_of(study: StudyResults, parameter: str) -> go.Figure:
    """Draw accuracy against the values of one parameter, by model."""
    _require(study, parameter)
    return space_figures.slice_of(study.trials, parameter, study.space)


@_by_name(model="the model's name.", x="the parameter of the horizontal axis.", y="the parameter of the vertical axis.")
def contour(study: StudyResults, model: str, x: str, y: str) -> go.Figure:
    """Draw the accuracy that a random forest predicts for two parameters. Other parameters are as in the model's best trial."""
    if not rank(study.trials, model):
        raise UsageError(f"no trial of '{model}' is complete in '{study.name}'", hint=did_you_mean(model, study.models))
    for name in (x, y):
        _require(study, name)
    return space_figures.contour(study.trials, model, x, y, study.space)


@_by_name(top="the number of best trials of each model in colour.")
def parallel(study: StudyResults, top: int = 10) -> go.Figure:
    """Draw parallel coordinates with a line for each trial. The best trials of each model are in colour."""
    return space_figures.parallel(study.trials, study.space, searched(study), top)


@_by_name()
def recall(study: StudyResults) -> go.Figure:
    """Draw the recall of each class for the best trial of each model."""
    return prediction_figures.recall({each.trial.model: each.metrics for each in _evaluated(study)})


@_by_name()
def recall_difference(study: StudyResults) -> go.Figure:
    """Draw for each class the recall of the best model minus the recall of the second-best model."""
    first, second = _two(study)
    return prediction_figures.recall_difference(first.metrics, second.metrics)


@_by_name(model="the model's name; by default the best model.")
def confusion(study: StudyResults, model: str | None = None) -> go.Figure:
    """Draw the confusion matrix of the best trial of a model."""
    evaluated = [each for each in _evaluated(study) if model in (None, each.trial.model)]
    if not evaluated:
        raise UsageError(f"the predictions of '{model}' are missing", hint=did_you_mean(str(model), study.models))
    return prediction_figures.confusion(evaluated[0].predictions.classes, evaluated[0].metrics.confusion)


@_by_name()
def confusion_difference(study: StudyResults) -> go.Figure:
    """Draw the confusion matrix of the best model minus the matrix of the second-best model, in images."""
    first, second = _two(study)
    return prediction_figures.confusion_difference(first.predictions.classes, first.metrics.confusion, second.metrics.confusion)


@_by_name()
def finalists(study: StudyResults) -> go.Figure:
    """Draw the finalists on fresh seeds and splits."""
    if study.verdict is None:
        raise UsageError(f"'{study.name}' has no finalists", hint=f"`hpsearch finalists {study.name}` runs them.")
    return repeat_figures.finalists(study.verdict)


@_by_name()
def ablation(study: StudyResults) -> go.Figure:
    """Draw the gain of each change from the baseline to the winner."""
    if study.explanation is None:
        raise UsageError(f"'{study.name}' has no ablation", hint=f"`hpsearch explain {study.name}` runs it.")
    return repeat_figures.ablation(study.explanation[0])


def trials(study: str, *, storage: str | None = None, runs: Path | str = DEFAULT_RUNS) -> Any:
    """Return all trials of a study as a pandas data frame. It has a row for each trial and a column for each fact and parameter.

    Args:
        study: a study's name, or a study file.
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        runs: the folder of runs.

    Returns:
        A `pandas.DataFrame`.

    Raises:
        UsageError: there is no such study, or pandas is not installed.

    Example:
        A search of the study `stripes` has ended in the folder `runs`.

        >>> import hpsearch
        >>> table = hpsearch.trials("stripes")
        >>> len(table), table["model"][0]
        (8, 'lenet5')
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("a data frame needs pandas, which is not installed", hint='pip install "hpsearch[notebook]"') from error
    store = Workspace(storage=storage, runs=Path(runs)).open(read_only=True)
    try:
        return pandas.DataFrame(records(read_trials(store.load(study_name(study)))))
    finally:
        store.dispose()


def _evaluated(study: StudyResults) -> list[EvaluatedTrial]:
    """Return the best trial of each model that has predictions, the best trial first."""
    if not study.evaluated:
        raise UsageError(f"the predictions of '{study.name}' are missing", hint="Trials write them into the folder of runs.")
    return list(study.evaluated.values())


def _two(study: StudyResults) -> tuple[EvaluatedTrial, EvaluatedTrial]:
    evaluated = _evaluated(study)
    if len(evaluated) < 2:
        raise UsageError(f"'{study.name}' has predictions of one model only: there is nothing to compare")
    return evaluated[0], evaluated[1]


def _require(study: StudyResults, parameter: str) -> None:
    known = list(dict.fromkeys(name for trial in rank(study.trials) for name in trial.params))
    if parameter not in known:
        raise UsageError(f"'{parameter}' is no parameter of a complete trial of '{study.name}'", hint=did_you_mean(parameter, known))
