"""Compare two trials, best configs or final models on the same images.

The comparison shows the settings, the accuracies, and whether their difference may be chance.
A best config is trained first, unless the storage has a trial of the same run with predictions.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from hpsearch.analysis.leaderboard import describe_progress
from hpsearch.analysis.metrics import Comparison, Metrics, Predictions, measure, read_predictions
from hpsearch.analysis.metrics import compare as compare_predictions
from hpsearch.config.best_config import BestConfig, read_best_config
from hpsearch.config.registration import short_names
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import DataError, StudyNotFoundError, UsageError
from hpsearch.formatting import one_line, show, show_path
from hpsearch.search.isolation import in_fork
from hpsearch.storage.records import TrialRow, read_study, read_trial
from hpsearch.storage.study_folder import require_own_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.training.data.files import CLASS_NAMES
from hpsearch.workflows.export import best_config
from hpsearch.workflows.run import study_name

if TYPE_CHECKING:
    from hpsearch.config.epoch import Epoch
    from hpsearch.training.data.split import Split

CONFIG_ENDINGS = (".toml", ".json")
PREDICTIONS = "predictions.csv"
"""A folder with this file is the folder of a final model."""
SURE = 0.05
"""A difference with a smaller p-value is called significant."""
SMALLEST_P = 1e-4
"""A p-value below this number is shown as `p < 0.0001`."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images on which a model is evaluated.

    Attributes:
        dataset: name of the data set.
        split: hash of the split for validation images; empty for test images, which are the same for all models.
    """

    dataset: str
    split: str = ""

    def __str__(self) -> str:
        return f"{'validation' if self.split else 'test'} images of {self.dataset}"


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model with its predictions.

    Attributes:
        label: name of the model as on the command line.
        source: the stored trial that made the predictions of a best config; otherwise empty.
    """

    label: str
    config: TrainConfig
    images: ImageSet
    predictions: Predictions
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class UntrainedModel:
    """A best config that must be trained before the comparison."""

    label: str
    path: Path
    trust: bool
    best: BestConfig
    split: Split = field(repr=False)

    @property
    def images(self) -> ImageSet:
        """The images on which the model will be evaluated."""
        return ImageSet(dataset=self.best.data.dataset, split=self.split.hash)

    def train(self, *, device: str, show: Callable[[Epoch], None]) -> EvaluatedModel:
        """Train as a worker does, in a temporary folder.

        The training runs in a forked process with one thread. So user code of one model cannot change the other model.

        Args:
            device: device name.
            show: receives each epoch after it has ended.

        Returns:
            The model with its predictions.

        Raises:
            HpsearchError: the model cannot be trained.
        """
        import torch

        from hpsearch.training.trainer import predictions_path, train

        with tempfile.TemporaryDirectory(prefix="hpsearch-compare-") as folder:
            checkpoint = Path(folder) / "checkpoint"

            def begin() -> Iterator[Epoch]:
                torch.set_num_threads(1)
                # Read the config again, because the component file of the other model may have registered a model under the same name.
                return train(read_best_config(self.path, trust=self.trust).config, self.split, checkpoint=checkpoint, device=device)

            for epoch in in_fork(begin):
                show(epoch)
                epoch.require_finite(self.label)
            predictions = read_predictions(predictions_path(checkpoint))
        return EvaluatedModel(label=self.label, config=self.best.config, images=self.images, predictions=predictions)


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """The comparison of two models on the same images.

    Attributes:
        settings: both values of each setting that differs. A value is None if the model does not have the setting.
    """

    first: EvaluatedModel
    second: EvaluatedModel
    metrics: tuple[Metrics, Metrics]
    found: Comparison
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def is_significant(self) -> bool:
        """Whether the difference is significant."""
        return self.found.p_value < SURE

    @cached_property
    def sentence(self) -> str:
        """The result in one sentence."""
        found = self.found
        better, worse = (self.first, self.second) if found.difference >= 0 else (self.second, self.first)
        low, high = found.interval
        points = f"{100 * abs(found.difference):.2f} ± {50 * (high - low):.2f} points"
        chance = f"p < {SMALLEST_P:g}" if found.p_value < SMALLEST_P else f"p = {found.p_value:.2g}"
        if self.is_significant:
            return f"{better.label} is better by {points} ({chance})."
        if found.only_first == found.only_second == 0:
            return "No difference shown: both classify the same images correctly."
        if found.difference == 0:
            return f"No difference shown: both classify the same number of images correctly ({chance})."
        return f"No difference shown: {better.label} is ahead of {worse.label} by {points}, which may well be chance ({chance})."

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON.

        Returns:
            The figures. A figure that both models have is a list of two, the first model first.
        """
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
            "recall": {
                of_first.name: [of_first.recall, of_second.recall] for of_first, of_second in zip(one.classes, two.classes, strict=True)
            },
        }


def find_model(text: str, workspace: Workspace, *, trust: bool = False) -> EvaluatedModel | UntrainedModel:
    """Find the model that an argument of the command line names.

    Args:
        text: a final model's folder, a config file, or a trial `STUDY/N`.
        workspace: the database and the folders of studies and images.
        trust: whether to run component files that this user has not run before or that have changed.

    Returns:
        The model. It is untrained if `text` is a config without a stored trial.

    Raises:
        UsageError: `text` is no folder, config or trial, or the model has no predictions.
        ConfigError: the config is invalid.
        ComponentError: a component file is missing, has changed, or has not been run by this user before.
        DataError: predictions or images are missing or damaged.
    """
    path = Path(text)
    if path.is_dir() and ((path / PREDICTIONS).is_file() or not _is_trial(text)):
        return _final_model(path, text, trust=trust)
    if text.endswith(CONFIG_ENDINGS):
        return _config(path, text, workspace, trust=trust)
    if _is_trial(text):
        called, _, number = text.rpartition("/")
        _, model = _stored_trial(study_name(called), int(number), workspace)
        return replace(model, label=text)
    raise UsageError(
        f"{show(text)} is neither a trial, nor a best config, nor the folder of a final model",
        hint="A trial is written STUDY/N, as quickstart/7; a config ends in .toml or .json.",
    )


def require_same_images(first: EvaluatedModel | UntrainedModel, second: EvaluatedModel | UntrainedModel) -> None:
    """Raise an error if two models are not evaluated on the same images.

    Args:
        first: the first model.
        second: the second model.

    Raises:
        UsageError: the data sets, subsets or splits of the models differ.
    """
    one, two = first.images, second.images
    if (one.dataset, bool(one.split)) != (two.dataset, bool(two.split)):
        raise UsageError(
            f"{first.label} is measured on {one}, but {second.label} on {two}",
            hint="Compare models on the same images: trials and configs use validation images, final models use test images.",
        )
    if one.split != two.split:
        raise UsageError(
            f"{first.label} and {second.label} are measured on different {one}: split {one.split[:12]}… and {two.split[:12]}…",
            hint="The split depends on the study's seed and its [data]: both must be the same.",
        )


def compare_models(first: EvaluatedModel, second: EvaluatedModel) -> ModelComparison:
    """Compare two models on the same images.

    Args:
        first: the first model.
        second: the second model.

    Returns:
        The comparison.

    Raises:
        UsageError: the models were evaluated on different images.
        DataError: the labels of their predictions differ.
    """
    require_same_images(first, second)
    settings, others = _settings(first.config), _settings(second.config)
    pairs = {name: (settings.get(name), others.get(name)) for name in [*settings, *others]}
    return ModelComparison(
        first=first,
        second=second,
        found=compare_predictions(first.predictions, second.predictions),
        metrics=(measure(first.predictions), measure(second.predictions)),
        settings={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def _is_trial(text: str) -> bool:
    name, _, number = text.rpartition("/")
    return bool(name) and number.isascii() and number.isdecimal()


def _final_model(folder: Path, label: str, *, trust: bool) -> EvaluatedModel:
    file = folder / PREDICTIONS
    if not file.is_file():
        raise UsageError(
            f"{show_path(folder)} holds no {PREDICTIONS}: it is no final model, or not finished",
            hint="`hpsearch train FILE --final -o DIR` writes one; the same command continues an interrupted one.",
        )
    best = read_best_config(folder / "config.toml", trust=trust)
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = [row for row in csv.DictReader(opened) if row["split"] == "test"]
        known = CLASS_NAMES.get(best.data.dataset, ())
        found = {row[key] for row in rows for key in ("truth", "guess")}
        classes = known if found <= set(known) else tuple(sorted(found))
        predictions = Predictions(
            label=numpy.array([classes.index(row["truth"]) for row in rows]),
            predicted=numpy.array([classes.index(row["guess"]) for row in rows]),
            confidence=numpy.array([float(row["confidence"]) for row in rows]),
            classes=classes,
        )
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is damaged: {type(error).__name__}: {one_line(str(error))}", hint="`hpsearch train --final` writes it again."
        ) from error
    except DataError as error:
        raise DataError(f"{file} is damaged: {error.message}", hint="`hpsearch train --final` writes it again.") from error
    if not rows:
        raise DataError(f"{file} is damaged: it has no test images", hint="`hpsearch train --final` writes it again.")
    return EvaluatedModel(label=label, config=best.config, images=ImageSet(dataset=best.data.dataset), predictions=predictions)


def _config(path: Path, label: str, workspace: Workspace, *, trust: bool) -> EvaluatedModel | UntrainedModel:
    best = read_best_config(path, trust=trust)
    if (stored := _stored_run(best, workspace)) is not None:
        return replace(stored, label=label, config=best.config, source=stored.label)
    from hpsearch.training.data.split import load_split

    split = load_split(**best.data.model_dump(), seed=best.split_seed, folder=workspace.data)
    return UntrainedModel(label=label, path=path, trust=trust, best=best, split=split)


def _stored_run(best: BestConfig, workspace: Workspace) -> EvaluatedModel | None:
    """Return the trial that a config names; None if the trial is not stored, is another run or has no predictions."""
    name, number = best.provenance.get("study"), best.provenance.get("trial")
    if not isinstance(name, str) or not isinstance(number, int):
        return None
    with suppress(UsageError):
        stored, model = _stored_trial(name, number, workspace)
        # The user may have edited the config file.
        if (stored.config.digest, stored.data, stored.split_seed) == (best.config.digest, best.data, best.split_seed):
            return model
    return None


def _stored_trial(name: str, number: int, workspace: Workspace) -> tuple[BestConfig, EvaluatedModel]:
    """Return the config of a stored trial, and the model with the predictions of its last epoch.

    Raise a UsageError if the trial has no predictions.
    """
    store = workspace.open(read_only=True)
    study = store.load(name)
    row = read_trial(study, number)
    best = best_config(row, read_study(study))
    home, first_number = _trained_as(name, row, workspace)
    require_own_folder(home, workspace, store)
    file = workspace.paths.study(home).trial(first_number).predictions
    if not file.is_file():
        why = f"is {row.state}, but {show_path(file)} is missing" if row.is_finished else f"is still {row.state}"
        why = f"was pruned after {describe_progress(row)}" if row.state == "pruned" else why
        raise UsageError(
            f"trial {row.number} of '{name}' has no predictions: it {why}",
            hint=f"Compare its config, which is trained first: `hpsearch export {name} --trial {row.number} -o FILE.toml`",
        )
    model = EvaluatedModel(
        label=f"{name}/{row.number}",
        config=best.config,
        images=ImageSet(dataset=best.data.dataset, split=str(row.run.get("split_hash"))),
        predictions=read_predictions(file),
    )
    return best, model


def _trained_as(name: str, row: TrialRow, workspace: Workspace) -> tuple[str, int]:
    """Return the study and the number under which a trial was trained. A warm start may have copied the trial, even several times."""
    number = row.number
    with suppress(StudyNotFoundError):  # the study was deleted, but its folder may exist
        while row.copy_of:
            name, _, text = row.copy_of.rpartition("/")
            number = int(text)
            row = read_trial(workspace.open(read_only=True).load(name), number)
    return name, number


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Return all settings by their full names. A component file is described by its name and its hash, not by its path."""
    files = {name: file.sha256[:12] for file, name in short_names(config.component_files).items()}
    settings: dict[str, Any] = {}
    for name, value in {**config.to_dict(), "component_files": files}.items():
        settings |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return settings
