"""The sections on the models: accuracy against size, model comparison, learning curves, optimization history."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from hpsearch.analysis.leaderboard import rank
from hpsearch.analysis.metrics import compare
from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Block, Chart, Paragraph, Table, number_column, text_column
from hpsearch.report.figures import search_figures as figures
from hpsearch.report.figures.prediction_figures import confusion, confusion_difference, recall, recall_difference
from hpsearch.report.figures.search_figures import COSTS, Cost, cost_of, out_of_sight, pareto, percent
from hpsearch.report.study_results import EvaluatedTrial, StudyResults
from hpsearch.report.text import confusion_table, epochs_table
from hpsearch.storage.records import TrialRow

SURE = 0.05
"""Significance level of McNemar's test."""


def costs(study: StudyResults) -> Iterator[Block]:
    """Yield accuracy against each cost, with the Pareto front. The costs are parameters, FLOPs and seconds.

    Args:
        study: the results of the study.

    Yields:
        A chart for each cost; nothing if no trial is complete.
    """
    complete = rank(study.trials)
    titles: dict[Cost, str] = {"parameters": "Parameters", "flops": "FLOPs", "seconds": "Training time"}
    for index, (by, title) in enumerate(titles.items()):
        front = pareto(complete, by)
        if not front:
            continue
        rows = tuple((str(trial.number), trial.model, f"{cost_of(trial, by):,.0f}", f"{percent(trial):.2f} %") for trial in front)
        yield Chart(
            title=title,
            figure=figures.accuracy_by_cost(study.trials, by),
            says=_pareto_words(front, by) + _hidden(complete),
            table=Table(
                caption="Pareto front",
                columns=(number_column("trial"), text_column("model"), number_column(COSTS[by]), number_column("accuracy")),
                rows=rows,
            ),
            narrow=index > 0,
        )


def _pareto_words(front: list[TrialRow], by: Cost) -> str:
    cheapest, best = front[0], front[-1]
    if cheapest is best:
        return f"Trial {best.number} ({best.model}) is both the cheapest and the best."
    factor = cost_of(best, by) / cost_of(cheapest, by)
    return (
        f"From the cheapest (trial {cheapest.number}, {cheapest.model}, {percent(cheapest):.2f} %) to the best (trial {best.number}, {best.model}, {percent(best):.2f} %): "
        f"{'about' if f'{factor:.1f}' == '1.0' else f'{factor:.1f} times'} as many {COSTS[by]} for {percent(best) - percent(cheapest):+.2f} points; {len(front)} trials form the Pareto front."
    )


def _hidden(trials: list[TrialRow]) -> str:
    count = out_of_sight([percent(trial) for trial in trials])
    return f" {count} of the weakest {'lies' if count == 1 else 'lie'} below the figure; a double click shows all." if count else ""


def comparison(study: StudyResults) -> Iterator[Block]:
    """Yield a comparison of the models.

    It compares all trials of each model, and the best trial of each model on the same images.

    Args:
        study: the results of the study.

    Yields:
        A table, charts and McNemar's test; nothing if no trial is complete.
    """
    complete = rank(study.trials)
    if not complete:
        return
    rows = tuple(_model_row(study, model) for model in study.models)
    headings = (
        "model",
        "trials",
        "complete",
        "best",
        "median",
        "spread (best to worst quarter)",
        "parameters of the best",
        "time of the best",
    )
    yield Table(
        caption="Each model in the search; the spread is that of its settings, not of seeds",
        columns=(text_column(headings[0]), *map(number_column, headings[1:])),
        rows=rows,
    )
    yield Chart(
        title="All complete trials of each model",
        figure=figures.models(study.trials),
        says="A box holds the middle half of a model's trials, its line is the median." + _hidden(complete),
        narrow=len(study.evaluated) > 0,
    )
    if len(study.models) == 1:
        yield Paragraph(text=f"Only one model was searched, {study.models[0]}: there is nothing to compare it with.")
    for trial in study.missing:
        text = f"The predictions of trial {trial.number}, the best {trial.model}, are missing or no finite numbers: its classes cannot be compared."
        yield Paragraph(text=text, kind="aside")
    evaluated = list(study.evaluated.values())
    if evaluated:
        yield _recall_chart(evaluated)
    for rival in evaluated[1:]:
        yield Paragraph(text=_mcnemar(evaluated[0], rival))
    if len(evaluated) > 1:
        yield from _class_differences(*evaluated[:2])
    yield from map(_confusion_chart, evaluated)


def _class_differences(first: EvaluatedTrial, second: EvaluatedTrial) -> Iterator[Chart]:
    names = [each.name for each in first.metrics.classes]
    widest = max(zip(first.metrics.classes, second.metrics.classes, strict=True), key=lambda pair: abs(pair[0].recall - pair[1].recall))
    yield Chart(
        title=f"Difference of recall: {first.trial.model} less {second.trial.model}",
        figure=recall_difference(first.metrics, second.metrics),
        says=f"The widest difference is that of {widest[0].name}: {100 * (widest[0].recall - widest[1].recall):+.1f} points.",
        narrow=True,
    )
    yield Chart(
        title=f"Difference of confusion: {first.trial.model} less {second.trial.model}",
        figure=confusion_difference(names, first.metrics.confusion, second.metrics.confusion),
        says="In images; rows are true classes, columns predicted classes. Blue on the diagonal is better for the first model, elsewhere worse.",
        narrow=True,
    )


