"""Figures of repeated runs: the finalists with their intervals, and the ablation."""

from __future__ import annotations

import plotly.graph_objects as go

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.report.figures.style import FAINT, escape_label, figure, marks, whiskers
from hpsearch.report.text import step_verdict

VERDICT_COLOURS = {"helped": "#0072B2", "hurt": "#D55E00"}


def finalists(verdict: FinalistsResult) -> go.Figure:
    """Draw the mean of each finalist with its 95 % interval. A small point shows the result of one seed.

    Args:
        verdict: the result of the finalists.

    Returns:
        The figure.
    """
    looks = marks(each.candidate.model for each in verdict.finalists)
    traces = [
        go.Scatter(
            x=[100 * score for each in verdict.finalists for score in each.scores.values()],
            y=[escape_label(each.candidate.name) for each in verdict.finalists for _ in each.scores],
            text=[f"seed {repeat}" for each in verdict.finalists for repeat in each.scores],
            mode="markers",
            marker={"color": FAINT, "size": 6},
            name="one seed",
            hovertemplate="%{y}, %{text}: %{x:.2f} %<extra></extra>",
        )
    ]
    for model, look in looks.items():
        own = [each for each in verdict.finalists if each.candidate.model == model]
        traces.append(
            go.Scatter(
                x=[100 * each.mean.value for each in own],
                y=[escape_label(each.candidate.name) for each in own],
                mode="markers",
                marker={"color": look.colour, "symbol": look.symbol, "size": 12},
                name=escape_label(model),
                error_x=whiskers([each.mean for each in own], scale=100, width=5),
                hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
            )
        )
    order = [escape_label(each.candidate.name) for each in verdict.finalists]
    return figure(
        traces,
        x={"title": "accuracy on fresh splits, %"},
        y={"type": "category", "autorange": "reversed", "categoryorder": "array", "categoryarray": order},
        height=130 + 44 * len(order),
    )


def ablation(explanation: Explanation) -> go.Figure:
    """Draw the gain of each ablation step over the step before, with its 95 % interval.

    The steps lead from the baseline to the winner. The unit is percentage points.

    Args:
        explanation: the ablation path and its measurements.

    Returns:
        The figure.
    """
    steps = [(number, step) for number, step in enumerate(explanation.steps) if step.gain is not None]
    labels = [escape_label(f"{number}. {step.parameter}: {step.change}", 44) for number, step in steps]
    gains = [step.gain for _, step in steps if step.gain is not None]
    bars = go.Bar(
        x=[100 * gain.value for gain in gains],
        y=labels,
        orientation="h",
        marker={"color": [VERDICT_COLOURS.get(step_verdict(step), "#8a8f98") for _, step in steps]},
        text=[step_verdict(step) for _, step in steps],
        textposition="none",
        error_x=whiskers(gains, scale=100, width=4, color="#808080"),
        hovertemplate="%{y}<br>%{x:+.2f} points, %{text}<extra></extra>",
    )
    return figure(
        [bars],
        x={"title": "gain over the step before, points", "zeroline": True},
        y={"type": "category", "autorange": "reversed"},
        height=120 + 34 * len(labels),
        showlegend=False,
    )
