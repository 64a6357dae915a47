"""Two trials, best configs or final models on the same images: what differs, which is better, and how sure that is.

A config has no predictions of its own: it is trained first, unless a stored trial of the same run has them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from hpsearch.analysis.metrics import Comparison, Metrics, Predictions, measure, read_predictions
from hpsearch.analysis.metrics import compare as compare_predictions
from hpsearch.config.best_config import BestConfig, read_best_config
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import DataError, StudyNotFoundError, UsageError
from hpsearch.formatting import show, show_path
from hpsearch.storage.records import TrialRow, read_study, read_trial
from hpsearch.storage.workspace import Workspace
from hpsearch.training.data.files import CLASS_NAMES
from hpsearch.workflows.export import best_config
from hpsearch.workflows.run import study_name

if TYPE_CHECKING:
    from hpsearch.config.epoch import Epoch
    from hpsearch.training.data.split import Split

CONFIG_ENDINGS = (".toml", ".json")
PREDICTIONS = "predictions.csv"
"""What makes a folder that of a final model."""
CHECKPOINT = "checkpoint"
SURE = 0.05
"""A p-value below it is called a difference."""
SMALLEST_P = 1e-4
"""A p-value below it is not worth its digits."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images that something is measured on.

    Attributes:
        split: its hash; empty for test images, of which a data set has one lot.
    """

    dataset: str
    split: str = ""

    def __str__(self) -> str:
        return f"{'validation' if self.split else 'test'} images of {self.dataset}"


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One of the two, with what it makes of the images.

    Attributes:
        source: whose predictions these are, where it is not the label that says so.
    """

    label: str
    config: TrainConfig
    images: ImageSet
    predictions: Predictions
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class UntrainedModel:
    """A config that has to be trained before it can be compared."""

    label: str
    path: Path
    best: BestConfig
    split: Split = field(repr=False)

    @property
    def images(self) -> ImageSet:
        """What it will be measured on."""
        return ImageSet(dataset=self.best.data.dataset, split=self.split.hash)

    def train(self, folder: Path, *, device: str) -> Iterator[Epoch]:
        """Train on its split as a worker does; sets torch to one thread.

        Args:
            folder: for its checkpoint and predictions.

        Raises:
            HpsearchError: as `training.trainer.train`.
        """
        import torch

        from hpsearch.training.trainer import train

        torch.set_num_threads(1)
        # Once more: the other side's component file may have registered another model under the same name since.
        config = read_best_config(self.path).config
        yield from train(config, self.split, checkpoint=folder / CHECKPOINT, device=device)

    def trained(self, folder: Path) -> EvaluatedModel:
        """The side, once it was trained in that folder."""
        from hpsearch.training.trainer import predictions_path

        predictions = read_predictions(predictions_path(folder / CHECKPOINT))
        return EvaluatedModel(label=self.label, config=self.best.config, images=self.images, predictions=predictions)


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Two sides on the same images.

    Attributes:
        settings: those that differ: name to both values; None where a side has no such setting.
    """

    first: EvaluatedModel
    second: EvaluatedModel
    metrics: tuple[Metrics, Metrics]
    found: Comparison
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def is_significant(self) -> bool:
        """Whether the images show that one is better."""
        return self.found.p_value < SURE

    @cached_property
    def sentence(self) -> str:
        """The result for a person."""
        found = self.found
        better, worse = (self.first, self.second) if found.difference >= 0 else (self.second, self.first)
        low, high = found.interval
        points = f"{100 * abs(found.difference):.2f} ± {50 * (high - low):.2f} points"
        chance = f"p < {SMALLEST_P:g}" if found.p_value < SMALLEST_P else f"p = {found.p_value:.2g}"
        if self.is_significant:
            return f"{better.label} is better by {points} ({chance})."
        if found.only_first == found.only_second == 0:
            return "No difference shown: both get the same images right."
        if found.difference == 0:
            return f"No difference shown: both get as many images right ({chance})."
        return f"No difference shown: {better.label} is ahead of {worse.label} by {points}, which may well be chance ({chance})."

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what belongs to a side stands as a pair, the first one first."""
        found, (one, two) = self.found, self.metrics
        return {
            "sides": [self.first.label, self.second.label],
            "images": str(self.first.images),
            "split": self.first.images.split or None,
            "count": one.n_images,
            "accuracy": [one.accuracy, two.accuracy],
            "difference": found.difference,
            "interval": list(found.interval),
            "only_first_right": found.only_first,
            "only_second_right": found.only_second,
            "p_value": found.p_value,
            "shown": self.is_significant,
            "sentence": self.sentence,
            "settings": {name: list(values) for name, values in self.settings.items()},
            "recall": {mine.name: [mine.recall, theirs.recall] for mine, theirs in zip(one.classes, two.classes, strict=True)},
        }


