"""Figures of the search space: hyperparameter importance, slice plots, contours, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import plotly.graph_objects as go

from hpsearch.analysis.importance import Importances, as_number, design_of, surface
from hpsearch.analysis.leaderboard import rank
from hpsearch.analysis.metrics import Estimate
from hpsearch.config.components import Scalar
from hpsearch.config.distributions import Choices, Distribution, FloatRange, IntRange
from hpsearch.formatting import str_of
from hpsearch.report.figures.search_figures import POINT, accuracy_axis, log_ticks, models_of, percent, view
from hpsearch.report.figures.style import PAPER, SEQUENTIAL, escape_label, faint_lines, figure, hover, marks, whiskers
from hpsearch.storage.records import TrialRow

GRID = 25
"""Number of points on each axis of a contour plot. The steps of a random forest are not finer."""
SHOWN_PARAMETERS = 10
MOST_FAINT_LINES = 200
"""Maximum number of grey lines in a plot of parallel coordinates."""

Distributions = Mapping[str, Distribution]
"""The distribution of each parameter, by name."""


def importances(found: Sequence[Importances]) -> go.Figure:
    """Draw the importance of each parameter for each model. The whiskers contain 90 % of the resamples.

    Args:
        found: the importances of each model.

    Returns:
        The figure.
    """
    names = list(dict.fromkeys(each.name for one in found for each in one.parameters[:SHOWN_PARAMETERS]))
    looks = marks(one.model for one in found)
    traces = []
    for one in found:
        known = {each.name: each for each in one.parameters}
        own = [known[name] for name in names if name in known]
        shares = [Estimate(value=each.share, interval=each.interval) for each in own]
        traces.append(
            go.Bar(
                y=[escape_label(each.name, 28) for each in own],
                x=[each.share for each in own],
                orientation="h",
                name=escape_label(one.model),
                marker={"color": looks[one.model].colour},
                error_x=whiskers(shares, scale=1, thickness=1.2, width=3, color="#808080"),
                hovertemplate=f"{escape_label(one.model)}: %{{y}}, %{{x:.2f}}<extra></extra>",
            )
        )
    return figure(
        traces,
        x={"title": "share of the trials' order that it explains", "rangemode": "tozero"},
        y={"type": "category", "autorange": "reversed"},
        height=120 + 17 * max(1, len(found)) * len(names) + 8 * len(names),
        barmode="group",
    )


def slice_of(trials: Sequence[TrialRow], name: str, space: Distributions) -> go.Figure:
    """Draw accuracy against the values of one parameter. The larger point of each colour is the best trial of a model.

    Args:
        trials: the trials of one study.
        name: the parameter's name.
        space: the distribution of each parameter, by name.

    Returns:
        The figure.
    """
    traces = []
    for model, look in marks(models_of(trials)).items():
        own = [trial for trial in rank(trials, model) if name in trial.params]
        if own:
            traces.append(
                go.Scatter(
                    x=[_value(trial.params[name]) for trial in own],
                    y=[percent(trial) for trial in own],
                    text=[hover(trial) for trial in own],
                    mode="markers",
                    name=escape_label(model),
                    marker={"color": look.colour, "symbol": look.symbol, "size": [12] + [7] * (len(own) - 1), "opacity": 0.8},
                    hovertemplate=POINT,
                )
            )
    return figure(traces, x=value_axis(name, space), y=accuracy_axis(rank(trials)), height=320)


def contour(trials: Sequence[TrialRow], model: str, x: str, y: str, space: Distributions) -> go.Figure:
    """Draw the accuracy that a random forest predicts for the values of two parameters.

    All other parameters have the values of the model's best trial.

    Args:
        trials: the trials of one study.
        model: name of a model with at least one complete trial.
        x: the parameter of the horizontal axis.
        y: the parameter of the vertical axis.
        space: the distribution of each parameter, by name.

    Returns:
        The figure.
    """
    design = design_of(trials, model)
    own = [trial for trial in rank(trials, model) if x in trial.params and y in trial.params]
    best = rank(trials, model)[0]
    at = {name: as_number(best.params[name], design.choices.get(name)) for name in design.names if name in best.params}
    grid = _grid(space, x, design.choices.get(x), own), _grid(space, y, design.choices.get(y), own)
    expected = 100 * surface(design, x, y, at, grid)
    field = go.Heatmap(
        z=numpy.round(expected, 2).tolist(),
        x=[_shown(value, design.choices.get(x)) for value in grid[0]],
        y=[_shown(value, design.choices.get(y)) for value in grid[1]],
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="about %{z:.1f} % expected<extra></extra>",
    )
    points = go.Scatter(
        x=[_value(trial.params[x]) for trial in own],
        y=[_value(trial.params[y]) for trial in own],
        text=[hover(trial) for trial in own],
        mode="markers",
        marker={
            "color": PAPER,
            "size": [13] + [6] * (len(own) - 1),
            "symbol": ["star"] + ["circle"] * (len(own) - 1),
            "line": {"color": "#222222", "width": 1},
        },
        hovertemplate=POINT,
    )
    return figure([field, points], x=value_axis(x, space), y=value_axis(y, space), height=380, showlegend=False)


def parallel(trials: Sequence[TrialRow], space: Distributions, names: Sequence[str], top: int = 10) -> go.Figure:
    """Draw parallel coordinates.

    The line of a trial goes through the values of its parameters and ends at its accuracy.

    Args:
        trials: the trials of one study.
        space: the distribution of each parameter, by name.
        names: names of the parameters, in the order of the axes.
        top: number of trials of each model in colour. All other trials are grey.

    Returns:
        The figure.
    """
    accuracies = [percent(trial) for trial in rank(trials)]
    low, high = (view(accuracies) or [accuracies[0] - 1, accuracies[0] + 1]) if accuracies else (0.0, 100.0)

    def heights(trial: TrialRow) -> list[float | None]:
        places = [position(trial.params[name], space[name]) if name in trial.params else None for name in names]
        return [*places, max(0.0, (percent(trial) - low) / (high - low))]

    columns = [*range(len(names) + 1), None]
    best = {model: rank(trials, model)[:top] for model in models_of(trials)}
    shown = {trial.number for own in best.values() for trial in own}
    rest = [list(enumerate(heights(trial))) for trial in rank(trials) if trial.number not in shown]
    traces = [faint_lines(rest, MOST_FAINT_LINES, mode="lines")]
    for model, look in marks(models_of(trials)).items():
        own = best[model]
        traces.append(
            go.Scatter(
                x=[x for _ in own for x in columns],
                y=[y for trial in own for y in (*heights(trial), None)],
                text=[hover(trial) for trial in own for _ in columns],
                mode="lines+markers",
                name=escape_label(model),
                line={"color": look.colour, "width": 1.6},
                marker={"symbol": look.symbol, "size": 6},
                opacity=0.85,
                hovertemplate=POINT,
            )
        )
    values = [space[name].extremes for name in names]
    ends = [tuple(escape_label(str_of(each), 12) for each in (own[0], own[-1])) for own in values] + [(f"{low:.1f} %", f"{high:.1f} %")]
    return figure(
        traces,
        x={
            "tickvals": list(range(len(names) + 1)),
            "ticktext": [*(escape_label(name, 22) for name in names), "accuracy"],
            "tickangle": -45,
            "range": [-0.4, len(names) + 0.4],
            "gridwidth": 2,
        },
        y={"visible": False, "range": [-0.12, 1.12]},
        height=460,
        annotations=[
            {"x": index, "y": position, "text": text, "showarrow": False, "font": {"size": 10}, "bgcolor": PAPER, "opacity": 0.85}
            for index, pair in enumerate(ends)
            for text, position in zip(pair, (-0.07, 1.07), strict=True)
        ],
    )


def value_axis(name: str, space: Distributions) -> dict[str, Any]:
    """Return the axis of a parameter's values.

    Args:
        name: name of the parameter.
        space: the distribution of each parameter, by name.

    Returns:
        Plotly's settings of the axis.
    """
    distribution = space.get(name)
    if isinstance(distribution, Choices):
        values = [_value(value) for value in distribution.listed]
        return {"title": escape_label(name), "type": "category", "categoryorder": "array", "categoryarray": values}
    if isinstance(distribution, FloatRange | IntRange) and distribution.log:
        return {"title": escape_label(name), "type": "log", **log_ticks((distribution.low, distribution.high))}
    return {"title": escape_label(name)}


def position(value: Scalar, distribution: Distribution) -> float:
    """Return the position of a value in its range. The scale is that of the range, linear or logarithmic.

    Args:
        value: the value of the parameter.
        distribution: the distribution of the parameter.

    Returns:
        A number from 0 (first value) to 1 (last value); 0.5 if the range has one value or lacks the value.
    """
    if isinstance(distribution, FloatRange | IntRange):
        low, high, at = float(distribution.low), float(distribution.high), float(value)
        if distribution.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5
    values = distribution.listed
    return values.index(value) / (len(values) - 1) if value in values and len(values) > 1 else 0.5


def _value(value: Scalar) -> Scalar:
    """Return a value as an axis shows it. A value that is not a number becomes a text."""
    return value if isinstance(value, float | int) and not isinstance(value, bool) else escape_label(str_of(value), 20)


def _shown(value: float, choices: Sequence[Scalar] | None) -> Scalar:
    return value if choices is None else _value(choices[int(value)])


def _grid(space: Distributions, name: str, choices: Sequence[Scalar] | None, trials: Sequence[TrialRow]) -> list[float]:
    if choices is not None:
        return [float(index) for index in range(len(choices))]
    distribution = space[name]
    if not isinstance(distribution, FloatRange | IntRange):  # a list of numbers to choose from
        return sorted({float(trial.params[name]) for trial in trials})
    spaced = numpy.geomspace if distribution.log else numpy.linspace
    return [float(value) for value in spaced(distribution.low, distribution.high, GRID)]
