"""All that a report shows of one study, read once: its trials, its leaderboard, and what its best models made of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from hpsearch.errors import DataError
from hpsearch.evaluation import Metrics, Predictions, measure, read_mistakes, read_predictions
from hpsearch.paths import StudyPaths
from hpsearch.results.figures import models_of, ranked
from hpsearch.results.figures_of_space import PlainSpace
from hpsearch.results.importance import Importances, importances
from hpsearch.results.leaderboard import Leaderboard, make_leaderboard
from hpsearch.results.mistakes import mistakes_gallery
from hpsearch.results.page import Gallery
from hpsearch.storage import StudyRow, TrialRow, read_study, read_trials


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A trial and what its network made of the validation images."""

    trial: TrialRow
    predictions: Predictions
    metrics: Metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class Studied:
    """One study, read.

    Attributes:
        judged: the best trial of each model, where its predictions are at hand; by model.
        missing: sentences on predictions that are not.
        mistakes: the most confident ones of the best trial.
        samples: a PNG of training images.
        importances: of the parameters, for each model that has trials enough.
    """

    row: StudyRow
    trials: tuple[TrialRow, ...]
    board: Leaderboard
    judged: Mapping[str, Judged]
    missing: tuple[str, ...]
    mistakes: Gallery | None
    samples: bytes | None = field(repr=False)
    importances: tuple[Importances, ...]

    @property
    def name(self) -> str:
        """The study's."""
        return self.row.name

    @property
    def best(self) -> TrialRow | None:
        """The best trial, as the leaderboard names it."""
        return self.board.best.trial if self.board.best else None

    @property
    def models(self) -> list[str]:
        """The names of the models that were tried."""
        return models_of(self.trials)

    @property
    def space(self) -> PlainSpace:
        """The search space as plain data."""
        space: PlainSpace = self.row.comparable["space"]
        return space

    @property
    def data(self) -> Mapping[str, Any]:
        """The section of the study file that names the images."""
        data: Mapping[str, Any] = self.row.comparable["data"]
        return data


def read_studied(study: optuna.Study, paths: StudyPaths) -> Studied:
    """Read a study and what lies in its folder.

    Raises:
        StudyNotFoundError: it was not made by hpsearch.
    """
    row = read_study(study)
    trials = tuple(read_trials(study))
    board = make_leaderboard(trials, validation_images=row.comparable["data"]["validation_images"])
    judged: dict[str, Judged] = {}
    missing: list[str] = []
    for model in models_of(trials):
        for trial in ranked(trials, model)[:1]:
            try:
                predictions = read_predictions(paths.trial(trial.number).predictions)
                judged[model] = Judged(trial=trial, predictions=predictions, metrics=measure(predictions))
            except DataError as error:
                missing.append(f"Of trial {trial.number}, the best of {model}: {error.message}.")
    return Studied(
        row=row,
        trials=trials,
        board=board,
        judged=judged,
        missing=tuple(missing),
        mistakes=_mistakes(board, judged, paths),
        samples=_read(paths),
        importances=tuple(found for model in models_of(trials) if (found := importances(trials, model)) is not None),
    )


def _mistakes(board: Leaderboard, judged: Mapping[str, Judged], paths: StudyPaths) -> Gallery | None:
    if board.best is None or board.best.trial.model not in judged:
        return None
    trial = board.best.trial
    try:
        indices, images = read_mistakes(paths.trial(trial.number).predictions)
        return mistakes_gallery(judged[trial.model].predictions, indices, images)
    except DataError:
        return None  # images of two channels, or of five: there is no picture of them


def _read(paths: StudyPaths) -> bytes | None:
    try:
        return paths.samples.read_bytes()
    except OSError:
        return None
