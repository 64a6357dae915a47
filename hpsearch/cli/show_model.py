"""Prints the results of a trained model.

The results are those on the validation images, or for a final model those on the training and test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpsearch.analysis.final_score import reads_sentence
from hpsearch.cli.console import print_blocks, say
from hpsearch.config.paths import FinalPaths
from hpsearch.formatting import show_loss
from hpsearch.report.blocks import Table, number_column, text_column

PARTS = {"train": "training images", "test": "test images"}


def print_validation(data: Mapping[str, Any]) -> None:
    """Print the results of `hpsearch train` without --final. `data` is the dictionary that --json prints."""
    metrics = data["validation"]
    low, high = metrics["interval"]
    say(
        f"Validation accuracy {100 * metrics['accuracy']:.2f} % of {metrics['n_images']:,} images, 95 % interval {100 * low:.2f} to {100 * high:.2f} %; "
        f"loss {show_loss(data['val_loss'])}, calibration error {metrics['calibration_error']:.4f}."
    )
    say(data["overfitting"])
    say(data["weakest"])
    if data["trial_val_accuracy"] is not None:
        say(f"On record for this config: {data['trial_val_accuracy']:.4f}; {data['against_trial']}.")
    say()
    rows = tuple((each["name"], *_cells(each)) for each in metrics["classes"])
    columns = (text_column("class"), *map(number_column, ("precision", "recall", "F1", "images")))
    print_blocks(Table(columns=columns, rows=rows), _confusion(metrics, "validation images"))


def print_final(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print the content of `metrics.json` of a final model."""
    low, high = metrics["test_accuracy_interval"]
    say(
        f"Test accuracy {100 * metrics['test_accuracy']:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} % over the "
        f"{metrics['interval_over']}; {reads_sentence(metrics)}."
    )
    seeds = metrics["seeds"]
    if len(seeds) > 1:
        accuracies = ", ".join(f"{100 * each['test']['accuracy']:.2f}" for each in seeds)
        say(f"The {len(seeds)} seeds had {accuracies} %; the first is the model, whichever is the best.")
    say()
    rows = []
    for name, key, shown in (("accuracy, %", "accuracy", lambda share: f"{100 * share:.2f}"), ("loss", "loss", show_loss)):
        rows.append([name])
        for part in PARTS:
            low, high = map(shown, metrics[f"{part}_{key}_interval"])
            rows[-1] += [shown(metrics[f"{part}_{key}"]), f"{low} to {high}"]
    rows.append(["calibration error", *(cell for part in PARTS for cell in (f"{seeds[0][part]['calibration_error']:.4f}", ""))])
    columns = [text_column("")]
    for heading in PARTS.values():
        columns += [number_column(heading), text_column("95 % interval", 1)]
    print_blocks(Table(columns=tuple(columns), rows=tuple(map(tuple, rows))))
    say()
    say(metrics["overfitting"])
    say(metrics["weakest"])
    say()
    classes = zip(seeds[0]["train"]["classes"], seeds[0]["test"]["classes"], metrics["train_less_test"], strict=True)
    rows = [[mine["name"], *_cells(mine), *_cells(theirs), f"{less['recall']:+.3f}"] for mine, theirs, less in classes]
    columns = [text_column("class")]
    for last in (False, True):
        columns += [
            number_column("precision", 2),
            number_column("recall"),
            number_column("F1", 3),
            number_column("images", 0 if last else 1),
        ]
    columns.append(number_column("recall, train less test"))
    table = Table(caption="On the training images, then on the test images:", columns=tuple(columns), rows=tuple(map(tuple, rows)))
    print_blocks(table, *(_confusion(seeds[0][part], name) for part, name in PARTS.items()))
    say()
    files = [path.name for path in FinalPaths(folder).written if path.parent == folder and path.is_file()]
    say(f"In {folder}: {', '.join(files)}.")


def _confusion(metrics: Mapping[str, Any], name: str) -> Table:
    """Return a confusion matrix. The headings of the columns are the numbers of the classes."""
    rows = tuple(
        (str(number), each["name"], *map(str, row))
        for number, (each, row) in enumerate(zip(metrics["classes"], metrics["confusion"], strict=True))
    )
    columns = (number_column(""), text_column("true class"), *(number_column(str(number)) for number in range(len(rows))))
    return Table(caption=f"Confusion matrix of the {name}; columns are the predicted classes:", columns=columns, rows=rows)


def _cells(each: Mapping[str, Any]) -> list[str]:
    """Return the precision, the recall, F1 and the number of images of a class."""
    return [*(f"{each[key]:.3f}" for key in ("precision", "recall", "f1")), f"{each['support']:,}"]
