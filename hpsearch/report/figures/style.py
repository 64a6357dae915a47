"""The style of all figures. It has colours for colour-blind readers, axes and escaped texts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from hpsearch.analysis.leaderboard import describe_progress, describe_settings
from hpsearch.analysis.metrics import Estimate
from hpsearch.storage.records import TrialRow

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Colours of Okabe & Ito, Color Universal Design (2008).

Black and yellow are left out, because black is hard to see in the dark theme and yellow in the light theme.
"""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
FAINT = "rgba(128,128,128,0.5)"
PAPER, INK = "#fffffe", "#222223"
"""Colours of the background and of the text. A page replaces these two colours by the colours of its theme."""
SEQUENTIAL = "Cividis"
DIVERGING = [[0.0, "#D55E00"], [0.5, PAPER], [1.0, "#0072B2"]]
LONGEST_LABEL = 60
HOVER_WIDTH = 46
"""Characters of a line in the box over a point. Such a line fits on a phone."""
HOVER_LINES = 8
SIGNIFICANT_DIGITS = 6
"""Significant digits of a number in a figure. More digits cannot be seen and would make the figures three times as large."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The colour and the shape of a model's points."""

    colour: str
    symbol: str


def marks(names: Iterable[str]) -> dict[str, Mark]:
    """Return a colour and a shape for each name. The order of the names does not matter.

    Args:
        names: the names of models or of the two sides of a comparison.

    Returns:
        The mark of each name.
    """
    return {
        name: Mark(colour=PALETTE[index % len(PALETTE)], symbol=SYMBOLS[index % len(SYMBOLS)])
        for index, name in enumerate(sorted(set(names)))
    }


def pale(colour: str) -> str:
    """Return a translucent colour.

    Args:
        colour: a colour such as `#0072B2`.

    Returns:
        A colour such as `rgba(0,114,178,0.4)`.
    """
    red, green, blue = (int(colour[workspace : workspace + 2], 16) for workspace in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.4)"


def escape_label(text: object, longest: int = LONGEST_LABEL) -> str:
    """Return a text that plotly shows unchanged. Plotly would interpret some HTML tags.

    Args:
        text: any text.
        longest: maximum number of characters. A longer text is cut and ends with an ellipsis.

    Returns:
        The escaped text.
    """
    short = str(text)
    short = short if len(short) <= longest else f"{short[: longest - 1]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover(trial: TrialRow) -> str:
    """Return the text of the box over a trial's point.

    Args:
        trial: any trial.

    Returns:
        The number, model, value, size and settings of the trial.
    """
    value = "" if trial.value is None else f", {100 * trial.value:.2f} %"
    state = "" if trial.state == "complete" else f" ({trial.state}{f' after {describe_progress(trial)}' if trial.trained_epochs else ''})"
    size = "" if trial.n_parameters is None else f"{trial.n_parameters:,} parameters"
    lines = textwrap.wrap(describe_settings(trial)[: HOVER_WIDTH * HOVER_LINES], HOVER_WIDTH)
    head = [f"<b>trial {trial.number}, {escape_label(trial.model)}{value}</b>{state}", *([size] if size else [])]
    return "<br>".join([*head, *(escape_label(line) for line in lines)])


def whiskers(estimates: Sequence[Estimate], *, scale: float, **look: Any) -> dict[str, Any]:
    """Return horizontal error bars that show the intervals of some estimates.

    Args:
        estimates: the estimates, in the order of the points.
        scale: factor of the axis, such as 100 for percent.
        look: width, thickness and colour of the error bars.

    Returns:
        Plotly's settings of the error bars.
    """
    above = [max(0.0, scale * (each.interval[1] - each.value)) for each in estimates]
    below = [max(0.0, scale * (each.value - each.interval[0])) for each in estimates]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def faint_lines(lines: Sequence[Sequence[tuple[Any, Any]]], most: int, **look: Any) -> go.Scatter:
    """Return many grey lines as one trace with gaps.

    Args:
        lines: the points of each line.
        most: maximum number of lines. If there are more, evenly spaced lines are drawn.
        look: settings of the trace, such as its mode and markers.

    Returns:
        The trace.
    """
    step = -(-len(lines) // most) or 1
    points = [point for line in lines[::step] for point in (*line, (None, None))]
    grey = {"line": {"color": FAINT, "width": 1}, "hoverinfo": "skip", "showlegend": False}
    return go.Scatter(x=[x for x, _ in points], y=[y for _, y in points], **grey, **look)


def figure(
    traces: Sequence[Any], *, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None, height: int = 420, **layout: Any
) -> go.Figure:
    """Return a figure with one pair of axes and the legend above it.

    Args:
        traces: the traces of plotly.
        x: settings of the horizontal axis.
        y: settings of the vertical axis.
        height: height in pixels.
        layout: more settings of plotly's layout.

    Returns:
        The figure.
    """
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        "hovermode": "closest",
        "xaxis": axis(**(x or {})),
        "yaxis": axis(**(y or {})),
        "template": "none",
    }
    return go.Figure(data=list(traces), layout={**base, **layout})


def compact(drawn: go.Figure) -> dict[str, Any]:
    """Return a figure as plain data with rounded numbers.

    Args:
        drawn: a figure.

    Returns:
        The traces as `data` and the layout as `layout`. Arrays are lists. A number that is not finite is None.
    """
    plain = drawn.to_plotly_json()
    plain["layout"].pop("template", None)
    return {"data": _rounded(plain["data"]), "layout": _rounded(plain["layout"])}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return _rounded(value.tolist()) if hasattr(value, "tolist") else value


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis that makes room for its labels.

    Args:
        title: title of the axis.
        more: other settings of the axis.

    Returns:
        Plotly's settings of the axis.
    """
    return {"title": {"text": title, "standoff": 8}, "automargin": True, "zeroline": False, **more}
