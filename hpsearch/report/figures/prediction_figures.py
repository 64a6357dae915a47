"""Figures of predictions: confusion matrix, recall of each class, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import plotly.graph_objects as go

from hpsearch.analysis.metrics import CALIBRATION_BINS, Metrics, Predictions
from hpsearch.report.figures.style import DIVERGING, INK, SEQUENTIAL, escape_label, figure, marks

CELL = 34
"""Height of a row of a confusion matrix, in pixels."""
HEADROOM = 1.8
"""Factor that widens a colour scale, because numbers cannot be read on the colours at its ends."""


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> go.Figure:
    """Draw a confusion matrix. A cell shows the percentage of the images of its true class.

    Args:
        classes: the names of the classes.
        counts: number of images, as counts[true class][predicted class].

    Returns:
        The figure.
    """
    table = numpy.asarray(counts, dtype=float)
    shares = 100 * table / numpy.maximum(table.sum(axis=1, keepdims=True), 1)
    names = [escape_label(name, 20) for name in classes]
    return _matrix(
        names,
        # The square root makes small percentages visible. A linear scale would hide them.
        colours=numpy.sqrt(shares),
        labels=[[f"{value:.1f}" if value >= 0.05 else "" for value in row] for row in shares],
        says=[
            [f"{names[i]}, predicted {names[j]}:<br>{shares[i, j]:.1f} % ({int(table[i, j])} images)" for j in range(len(names))]
            for i in range(len(names))
        ],
        colorscale=SEQUENTIAL,
    )


def confusion_difference(classes: Sequence[str], first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> go.Figure:
    """Draw the difference of two confusion matrices of the same images.

    Args:
        classes: the names of the classes.
        first: number of images, as first[true class][predicted class].
        second: the confusion matrix that is subtracted from `first`.

    Returns:
        The figure. Its unit is images.
    """
    difference = numpy.asarray(first, dtype=float) - numpy.asarray(second, dtype=float)
    names = [escape_label(name, 20) for name in classes]
    extent = float(numpy.abs(difference).max()) or 1.0
    return _matrix(
        names,
        colours=difference,
        labels=[[f"{value:+.0f}" if value else "" for value in row] for row in difference],
        says=[
            [f"{names[i]}, predicted {names[j]}:<br>{difference[i, j]:+.0f} images" for j in range(len(names))] for i in range(len(names))
        ],
        colorscale=DIVERGING,
        zmin=-HEADROOM * extent,
        zmax=HEADROOM * extent,
        # Plotly would choose the colour of the text itself, but it does not know the background of the page.
        textfont={"size": 11, "color": INK},
    )


def recall(sides: Mapping[str, Metrics]) -> go.Figure:
    """Draw the recall of each class, side by side.

    Args:
        sides: the metrics of each model or split, by label.

    Returns:
        The figure. Its unit is percent.
    """
    names = [escape_label(each.name, 20) for each in next(iter(sides.values())).classes]
    looks = marks(sides)
    traces = [
        go.Scatter(
            x=[100 * each.recall for each in metrics.classes],
            y=names,
            mode="markers",
            name=escape_label(side),
            marker={"size": 11, "color": looks[side].colour, "symbol": looks[side].symbol},
            hovertemplate=f"{escape_label(side)}: %{{x:.1f}} % of %{{y}}<extra></extra>",
        )
        for side, metrics in sides.items()
    ]
    return _by_class(traces, names, x={"title": "recall, %"})


def recall_difference(first: Metrics, second: Metrics) -> go.Figure:
    """Draw the difference of recall of each class.

    Args:
        first: the metrics of one model.
        second: the metrics of the model whose recall is subtracted.

    Returns:
        The figure. Its unit is percentage points.
    """
    names = [escape_label(each.name, 20) for each in first.classes]
    points = [100 * (mine.recall - theirs.recall) for mine, theirs in zip(first.classes, second.classes, strict=True)]
    bars = go.Bar(
        x=points,
        y=names,
        orientation="h",
        marker={"color": ["#0072B2" if value >= 0 else "#D55E00" for value in points]},
        hovertemplate="%{y}: %{x:+.1f} points<extra></extra>",
    )
    return _by_class([bars], names, x={"title": "difference of recall, points", "zeroline": True}, showlegend=False)


def calibration(sides: Mapping[str, Predictions]) -> go.Figure:
    """Draw accuracy against confidence. On the diagonal the accuracy of a model equals its confidence.

    Args:
        sides: the predictions of each model or split, by label.

    Returns:
        The figure.
    """
    looks = marks(sides)
    diagonal = go.Scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": "rgba(128,128,128,0.7)", "dash": "dot"},
        name="perfect calibration",
        hoverinfo="skip",
    )
    traces = [diagonal]
    for side, predictions in sides.items():
        right = predictions.label == predictions.predicted
        bins = numpy.minimum((predictions.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        filled = [number for number in range(CALIBRATION_BINS) if (bins == number).any()]
        traces.append(
            go.Scatter(
                x=[100 * float(predictions.confidence[bins == number].mean()) for number in filled],
                y=[100 * float(right[bins == number].mean()) for number in filled],
                text=[f"{int((bins == number).sum()):,} images" for number in filled],
                mode="lines+markers",
                name=escape_label(side),
                line={"color": looks[side].colour},
                marker={"size": 8, "symbol": looks[side].symbol},
                hovertemplate="confidence %{x:.1f} %, accuracy %{y:.1f} %<br>%{text}<extra></extra>",
            )
        )
    return figure(traces, x={"title": "confidence, %", "range": [0, 102]}, y={"title": "accuracy, %", "range": [0, 102]}, height=400)


def _by_class(traces: Sequence[object], names: Sequence[str], **look: Any) -> go.Figure:
    return figure(traces, y={"type": "category", "autorange": "reversed"}, height=110 + 30 * len(names), **look)


def _matrix(names: Sequence[str], *, colours: object, labels: object, says: object, **look: object) -> go.Figure:
    heat = go.Heatmap(
        z=colours,
        x=list(names),
        y=list(names),
        text=labels,
        hovertext=says,
        texttemplate="%{text}",
        textfont=look.pop("textfont", {"size": 11}),
        hovertemplate="%{hovertext}<extra></extra>",
        showscale=False,
        xgap=1,
        ygap=1,
        **look,
    )
    return figure(
        [heat],
        x={"title": "predicted", "type": "category", "tickangle": -45, "showgrid": False},
        y={"title": "true class", "type": "category", "autorange": "reversed", "showgrid": False},
        height=150 + CELL * len(names),
        margin={"l": 80, "r": 10, "t": 10, "b": 90},
    )
