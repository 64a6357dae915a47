"""The results of one study. The report, the terminal and the dashboard all use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from numpy.typing import NDArray

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.analysis.importance import Importances, importances
from hpsearch.analysis.leaderboard import Leaderboard, make_leaderboard, rank
from hpsearch.analysis.metrics import Metrics, Predictions, measure, read_mistakes, read_predictions
from hpsearch.config.distributions import Distribution, distribution_of
from hpsearch.config.paths import StudyPaths
from hpsearch.errors import DataError
from hpsearch.report.blocks import Gallery, Picture
from hpsearch.storage.records import StudyRow, TrialRow, read_study, read_trials


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedTrial:
    """A trial, its predictions of the validation images, and the metrics of these predictions."""

    trial: TrialRow
    predictions: Predictions
    metrics: Metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyResults:
    """The results of one study.

    Attributes:
        paths: the study's folder. Predictions and images are read from the folder when they are first used.
        verdict: the result of the finalists; None if no finalists were run.
        explanation: the ablation and the number of the trial at its end; None if no ablation was run.
    """

    row: StudyRow
    trials: tuple[TrialRow, ...]
    board: Leaderboard
    paths: StudyPaths
    verdict: FinalistsResult | None = None
    explanation: tuple[Explanation, int] | None = None

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.row.name

    @property
    def best(self) -> TrialRow | None:
        """The first trial of the leaderboard."""
        return self.board.best.trial if self.board.best else None

    @property
    def models(self) -> list[str]:
        """The names of the models that were tried, sorted."""
        return sorted({trial.model for trial in self.trials if trial.model})

    @property
    def data(self) -> Mapping[str, Any]:
        """The `[data]` section of the study file."""
        data: Mapping[str, Any] = self.row.comparable["data"]
        return data

    @cached_property
    def space(self) -> dict[str, Distribution]:
        """The distribution of each parameter."""
        return {name: distribution_of(plain) for name, plain in self.row.comparable["space"].items()}

    @cached_property
    def importances(self) -> tuple[Importances, ...]:
        """Hyperparameter importance for each model with enough trials. The computation takes seconds."""
        return tuple(found for model in self.models if (found := importances(self.trials, model)) is not None)

    @cached_property
    def evaluated(self) -> Mapping[str, EvaluatedTrial]:
        """The best trial of each model, by model, best first. A trial is left out if its predictions are not in the folder."""
        found = {}
        for trial in rank(trial for model in self.models for trial in rank(self.trials, model)[:1]):
            try:
                predictions = read_predictions(self.paths.trial(trial.number).predictions)
                found[trial.model] = EvaluatedTrial(trial=trial, predictions=predictions, metrics=measure(predictions))
            except DataError:
                continue  # the property `missing` returns this trial
        return found

    @property
    def missing(self) -> list[TrialRow]:
        """The best trial of each model whose predictions cannot be read from the folder."""
        return [trial for model in self.models if model not in self.evaluated for trial in rank(self.trials, model)[:1]]

    @cached_property
    def misclassified(self) -> Gallery | None:
        """The most confident mistakes of the best trial; None if its predictions or images cannot be shown."""
        if self.best is None or self.best.model not in self.evaluated:
            return None
        try:
            indices, images = read_mistakes(self.paths.trial(self.best.number).predictions)
            return misclassified_gallery(self.evaluated[self.best.model].predictions, indices, images)
        except DataError:
            return None  # for example, images of two channels cannot be shown as pictures

    @cached_property
    def samples(self) -> bytes | None:
        """A PNG of training images; None if the file cannot be read."""
        try:
            return self.paths.samples.read_bytes()
        except OSError:
            return None


def read_results(
    study: optuna.Study,
    paths: StudyPaths,
    *,
    verdict: FinalistsResult | None = None,
    explanation: tuple[Explanation, int] | None = None,
) -> StudyResults:
    """Read the trials of a study.

    Args:
        study: the stored study.
        paths: the study's folder.
        verdict: the result of the finalists.
        explanation: the ablation and the number of the trial at its end.

    Returns:
        The results.

    Raises:
        StudyNotFoundError: the study was not made by hpsearch.
    """
    row = read_study(study)
    trials = tuple(read_trials(study))
    board = make_leaderboard(trials, validation_images=row.comparable["data"]["validation_images"])
    return StudyResults(row=row, trials=trials, board=board, paths=paths, verdict=verdict, explanation=explanation)


def misclassified_gallery(predictions: Predictions, indices: Sequence[int], images: NDArray[Any]) -> Gallery:
    """Return misclassified images with their true class, their predicted class and the confidence.

    Args:
        predictions: the predictions of one model.
        indices: positions of the misclassified images in `predictions`.
        images: uint8 [N, C, H, W], the images at these positions.

    Returns:
        The pictures.

    Raises:
        DataError: the images have neither 1 nor 3 channels.
    """
    from hpsearch.training.data.image_grid import image_png

    pictures = []
    for index, image in zip(indices, images, strict=True):
        truth, guess = predictions.classes[predictions.label[index]], predictions.classes[predictions.predicted[index]]
        caption = f"{truth}, predicted {guess} ({100 * float(predictions.confidence[index]):.1f}\u00a0%)"
        pictures.append(Picture(png=image_png(image), alternative=f"image {index}: {caption}", caption=caption))
    return Gallery(pictures=tuple(pictures))
