"""Figures of a search: optimization history, accuracy against cost, models, learning curves, timeline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Literal

import plotly.graph_objects as go

from hpsearch.analysis.leaderboard import rank
from hpsearch.report.figures.style import FAINT, INK, Mark, escape_label, faint_lines, figure, hover, marks, pale
from hpsearch.storage.records import TrialRow

Cost = Literal["parameters", "flops", "seconds"]
COSTS: dict[Cost, str] = {"parameters": "trainable parameters", "flops": "FLOPs an image", "seconds": "seconds of training"}
MOST_FAINT_CURVES = 150
"""Maximum number of grey learning curves of each model.

More curves would only show a grey area, and would add megabytes to a page.
"""
MOST_TICKS = 7
"""Maximum number of labels on an axis. A phone has no room for more labels."""
TICK_STEPS = ((1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Lists of round numbers from 1 to 9. The first list has the most labels, the last list the fewest."""
NARROWEST_BAR = 0.002
"""Minimum length of a bar in the timeline, as a share of the whole time.

It keeps a very short trial visible. The minimum length is never more than one second,
because a longer bar might hide the next bar.
"""
POINT = "%{text}<extra></extra>"


def models_of(trials: Iterable[TrialRow]) -> list[str]:
    """Return the names of the models. All figures use this order.

    Args:
        trials: the trials of one study.

    Returns:
        The sorted names.
    """
    return sorted({trial.model for trial in trials if trial.model})


def percent(trial: TrialRow) -> float:
    """Return the accuracy of a trial in percent.

    Args:
        trial: a trial that has a value.

    Returns:
        The percentage, rounded to three decimals.
    """
    return round(100 * (trial.value or 0.0), 3)