def find_model(text: str, workspace: Workspace) -> EvaluatedModel | UntrainedModel:
    """What a word of the command line means: a final model's folder, a config file, or a trial `STUDY/N`.

    Raises:
        UsageError: it is none of them, or has no predictions.
        ConfigError, ComponentError: the config makes no sense.
        DataError: predictions or images are missing or damaged.
    """
    path = Path(text)
    if path.is_dir() and ((path / PREDICTIONS).is_file() or not _is_trial(text)):
        return _final_model(path, text)
    if text.endswith(CONFIG_ENDINGS):
        return _config(path, text, workspace)
    if _is_trial(text):
        return _trial(text, workspace)
    raise UsageError(
        f"{show(text)} is neither a trial, nor a best config, nor the folder of a final model",
        hint="A trial is written STUDY/N, as quickstart/7; a config ends in .toml or .json.",
    )


def require_same_images(first: EvaluatedModel | UntrainedModel, second: EvaluatedModel | UntrainedModel) -> None:
    """Refuse two that did not see the same images, before anything is trained.

    Raises:
        UsageError: their data sets, parts or splits differ.
    """
    one, two = first.images, second.images
    if (one.dataset, bool(one.split)) != (two.dataset, bool(two.split)):
        raise UsageError(
            f"{first.label} is measured on {one}, but {second.label} on {two}",
            hint="Compare two that saw the same images: trials and configs on validation images, final models on test images.",
        )
    if one.split != two.split:
        raise UsageError(
            f"{first.label} and {second.label} are measured on other {one}: split {one.split[:12]}… and {two.split[:12]}…",
            hint="A split follows from the study's seed and its [data]: both must be the same.",
        )


def compare_models(first: EvaluatedModel, second: EvaluatedModel) -> ModelComparison:
    """Compare two that saw the same images.

    Raises:
        UsageError, DataError: they did not.
    """
    require_same_images(first, second)
    return ModelComparison(
        first=first,
        second=second,
        found=compare_predictions(first.predictions, second.predictions),
        metrics=(measure(first.predictions), measure(second.predictions)),
        settings=_differing(_settings(first.config), _settings(second.config)),
    )


def _is_trial(text: str) -> bool:
    name, _, number = text.rpartition("/")
    return bool(name) and number.isascii() and number.isdecimal()


def _final_model(folder: Path, label: str) -> EvaluatedModel:
    file = folder / PREDICTIONS
    if not file.is_file():
        raise UsageError(
            f"{show_path(folder)} holds no {PREDICTIONS}: it is no final model, or not finished",
            hint="`hpsearch train FILE --final -o DIR` writes one; the same command goes on.",
        )
    best = read_best_config(folder / "config.toml")
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = [row for row in csv.DictReader(opened) if row["split"] == "test"]
        known = CLASS_NAMES.get(best.data.dataset, ())
        found = {row[key] for row in rows for key in ("truth", "guess")}
        classes = known if found <= set(known) else tuple(sorted(found))
        number = {name: index for index, name in enumerate(classes)}
        predictions = Predictions(
            label=numpy.array([number[row["truth"]] for row in rows]),
            predicted=numpy.array([number[row["guess"]] for row in rows]),
            confidence=numpy.array([float(row["confidence"]) for row in rows]),
            classes=classes,
        )
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged: {type(error).__name__}: {error}", hint="`hpsearch train --final` writes it anew.") from error
    if not rows:
        raise DataError(f"{file} is damaged: it has no test images", hint="`hpsearch train --final` writes it anew.")
    return EvaluatedModel(label=label, config=best.config, images=ImageSet(dataset=best.data.dataset), predictions=predictions)


