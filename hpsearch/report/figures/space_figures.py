"""Figures of the search space: what matters in it, where the good values lie, and what goes with what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import plotly.graph_objects as go

from hpsearch.analysis.importance import Importances, design_of, surface
from hpsearch.analysis.leaderboard import rank
from hpsearch.config.components import Scalar
from hpsearch.formatting import str_of
from hpsearch.report.figures.search_figures import ACCURACY, POINT, log_ticks, models_of, percent, view
from hpsearch.report.figures.style import FAINT, PAPER, SEQUENTIAL, figure, hover, marks, safe
from hpsearch.storage.records import TrialRow

GRID = 25
"""Points along each side of a contour: a forest knows no finer steps."""
SHOWN_PARAMETERS = 10
MOST_FAINT_LINES = 200
"""Of parallel coordinates."""

PlainSpace = Mapping[str, Mapping[str, Any]]
"""As `Space.to_plain` gives it and a study stores it."""


def importances(found: Sequence[Importances]) -> go.Figure:
    """The importance of each parameter for each model; the whiskers hold 90 % of the resamples."""
    names = list(dict.fromkeys(each.name for one in found for each in one.parameters[:SHOWN_PARAMETERS]))
    looks = marks(one.model for one in found)
    traces = []
    for one in found:
        known = {each.name: each for each in one.parameters}
        own = [known[name] for name in names if name in known]
        traces.append(
            go.Bar(
                y=[safe(each.name, 28) for each in own],
                x=[each.share for each in own],
                orientation="h",
                name=safe(one.model),
                marker={"color": looks[one.model].colour},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, each.interval[1] - each.share) for each in own],
                    "arrayminus": [max(0.0, each.share - each.interval[0]) for each in own],
                    "thickness": 1.2,
                    "width": 3,
                    "color": "#808080",
                },
                hovertemplate=f"{safe(one.model)}: %{{y}}, %{{x:.2f}}<extra></extra>",
            )
        )
    return figure(
        traces,
        x={"title": "share of the trials' order that it explains", "rangemode": "tozero"},
        y={"type": "category", "autorange": "reversed"},
        height=120 + 17 * max(1, len(found)) * len(names) + 8 * len(names),
        barmode="group",
    )


def slice_of(trials: Sequence[TrialRow], name: str, space: PlainSpace) -> go.Figure:
    """Accuracy against the values of one parameter, by model; larger points are the best of each."""
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
                    name=safe(model),
                    marker={"color": look.colour, "symbol": look.symbol, "size": [12] + [7] * (len(own) - 1), "opacity": 0.8},
                    hovertemplate=POINT,
                )
            )
    return figure(
        traces, x=value_axis(name, space), y={"title": ACCURACY, "range": view([percent(trial) for trial in rank(trials)])}, height=320
    )


def contour(trials: Sequence[TrialRow], model: str, x: str, y: str, space: PlainSpace) -> go.Figure:
    """What a forest expects of a model over two parameters, the others as in its best trial; the points are its trials."""
    design = design_of(trials, model)
    own = [trial for trial in rank(trials, model) if x in trial.params and y in trial.params]
    best = rank(trials, model)[0]
    at = {name: _number(best.params[name], design.choices.get(name)) for name in design.names if name in best.params}
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


def parallel(trials: Sequence[TrialRow], space: PlainSpace, names: Sequence[str], top: int = 10) -> go.Figure:
    """One line a trial across its parameters, to its accuracy; the best of each model in colour, the others faint."""
    accuracies = [percent(trial) for trial in rank(trials)]
    low, high = (view(accuracies) or [accuracies[0] - 1, accuracies[0] + 1]) if accuracies else (0.0, 100.0)

    def heights(trial: TrialRow) -> list[float | None]:
        places = [_place(trial.params.get(name), space[name]) for name in names]
        return [*places, max(0.0, (percent(trial) - low) / (high - low)), None]

    columns = [*range(len(names) + 1), None]
    best = {model: rank(trials, model)[:top] for model in models_of(trials)}
    shown = {trial.number for own in best.values() for trial in own}
    rest = [trial for trial in rank(trials) if trial.number not in shown]
    rest = rest[:: -(-len(rest) // MOST_FAINT_LINES) or 1]
    traces = [
        go.Scatter(
            x=[x for _ in rest for x in columns],
            y=[y for trial in rest for y in heights(trial)],
            mode="lines",
            line={"color": FAINT, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    ]
    for model, look in marks(models_of(trials)).items():
        own = best[model]
        traces.append(
            go.Scatter(
                x=[x for _ in own for x in columns],
                y=[y for trial in own for y in heights(trial)],
                text=[hover(trial) for trial in own for _ in columns],
                mode="lines+markers",
                name=safe(model),
                line={"color": look.colour, "width": 1.6},
                marker={"symbol": look.symbol, "size": 6},
                opacity=0.85,
                hovertemplate=POINT,
            )
        )
    ends = [(_end(space[name], last=False), _end(space[name], last=True)) for name in names] + [(f"{low:.1f} %", f"{high:.1f} %")]
    return figure(
        traces,
        x={
            "tickvals": list(range(len(names) + 1)),
            "ticktext": [*(safe(name, 22) for name in names), "accuracy"],
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


def value_axis(name: str, space: PlainSpace) -> dict[str, Any]:
    """The axis of a parameter's values."""
    distribution = space.get(name, {})
    if "choices" in distribution:
        return {
            "title": safe(name),
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [_value(value) for value in distribution["choices"]],
        }
    bounds = range_of(distribution)
    if bounds is None or not distribution.get("log"):
        return {"title": safe(name)}
    return {"title": safe(name), "type": "log", **log_ticks(bounds)}