def view(values: Sequence[float]) -> list[float] | None:
    """Return the range of an axis on which good trials can be told apart.

    A few trials that learned nothing would press all good trials against the upper edge. Values are not visible if
    their distance from the best value is more than four times the distance of the median.

    Args:
        values: accuracies, in percent.

    Returns:
        Lower and upper end of the axis; None if there are fewer than two values.
    """
    if len(values) < 2:
        return None
    ordered = sorted(values)
    best, worst, median = ordered[-1], ordered[0], ordered[len(ordered) // 2]
    low = max(worst, best - max(4 * (best - median), 1.0))
    pad = max(0.04 * (best - low), 0.05)
    return [low - pad, best + pad]


def out_of_sight(values: Sequence[float]) -> int:
    """Return how many values lie below the range that `view` returns.

    Args:
        values: accuracies, in percent.

    Returns:
        The number of values.
    """
    shown = view(values)
    return 0 if shown is None else sum(value < shown[0] for value in values)


def history(trials: Sequence[TrialRow]) -> go.Figure:
    """Draw the optimization history.

    It shows the accuracy of each trial by trial number, and a line with the best accuracy so far for each model.

    Args:
        trials: the trials of one study.

    Returns:
        The figure.
    """
    looks = marks(models_of(trials))
    traces: list[go.Scatter] = []
    for model, look in looks.items():
        complete = sorted(rank(trials, model), key=lambda trial: trial.number)
        pruned = [trial for trial in trials if trial.model == model and trial.state == "pruned" and trial.value is not None]
        traces.append(_points(pruned, look, name=f"{escape_label(model)}, pruned", open_=True, opacity=0.55))
        traces.append(_points(complete, look, name=escape_label(model)))
        numbers, best = [trial.number for trial in complete], list(accumulate(map(percent, complete), max))
        line = {"color": look.colour, "width": 2, "shape": "hv"}
        traces.append(go.Scatter(x=numbers, y=best, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    drawn = [trial for trial in trials if trial.state in ("complete", "pruned") and trial.value is not None]
    return figure(traces, x={"title": "trial"}, y=accuracy_axis(drawn))


def accuracy_by_cost(trials: Sequence[TrialRow], by: Cost = "parameters") -> go.Figure:
    """Draw accuracy against cost, with a colour for each model. The line is the Pareto front.

    A trial is on the Pareto front if no other trial is both cheaper and better.

    Args:
        trials: the trials of one study.
        by: the kind of cost.

    Returns:
        The figure.
    """
    complete = [trial for trial in rank(trials) if cost_of(trial, by)]
    traces = []
    for model, look in marks(models_of(trials)).items():
        own = [trial for trial in complete if trial.model == model]
        traces.append(_points(own, look, name=escape_label(model), x=[cost_of(trial, by) for trial in own]))
    front = pareto(complete, by)
    line = go.Scatter(
        x=[cost_of(trial, by) for trial in front],
        y=[percent(trial) for trial in front],
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )
    return figure(
        [line, *traces],
        x={"title": COSTS[by], "type": "log", **log_ticks([cost_of(trial, by) for trial in complete])},
        y=accuracy_axis(complete),
        height=380,
    )


def cost_of(trial: TrialRow, by: Cost) -> float:
    """Return the cost of a trial.

    Args:
        trial: any trial.
        by: the kind of cost.

    Returns:
        The cost; 0 if it is unknown.
    """
    return float(trial.n_parameters or 0) if by == "parameters" else float(trial.flops or 0) if by == "flops" else round(trial.seconds, 1)


def pareto(trials: Iterable[TrialRow], by: Cost) -> list[TrialRow]:
    """Return the Pareto front.

    A trial is on the front if all trials of the same or lower cost are less accurate. If several trials are equal, only
    the first of these trials is on the front.

    Args:
        trials: trials that have a value.
        by: the kind of cost.

    Returns:
        The trials of the Pareto front, the cheapest first.
    """
    front: list[TrialRow] = []
    for trial in sorted(trials, key=lambda trial: (cost_of(trial, by), -(trial.value or 0.0), trial.number)):
        if cost_of(trial, by) and (not front or (trial.value or 0.0) > (front[-1].value or 0.0)):
            front.append(trial)
    return front


def models(trials: Sequence[TrialRow]) -> go.Figure:
    """Draw all complete trials of each model with their median and quartiles.

    Args:
        trials: the trials of one study.

    Returns:
        The figure.
    """
    traces = []
    for model, look in marks(models_of(trials)).items():
        own = rank(trials, model)
        traces.append(
            go.Box(
                y=[percent(trial) for trial in own],
                x=[escape_label(model)] * len(own),
                text=[hover(trial) for trial in own],
                name=escape_label(model),
                boxpoints="all",
                jitter=0.6,
                pointpos=0,
                marker={"color": look.colour, "symbol": look.symbol, "size": 6, "opacity": 0.75},
                line={"width": 1.5},
                fillcolor="rgba(128,128,128,0.12)",
                hoveron="points",
                hovertemplate=POINT,
            )
        )
    return figure(traces, x={"type": "category"}, y=accuracy_axis(rank(trials)), height=380, showlegend=False)


def curves(trials: Sequence[TrialRow], top: int = 5) -> go.Figure:
    """Draw learning curves up to the last epoch of each trial.

    The best trials of each model are in colour. All other trials are grey.

    Args:
        trials: the trials of one study.
        top: number of trials of each model in colour.

    Returns:
        The figure.
    """
    faint: list[go.Scatter] = []
    strong: list[go.Scatter] = []
    for model, look in marks(models_of(trials)).items():
        best = rank(trials, model)[:top]
        rest = [trial for trial in trials if trial.model == model and trial.epochs and trial not in best]
        lines = [[(epoch.number, round(100 * epoch.val_accuracy, 2)) for epoch in trial.epochs] for trial in rest]
        # The markers show trials of one epoch, which have no line.
        faint.append(faint_lines(lines, MOST_FAINT_CURVES, mode="lines+markers", marker={"color": FAINT, "size": 3}))
        for position, trial in enumerate(best):
            strong.append(
                go.Scatter(
                    x=[epoch.number for epoch in trial.epochs],
                    y=[round(100 * epoch.val_accuracy, 3) for epoch in trial.epochs],
                    text=[hover(trial)] * len(trial.epochs),
                    mode="lines+markers",
                    name=escape_label(model),
                    legendgroup=escape_label(model),
                    showlegend=position == 0,
                    line={"color": look.colour, "width": 2.5 if position == 0 else 1.3},
                    marker={"symbol": look.symbol, "size": 7 if position == 0 else 4},
                    hovertemplate="epoch %{x}: %{y:.2f} %<br>%{text}<extra></extra>",
                )
            )
    y = accuracy_axis(rank(trials))
    # Good trials may begin with a very low accuracy. The axis shows the last two thirds of their epochs, where their curves differ.
    lows = [
        100 * trial.epochs[len(trial.epochs) // 3].val_accuracy
        for model in models_of(trials)
        for trial in rank(trials, model)[:top]
        if trial.epochs
    ]
    if y["range"] is not None and lows:
        y["range"][0] = min(y["range"][0], min(lows) - 1)
    longest = max((len(trial.epochs) for trial in trials), default=0)
    return figure([*faint, *strong], x={"title": "epoch", "dtick": 1 if longest <= 15 else None}, y=y)


def timeline(trials: Sequence[TrialRow]) -> go.Figure:
    """Draw the timeline of the workers, with a bar for each attempt at a trial.

    A pale bar is an attempt that did not complete the trial.

    Args:
        trials: the trials of one study.

    Returns:
        The figure.
    """
    looks = marks(models_of(trials))
    spans = [span for trial in trials for span in _spans(trial)]
    begin, end = (min(span[2] for span in spans), max(span[3] for span in spans)) if spans else (datetime.min, datetime.min)
    narrowest = min(NARROWEST_BAR * (end - begin), timedelta(seconds=1))
    rows = sorted({worker for _, worker, _, _, _ in spans}, key=lambda worker: min(start for _, who, start, _, _ in spans if who == worker))
    label = {worker: _worker_label(worker, rows) for worker in rows}
    traces = []
    for model, look in looks.items():
        for whole in (True, False):
            own = [span for span in spans if span[0].model == model and span[4] is whole]
            traces.append(
                go.Bar(
                    orientation="h",
                    base=[start.isoformat(timespec="milliseconds") for _, _, start, _, _ in own],
                    x=[max(narrowest, end - start) // timedelta(milliseconds=1) for _, _, start, end, _ in own],
                    y=[label[worker] for _, worker, _, _, _ in own],
                    text=[hover(trial) for trial, _, _, _, _ in own],
                    textposition="none",
                    name=escape_label(model) if whole else f"{escape_label(model)}, not finished",
                    marker={"color": look.colour if whole else pale(look.colour), "line": {"color": INK, "width": 0.4}},
                    hovertemplate=POINT,
                )
            )
    return figure(
        [trace for trace in traces if len(trace.y or ())],
        x={"type": "date", "title": "time"},
        y={"type": "category", "autorange": "reversed", "categoryorder": "array", "categoryarray": [label[worker] for worker in rows]},
        height=min(900, 150 + 34 * len(rows)),
        barmode="overlay",
        bargap=0.3,
    )


def _points(
    trials: Sequence[TrialRow], look: Mark, *, name: str, x: Sequence[float] | None = None, open_: bool = False, opacity: float = 0.85
) -> go.Scatter:
    return go.Scatter(
        x=[trial.number for trial in trials] if x is None else list(x),
        y=[percent(trial) for trial in trials],
        text=[hover(trial) for trial in trials],
        mode="markers",
        name=name,
        marker={"color": look.colour, "symbol": f"{look.symbol}-open" if open_ else look.symbol, "size": 8, "opacity": opacity},
        hovertemplate=POINT,
    )


def accuracy_axis(trials: Iterable[TrialRow]) -> dict[str, Any]:
    """Return the axis of validation accuracy, with the range from `view`.

    Args:
        trials: the trials whose accuracies determine the range. Each has a value.

    Returns:
        Plotly's settings of the axis.
    """
    return {"title": "validation accuracy, %", "range": view([percent(trial) for trial in trials])}


def log_ticks(values: Sequence[float]) -> dict[str, object]:
    """Return round numbers for a logarithmic axis.

    Plotly's own choice is only one number if the axis spans less than a power of ten.

    Args:
        values: the values that the axis must show.

    Returns:
        Plotly's settings of the axis; empty if there is no value or a value is not positive.
    """
    if not values or min(values) <= 0:
        return {}
    low, high = min(values) / 1.15, max(values) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept: list[float] = []
    for steps in TICK_STEPS:
        kept = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(kept) <= MOST_TICKS:
            break
    return {"tickvals": kept, "ticktext": [short_number(value) for value in kept], "range": [math.log10(low), math.log10(high)]}


def short_number(value: float) -> str:
    """Return a number with a unit, such as `61.7k`, `1.2M` or `35`.

    Args:
        value: a number of at least 0.

    Returns:
        The text.
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _spans(trial: TrialRow) -> list[tuple[TrialRow, str, datetime, datetime, bool]]:
    """Return a tuple for each attempt at a trial.

    A tuple has the trial, the worker, the begin, the end, and whether the attempt completed the trial. An interrupted
    attempt ends with its last stored epoch, and a paused trial keeps no worker.
    """
    found = []
    for index, attempt in enumerate(trial.attempts):
        start = datetime.fromtimestamp(attempt["at"])
        last = index == len(trial.attempts) - 1
        until = len(trial.epochs) if last else trial.attempts[index + 1]["epochs"]
        trained = sum(epoch.seconds for epoch in trial.epochs[attempt["epochs"] : until])
        end = trial.finished if last and trial.finished is not None else start + timedelta(seconds=trained)
        if "paused_at" in attempt:
            end = datetime.fromtimestamp(attempt["paused_at"])
        found.append((trial, str(attempt["worker"]), start, max(start, end), last and trial.state == "complete"))
    return found


def _worker_label(worker: str, workers: Sequence[str]) -> str:
    """Return a short name of a worker, such as `worker 2`.

    If the workers belong to several runs, the name of the run is added. The names of log files have the full name of a worker.
    """
    parts = worker.rsplit("-", 2)
    if len(parts) != 3 or parts[0] != "worker":
        return escape_label(worker, 24)
    several = len({each.rsplit("-", 2)[1] for each in workers if each.count("-") >= 2}) > 1
    return f"worker {escape_label(parts[2], 6)}" + (f" of {escape_label(parts[1], 8)}" if several else "")