def _model_row(study: StudyResults, model: str) -> tuple[str, ...]:
    own = rank(study.trials, model)
    tried = sum(trial.model == model for trial in study.trials)
    if not own:
        return (model, str(tried), "0", "", "", "", "", "")
    values = [percent(trial) for trial in own]
    quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    size = own[0].n_parameters
    return (
        model,
        str(tried),
        str(len(own)),
        f"{values[0]:.2f} %",
        f"{statistics.median(values):.2f} %",
        f"{values[0] - quarters[0]:.2f} points",
        "" if size is None else f"{size:,}",
        show_duration(own[0].seconds),
    )


def _recall_chart(evaluated: list[EvaluatedTrial]) -> Chart:
    names = [each.name for each in evaluated[0].metrics.classes]
    rows = tuple((name, *(f"{100 * each.metrics.classes[index].recall:.1f} %" for each in evaluated)) for index, name in enumerate(names))
    sides = {f"{each.trial.model} (trial {each.trial.number})": each for each in evaluated}
    return Chart(
        title="Recall of each class" + (", the best of each model" if len(evaluated) > 1 else ", the best trial"),
        figure=recall({each.trial.model: each.metrics for each in evaluated}),
        says=" ".join(f"{side}: {'; '.join(each.metrics.weakest)}." for side, each in sides.items() if each.metrics.weakest),
        table=Table(caption="Recall", columns=(text_column("class"), *map(number_column, sides)), rows=rows),
        narrow=len(evaluated) > 1,
    )


def _confusion_chart(each: EvaluatedTrial) -> Chart:
    names = [name.name for name in each.metrics.classes]
    return Chart(
        title=f"Confusion matrix of {each.trial.model} (trial {each.trial.number})",
        figure=confusion(names, each.metrics.confusion),
        says="Rows are true classes of the validation images, columns predicted classes, in percent of the row.",
        table=confusion_table(each.metrics, "Images"),
        narrow=True,
    )


def _mcnemar(first: EvaluatedTrial, second: EvaluatedTrial) -> str:
    found = compare(first.predictions, second.predictions)
    low, high = found.interval
    verdict = (
        "the difference is significant on these images; another seed may give another result"
        if found.p_value < SURE
        else "the difference may be chance"
    )
    return (
        f"On the same {first.metrics.n_images:,} images the best {first.trial.model} (trial {first.trial.number}) and the best {second.trial.model} (trial {second.trial.number}) "
        f"differ by {100 * found.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}: {found.only_first} images only the first classifies correctly, "
        f"{found.only_second} only the second (McNemar's exact test: p = {found.p_value:.2g}): {verdict}."
    )


def learning(study: StudyResults) -> Iterator[Block]:
    """Yield the learning curves.

    Args:
        study: the results of the study.

    Yields:
        A chart, and a sentence about the last epoch of the best trial; nothing if no trial has an epoch.
    """
    trained = [trial for trial in study.trials if trial.epochs]
    if not trained:
        return
    pruned = [trial for trial in trained if trial.state == "pruned"]
    said = "The best five of each model in its colour, the best of all thickest; all others are grey."
    if pruned:
        after = statistics.median(len(trial.epochs) for trial in pruned)
        said += f" {len(pruned)} of {len(trained)} were pruned, half of them after epoch {after:g} at the latest."
    if early := sum(trial.state == "pruned" and not trial.epochs for trial in study.trials):
        said += f" {many(early, 'more trial')} had no whole epoch when {'it was' if early == 1 else 'they were'} pruned."
    best = rank(study.trials)[:1]
    yield Chart(
        title="Validation accuracy by epoch",
        figure=figures.curves(study.trials),
        says=said,
        table=epochs_table(best[0]) if best and best[0].epochs else None,
    )
    if best and best[0].epochs:
        last = best[0].epochs[-1]
        yield Paragraph(
            text=f"Trial {best[0].number} ends at {100 * last.train_accuracy:.2f} % on training images and {100 * last.val_accuracy:.2f} % on validation images: "
            f"{100 * (last.train_accuracy - last.val_accuracy):.2f} points between."
        )


def progress(study: StudyResults) -> Iterator[Block]:
    """Yield the optimization history.

    Args:
        study: the results of the study.

    Yields:
        A chart of validation accuracy by trial; nothing if no trial has a value.
    """
    valued = [trial for trial in study.trials if trial.value is not None]
    if not valued:
        return
    complete = rank(study.trials)
    said = f"Trial {complete[0].number} of {len(study.trials)} is the best so far." if complete else "No trial is complete yet."
    yield Chart(
        title="Validation accuracy by trial",
        figure=figures.history(study.trials),
        says=f"{said} The lines are the best of each model so far; hollow points were pruned and stand at their last epoch."
        + _hidden([trial for trial in valued if trial.state in ("complete", "pruned")]),
    )
