"""The six small plots of a study in optuna-dashboard. Five are figures of the report, and one shows pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import plotly.graph_objects as go

from hpsearch.analysis.importance import FEWEST_TRIALS
from hpsearch.formatting import show_duration
from hpsearch.report.figures import prediction_figures as figures_of_predictions
from hpsearch.report.figures import search_figures as figures
from hpsearch.report.figures import space_figures as figures_of_space
from hpsearch.report.figures.style import INK, PAPER, compact, escape_label, figure, marks
from hpsearch.report.study_results import StudyResults

HEIGHT = 450
"""Height in pixels that the dashboard reserves for a plot."""
GRID = "#dddddd"
MOST_HOVERS = 400
"""Maximum number of texts in a plot. A plot with more texts is stored without any text.

Texts are most of the size of a plot, and the dashboard loads all plots each time.
"""


def plots(study: StudyResults) -> dict[str, go.Figure]:
    """Return the plots of a study by their ids. The ids never change, so a new plot replaces the old plot.

    Args:
        study: the results of the study.

    Returns:
        The figure of each id.
    """
    drawn: dict[str, Callable[[StudyResults], go.Figure]] = {
        "hpsearch-models": _models,
        "hpsearch-cost": _cost,
        "hpsearch-importance": _importance,
        "hpsearch-confusion": _confusion,
        "hpsearch-pruning": _pruning,
        "hpsearch-workers": _workers,
    }
    return {name: _small(draw(study)) for name, draw in drawn.items()}


def _models(study: StudyResults) -> go.Figure:
    if study.best is None:
        return _nothing("Models", "No trial is complete yet.")
    return _titled(figures.models(study.trials), f"Models, all {len(study.board.ranking)} complete trials")


def _cost(study: StudyResults) -> go.Figure:
    if study.best is None:
        return _nothing("Accuracy against parameters", "No trial is complete yet.")
    return _titled(figures.accuracy_by_cost(study.trials), "Accuracy against parameters")


def _importance(study: StudyResults) -> go.Figure:
    found = study.importances
    if not found:
        return _nothing("Hyperparameter importance", f"No model has {FEWEST_TRIALS} complete trials yet.")
    doubt = " (few trials: the order may be chance)" if any(one.doubt for one in found) else ""
    return _titled(figures_of_space.importances(found), f"Hyperparameter importance{doubt}")


def _confusion(study: StudyResults) -> go.Figure:
    evaluated = study.evaluated.get(study.best.model) if study.best is not None else None
    if evaluated is None:
        return _nothing("Confusion matrix of the best", "Its predictions are missing.")
    drawn = figures_of_predictions.confusion(evaluated.predictions.classes, evaluated.metrics.confusion)
    drawn.update_traces(textfont={"size": 9})
    return _titled(
        drawn, f"Confusion matrix of trial {evaluated.trial.number} ({escape_label(evaluated.trial.model, 20)}), % of each class"
    )


def _pruning(study: StudyResults) -> go.Figure:
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    if not pruned:
        return _nothing("Pruning", "No trial was pruned.")
    traces = []
    for model, look in marks(study.models).items():
        ends = Counter(len(trial.epochs) for trial in pruned if trial.model == model)
        epochs = sorted(ends)
        traces.append(
            go.Bar(
                x=epochs,
                y=[ends[epoch] for epoch in epochs],
                name=escape_label(model),
                marker={"color": look.colour},
                hovertemplate=f"{escape_label(model)}: %{{y}} pruned after %{{x}} whole epochs<extra></extra>",
            )
        )
    saved = f", which saved about {show_duration(study.board.saved_seconds)}" if study.board.saved_seconds else ""
    longest = max(len(trial.epochs) for trial in study.trials)
    first = min(len(trial.epochs) for trial in pruned)
    x = {"title": "whole epochs before it was pruned", "range": [first - 0.6, longest + 0.6], "dtick": 1 if longest <= 15 else None}
    y = {"title": "trials", "rangemode": "tozero", "dtick": 1 if len(pruned) <= 10 else None}
    drawn = figure(traces, x=x, y=y, barmode="stack", bargap=0.5)
    return _titled(drawn, f"Pruning: {len(pruned)} of {len(study.trials)} trials{saved}")


def _workers(study: StudyResults) -> go.Figure:
    if not any(trial.attempts for trial in study.trials):
        return _nothing("Timeline", "No trial has begun yet.")
    return _titled(figures.timeline(study.trials), "Timeline")


def _titled(drawn: go.Figure, title: str) -> go.Figure:
    return drawn.update_layout(title={"text": title, "font": {"size": 15}, "x": 0.02, "y": 0.97, "yanchor": "top"})


def _nothing(title: str, says: str) -> go.Figure:
    """Return an empty plot with a text that says why there is no data."""
    drawn = figure([], x={"visible": False}, y={"visible": False})
    drawn.add_annotation(text=says, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return _titled(drawn, title)


def _small(drawn: go.Figure) -> go.Figure:
    """Return a figure that suits the dashboard. Its plotly.js 2.35 does not know the theme of the reports."""
    # The numbers are in lists, because the dashboard's older plotly.js cannot decode arrays.
    plain = compact(drawn)
    traces = [trace for trace in plain["data"] if trace["type"] != "heatmap"]
    wordy = sum(len(trace.get("text", ())) for trace in traces) > MOST_HOVERS
    for trace in traces:
        if wordy:
            trace.pop("text", None)
            trace.pop("hovertemplate", None)
            # In a plot with many bars the outlines would hide the colours.
            trace.get("marker", {}).pop("line", None)
        elif "text" in trace:
            trace["text"] = [text.partition("<br>")[0] for text in trace["text"]]
    plain["layout"] |= {
        "height": HEIGHT,
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"color": INK, "size": 11},
        "margin": {"l": 60, "r": 20, "t": 75, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"},
    }
    for name in ("xaxis", "yaxis"):
        plain["layout"][name] |= {"gridcolor": GRID, "linecolor": INK}
    return go.Figure(plain)