def _config(path: Path, label: str, workspace: Workspace) -> EvaluatedModel | UntrainedModel:
    best = read_best_config(path)
    if (stored := _stored_run(best, workspace)) is not None:
        return replace(stored, label=label, config=best.config, source=stored.label)
    from hpsearch.training.data.split import load_split

    split = load_split(
        best.data.dataset,
        validation_images=best.data.validation_images,
        train_images=best.data.train_images,
        seed=best.split_seed,
        folder=workspace.data,
    )
    return UntrainedModel(label=label, path=path, best=best, split=split)


def _stored_run(best: BestConfig, workspace: Workspace) -> EvaluatedModel | None:
    """The trial that a config names, where it is reachable, is the very same run and has predictions."""
    name, number = best.provenance.get("study"), best.provenance.get("trial")
    if not isinstance(name, str) or not isinstance(number, int):
        return None
    with suppress(UsageError):
        study = workspace.open().load(name)
        row = read_trial(study, number)
        stored = best_config(row, read_study(study))
        # The file may have been edited since.
        same = (stored.config.digest, stored.data, stored.split_seed) == (best.config.digest, best.data, best.split_seed)
        return _of_trial(name, row, stored, workspace) if same else None
    return None


def _trial(text: str, workspace: Workspace) -> EvaluatedModel:
    called, _, number = text.rpartition("/")
    name = study_name(called)
    study = workspace.open().load(name)
    row = read_trial(study, int(number))
    if row.state == "fail":
        raise UsageError(f"trial {row.number} of '{name}' failed: {row.end.get('reason', 'no reason is on record')}")
    return replace(_of_trial(name, row, best_config(row, read_study(study)), workspace), label=text)


def _of_trial(name: str, row: TrialRow, best: BestConfig, workspace: Workspace) -> EvaluatedModel:
    """A stored trial with the predictions of its last epoch.

    Raises:
        UsageError: it has none.
    """
    home, number = _trained_as(name, row, workspace)
    file = workspace.paths.study(home).trial(number).predictions
    if not file.is_file():
        epochs = len(row.epochs)
        why = f"was pruned after epoch {epochs}" if row.state == "pruned" else f"is {row.state}, but {show_path(file)} is missing"
        why = why if row.is_finished else f"is still {row.state}"
        raise UsageError(
            f"trial {row.number} of '{name}' has no predictions: it {why}",
            hint=f"Compare its config, which is trained to its end first: `hpsearch export {name} --trial {row.number} -o FILE.toml`",
        )
    return EvaluatedModel(
        label=f"{name}/{row.number}",
        config=best.config,
        images=ImageSet(dataset=best.data.dataset, split=str(row.run.get("split_hash"))),
        predictions=read_predictions(file),
    )


def _trained_as(name: str, row: TrialRow, workspace: Workspace) -> tuple[str, int]:
    """The study and number under which a trial was trained: a copy of a warm start was elsewhere, maybe itself a copy."""
    number = row.number
    with suppress(StudyNotFoundError):  # the study is gone; its folder may still be there
        while row.copy_of:
            name, _, text = row.copy_of.rpartition("/")
            number = int(text)
            row = read_trial(workspace.open().load(name), number)
    return name, number


def _settings(config: TrainConfig) -> dict[str, Any]:
    """All settings, nested; of a component file its name and what it says, not where it lies."""
    return {**config.to_dict(), "component_files": {file.path.name: file.sha256[:12] for file in config.component_files}}


def _differing(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*one, *two]):
        mine, theirs = one.get(key), two.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found.update(_differing(mine, theirs, f"{prefix}{key}."))
        elif mine != theirs:
            found[f"{prefix}{key}"] = (mine, theirs)
    return found