def range_of(distribution: Mapping[str, Any]) -> tuple[float, float] | None:
    """The bounds of a parameter that is a number; None for a choice."""
    bounds = distribution.get("float") or distribution.get("int")
    return (float(bounds[0]), float(bounds[1])) if bounds else None


def _value(value: Scalar) -> Scalar:
    """On an axis: a choice is a text, also where it is a number."""
    return value if isinstance(value, float | int) and not isinstance(value, bool) else safe(str_of(value), 20)


def _number(value: Scalar, choices: Sequence[Scalar] | None) -> float:
    return float(choices.index(value)) if choices is not None else float(value)


def _shown(value: float, choices: Sequence[Scalar] | None) -> Scalar:
    return value if choices is None else _value(choices[int(value)])


def _grid(space: PlainSpace, name: str, choices: Sequence[Scalar] | None, trials: Sequence[TrialRow]) -> list[float]:
    if choices is not None:
        return [float(index) for index in range(len(choices))]
    bounds = range_of(space[name])
    if bounds is None:  # a choice of numbers
        return sorted({float(trial.params[name]) for trial in trials})
    if space[name].get("log"):
        return [float(value) for value in numpy.geomspace(*bounds, GRID)]
    return [float(value) for value in numpy.linspace(*bounds, GRID)]


def _place(value: Scalar | None, distribution: Mapping[str, Any]) -> float | None:
    """Where a value stands between the ends of its axis, 0 to 1; None where the parameter does not exist."""
    if value is None:
        return None
    if "choices" in distribution:
        choices = distribution["choices"]
        return choices.index(value) / (len(choices) - 1) if value in choices and len(choices) > 1 else 0.5
    low, high = range_of(distribution) or (0.0, 1.0)
    if distribution.get("log"):
        low, high, value = math.log(low), math.log(high), math.log(float(value))
    return (float(value) - low) / (high - low) if high > low else 0.5


def _end(distribution: Mapping[str, Any], *, last: bool) -> str:
    values = distribution.get("choices") or distribution.get("float") or distribution.get("int") or [""]
    return safe(str_of(values[-1 if last else 0]), 12)
