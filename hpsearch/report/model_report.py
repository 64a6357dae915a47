"""The report of a final model: test accuracy, confusion matrix, calibration, misclassified images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpsearch import __version__
from hpsearch.analysis.final_score import READS, reads_sentence, repeat_command
from hpsearch.analysis.metrics import Metrics, Predictions
from hpsearch.config.best_config import BestConfig
from hpsearch.formatting import many, show_loss
from hpsearch.report.blocks import (
    Bullets,
    Chart,
    Code,
    Gallery,
    Page,
    Paragraph,
    Section,
    Table,
    number_column,
    section,
    tabulate,
    text_column,
)
from hpsearch.report.figures.prediction_figures import calibration, confusion, recall
from hpsearch.report.html import render
from hpsearch.report.text import confusion_table, percentage


def final_report(
    best: BestConfig,
    metrics: Mapping[str, Any],
    *,
    train: Metrics,
    test: Metrics,
    predictions: Mapping[str, Predictions],
    mistakes: Gallery,
) -> str:
    """Return the report of a final model.

    Args:
        best: the config of the model and its origin.
        metrics: the content of `metrics.json`.
        train: metrics of the first seed's model on the training images.
        test: metrics of the first seed's model on the test images.
        predictions: predictions of the first seed's model, with the keys `train` and `test`.
        mistakes: misclassified test images.

    Returns:
        The HTML page.
    """
    model, dataset = best.config.model.name, best.data.dataset
    source = best.provenance
    origin = f"trial {source['trial']} of the study {source['study']}" if {"trial", "study"} <= set(source) else "a config of its own"
    return render(
        Page(
            title=f"Final model: {model} on {dataset}",
            subtitle=f"{origin}, trained on all training images for {best.config.epochs} epochs",
            sections=(
                _score(metrics, train, test),
                _classes(train, test),
                _confusion(train, test),
                _calibration(predictions, train, test),
                section(
                    "mistakes",
                    "Misclassified images",
                    Paragraph(
                        text="The wrong predictions with the highest confidence: true class, predicted class, and the model's confidence."
                    ),
                    mistakes if mistakes.pictures else Paragraph(text="The model made no mistake."),
                ),
                _repeat(best, metrics),
            ),
            footer=f"Written by hpsearch {__version__}. This page loads nothing from the network.",
        )
    )


def _score(metrics: Mapping[str, Any], train: Metrics, test: Metrics) -> Section:
    low, high = metrics["test_accuracy_interval"]
    reads = max(metrics[READS], metrics.get("study_test_split_reads") or 0)
    said = reads_sentence(metrics).capitalize()
    seeds = metrics["seeds"]
    origin = f"mean of {many(len(seeds), 'seed')}" if len(seeds) > 1 else "one seed"
    return section(
        "score",
        "Test accuracy",
        Paragraph(
            text=f"{100 * metrics['test_accuracy']:.2f} % of {test.n_images:,} test images are classified correctly ({origin}; 95 % interval {100 * low:.2f} to {100 * high:.2f} % over the {metrics['interval_over']}).",
            kind="lead",
        ),
        Paragraph(text=metrics["overfitting"]),
        Paragraph(
            text=f"{said}: each reading after the first makes the score a little less honest." if reads > 1 else f"{said}.",
            kind="warning" if reads > 1 else "plain",
        ),
        tabulate(
            "Each seed's model; the first is the one that was saved.",
            seeds,
            {
                number_column("seed"): lambda each: str(each["seed"]),
                number_column("training accuracy"): lambda each: percentage(each["train"]["accuracy"]),
                number_column("test accuracy"): lambda each: percentage(each["test"]["accuracy"]),
                number_column("training loss"): lambda each: show_loss(each["train_loss"]),
                number_column("test loss"): lambda each: show_loss(each["test_loss"]),
            },
        ),
        Bullets(items=tuple(f"{sentence}." for sentence in test.weakest)) if test.weakest else None,
    )


def _classes(train: Metrics, test: Metrics) -> Section:
    sides = {"training": train, "test": test}
    gap = max(zip(train.classes, test.classes, strict=True), key=lambda pair: pair[0].recall - pair[1].recall)
    return section(
        "classes",
        "Class by class",
        Chart(
            title="Recall of each class",
            figure=recall(sides),
            says=f"The widest gap between training and test is that of {gap[0].name}: {100 * gap[0].recall:.1f} % and {100 * gap[1].recall:.1f} %.",
        ),
        _class_table("On the test images", test, train),
        _class_table("On the training images", train, None),
    )


def _class_table(caption: str, metrics: Metrics, train: Metrics | None) -> Table:
    headings = (
        ["precision", "recall", "F1", "images"] if train is None else ["precision", "recall", "F1", "recall, training less test", "images"]
    )
    rows = []
    for index, each in enumerate(metrics.classes):
        gap = [] if train is None else [f"{train.classes[index].recall - each.recall:+.3f}"]
        rows.append((each.name, f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}", *gap, f"{each.support:,}"))
    return Table(caption=caption, columns=(text_column("class"), *map(number_column, headings)), rows=tuple(rows))


def _confusion(train: Metrics, test: Metrics) -> Section:
    names = [each.name for each in test.classes]
    charts = [
        Chart(
            title=f"{word.capitalize()} images",
            figure=confusion(names, metrics.confusion),
            says=f"Rows are true classes of the {word} images, columns predicted classes, in percent of the row. {'; '.join(metrics.weakest)}.",
            table=confusion_table(metrics, "Images: rows are true classes, columns predicted classes"),
            narrow=True,
        )
        for word, metrics in (("test", test), ("training", train))
    ]
    return section("confusion", "Confusion matrix", *charts)


def _calibration(predictions: Mapping[str, Predictions], train: Metrics, test: Metrics) -> Section:
    return section(
        "calibration",
        "Calibration",
        Chart(
            title="Confidence and accuracy",
            figure=calibration({"test": predictions["test"], "training": predictions["train"]}),
            says=(
                f"Below the dotted line the confidence is too high. The mean distance from the line (calibration error) is "
                f"{100 * test.calibration_error:.2f} points on the test images and {100 * train.calibration_error:.2f} on the training images."
            ),
        ),
    )


def _repeat(best: BestConfig, metrics: Mapping[str, Any]) -> Section:
    versions = ", ".join(f"{name} {number}" for name, number in (best.provenance.get("versions") or {}).items())
    return section(
        "repeat",
        "How to repeat the training",
        Code(text=repeat_command(metrics), label="The command"),
        Paragraph(text=f"The trial ran with {versions}.", kind="aside") if versions else None,
        Code(text=best.to_toml(), label="config.toml"),
    )
