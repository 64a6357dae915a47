"""All that a report shows of one study, read once: its trials, its leaderboard, and what its best models made of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import optuna

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.analysis.importance import Importances, importances
from hpsearch.analysis.leaderboard import Leaderboard, make_leaderboard, rank
from hpsearch.analysis.metrics import Metrics, Predictions, measure, read_mistakes, read_predictions
from hpsearch.config.paths import StudyPaths
from hpsearch.errors import DataError
from hpsearch.report.blocks import Gallery
from hpsearch.report.figures.search_figures import models_of
from hpsearch.report.figures.space_figures import PlainSpace
from hpsearch.report.mistakes import mistakes_gallery
from hpsearch.storage.records import StudyRow, TrialRow, read_study, read_trials


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedTrial:
    """A trial and what its network made of the validation images."""

    trial: TrialRow
    predictions: Predictions
    metrics: Metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyResults:
    """One study, read.

    Attributes:
        judged: the best trial of each model, where its predictions are at hand; by model.
        missing: sentences on predictions that are not.
        mistakes: the most confident ones of the best trial.
        samples: a PNG of training images.
        verdict: on the finalists; None where there are none.
        explanation: what helped on the way to the winner, and which trial that is; None where nobody looked.
    """

    row: StudyRow
    trials: tuple[TrialRow, ...]
    board: Leaderboard
    evaluated: Mapping[str, EvaluatedTrial]
    missing: tuple[str, ...]
    mistakes: Gallery | None
    samples: bytes | None = field(repr=False)
    verdict: FinalistsResult | None
    explanation: tuple[Explanation, int] | None

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

    @cached_property
    def importances(self) -> tuple[Importances, ...]:
        """Of the parameters, for each model that has trials enough; it takes seconds."""
        return tuple(found for model in self.models if (found := importances(self.trials, model)) is not None)

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


def read_studied(
    study: optuna.Study, paths: StudyPaths, *, verdict: FinalistsResult | None = None, explanation: tuple[Explanation, int] | None = None
) -> StudyResults:
    """Read a study and what lies in its folder.

    Args:
        verdict, explanation: of the studies linked with it.

    Raises:
        StudyNotFoundError: it was not made by hpsearch.
    """
    row = read_study(study)
    trials = tuple(read_trials(study))
    board = make_leaderboard(trials, validation_images=row.comparable["data"]["validation_images"])
    evaluated: dict[str, EvaluatedTrial] = {}
    missing: list[str] = []
    for model in models_of(trials):
        for trial in rank(trials, model)[:1]:
            try:
                predictions = read_predictions(paths.trial(trial.number).predictions)
                evaluated[model] = EvaluatedTrial(trial=trial, predictions=predictions, metrics=measure(predictions))
            except DataError:
                missing.append(
                    f"The predictions of trial {trial.number}, the best {model}, are not at hand: its classes cannot be compared."
                )
    return StudyResults(
        row=row,
        trials=trials,
        board=board,
        evaluated=evaluated,
        missing=tuple(missing),
        mistakes=_mistakes(board, evaluated, paths),
        samples=_read(paths),
        verdict=verdict,
        explanation=explanation,
    )


def _mistakes(board: Leaderboard, evaluated: Mapping[str, EvaluatedTrial], paths: StudyPaths) -> Gallery | None:
    if board.best is None or board.best.trial.model not in evaluated:
        return None
    trial = board.best.trial
    try:
        indices, images = read_mistakes(paths.trial(trial.number).predictions)
        return mistakes_gallery(evaluated[trial.model].predictions, indices, images)
    except DataError:
        return None  # images of two channels, or of five: there is no picture of them


def _read(paths: StudyPaths) -> bytes | None:
    try:
        return paths.samples.read_bytes()
    except OSError:
        return None
