"""The command compare: two trials or final models, on the same images."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.console import print_json, print_table, say
from hpsearch.cli.options import JsonOption, RunsOption, StorageOption
from hpsearch.paths import DEFAULT_RUNS

if TYPE_CHECKING:
    from hpsearch.config import TrainConfig
    from hpsearch.evaluation import Predictions
    from hpsearch.run import Place

SIDE_HELP = "A trial, STUDY/N, or the folder of a final model."
SURE = 0.05
"""A p-value below it is called a difference."""


@dataclass(frozen=True, kw_only=True)
class _Side:
    label: str
    config: TrainConfig
    images: str
    predictions: Predictions


def compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help=SIDE_HELP, show_default=False)],
    second: Annotated[str, typer.Argument(metavar="SECOND", help=SIDE_HELP, show_default=False)],
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json: JsonOption = False,
) -> None:
    """Compare two trials on their validation images, or two final models on the test images: is one really better?

    Prints the settings that differ, the difference in accuracy with a paired interval and McNemar's test, and the recall of each class.
    """
    from hpsearch.errors import UsageError
    from hpsearch.evaluation import compare as compare_predictions
    from hpsearch.evaluation import measure
    from hpsearch.run import Place

    place = Place(storage=storage, runs=runs)
    one, two = _side(first, place), _side(second, place)
    if one.images != two.images:
        raise UsageError(
            f"{first} was measured on {one.images}, but {second} on {two.images}", hint="Compare two that saw the same images."
        )
    found = compare_predictions(one.predictions, two.predictions)
    mine, theirs = measure(one.predictions), measure(two.predictions)
    differences = _differing_settings(one.config.to_dict(), two.config.to_dict())
    if json:
        classes = {each.name: [each.recall, other.recall] for each, other in zip(mine.classes, theirs.classes, strict=True)}
        print_json(
            {
                "accuracy": [mine.accuracy, theirs.accuracy],
                "difference": found.difference,
                "interval": list(found.interval),
                "only_first_right": found.only_first,
                "only_second_right": found.only_second,
                "p_value": found.p_value,
                "settings": {name: list(values) for name, values in differences.items()},
                "recall": classes,
            }
        )
        return
    rows = [[name, str(values[0]), str(values[1])] for name, values in differences.items()]
    print_table({"setting": "left", one.label: "left", two.label: "left"}, rows or [["no setting differs", "", ""]])
    say()
    rows = [
        [each.name, f"{each.recall:.3f}", f"{other.recall:.3f}", f"{each.recall - other.recall:+.3f}"]
        for each, other in zip(mine.classes, theirs.classes, strict=True)
    ]
    print_table({"recall of": "left", one.label: "right", two.label: "right", "difference": "right"}, rows)
    say()
    low, high = found.interval
    say(f"Accuracy {100 * mine.accuracy:.2f} % and {100 * theirs.accuracy:.2f} % of {mine.images:,} {one.images}.")
    say(
        f"Difference {100 * found.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f} over the images; "
        f"{found.only_first} that only {one.label} gets right, {found.only_second} that only {two.label} does (McNemar's exact test: p = {found.p_value:.2g})."
    )
    say("These images tell them apart; another seed may not." if found.p_value < SURE else "These images do not tell them apart.")


def _side(text: str, place: Place) -> _Side:
    folder = Path(text)
    return _final_model(folder) if (folder / "predictions.csv").is_file() else _trial(text, place)


def _final_model(folder: Path) -> _Side:
    import numpy

    from hpsearch.best_config import read_best_config
    from hpsearch.errors import DataError
    from hpsearch.evaluation import Predictions

    best = read_best_config(folder / "config.toml")
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split") == "test"]
    try:
        classes = tuple(dict.fromkeys(row["truth"] for row in sorted(rows, key=lambda row: row["truth"])))
        number = {name: index for index, name in enumerate(classes)}
        predictions = Predictions(
            label=numpy.array([number[row["truth"]] for row in rows]),
            predicted=numpy.array([number[row["guess"]] for row in rows]),
            confidence=numpy.array([float(row["confidence"]) for row in rows]),
            classes=classes,
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / 'predictions.csv'} is damaged: {error}", hint="`hpsearch train --final` writes it anew.") from error
    return _Side(label=folder.name, config=best.config, images=f"test images of {best.data.dataset}", predictions=predictions)


def _trial(text: str, place: Place) -> _Side:
    from hpsearch.errors import UsageError
    from hpsearch.evaluation import read_predictions
    from hpsearch.storage import one_trial, read_study

    name, _, number = text.rpartition("/")
    if not name or not number.isdecimal():
        raise UsageError(f"'{text}' is neither a trial nor the folder of a final model", hint="A trial is written STUDY/N: quickstart/7")
    study = place.open().load(name)
    row = one_trial(study, int(number))
    if row.config is None:
        raise UsageError(f"trial {number} of '{name}' has no configuration yet: it is {row.state}")
    dataset = read_study(study).comparable["data"]["dataset"]
    predictions = read_predictions(place.paths.study(name).trial(int(number)).predictions)
    images = f"validation images of {dataset} (split {str(row.run.get('split_hash'))[:12]})"
    return _Side(label=text, config=row.config, images=images, predictions=predictions)


def _differing_settings(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*one, *two]):
        mine, theirs = one.get(key), two.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found.update(_differing_settings(mine, theirs, f"{prefix}{key}."))
        elif mine != theirs:
            found[f"{prefix}{key}"] = ("" if mine is None else mine, "" if theirs is None else theirs)
    return found
