"""From a stored trial to a best config."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from hpsearch.best_config import BestConfig
from hpsearch.components import BUILT_IN, ComponentFile
from hpsearch.errors import StudyNotFoundError
from hpsearch.evaluation import wilson_interval
from hpsearch.finalists import Finalist
from hpsearch.results.leaderboard import Leaderboard, Standing
from hpsearch.sections import Data
from hpsearch.storage import StudyRow, TrialRow


def best_config(trial: TrialRow, study: StudyRow, finalist: Finalist | None = None) -> BestConfig:
    """The trial's training run, and where it comes from.

    Args:
        finalist: what fresh seeds said of it, where there are any.

    Raises:
        StudyNotFoundError: the trial has no configuration yet.
    """
    if trial.config is None:
        raise StudyNotFoundError(f"trial {trial.number} of '{study.name}' has no configuration yet: it is {trial.state}")
    data = Data.model_validate(study.comparable["data"])
    value = trial.value
    return BestConfig(
        config=trial.config,
        data=data,
        split_seed=int(study.comparable["seed"]),
        provenance={
            "study": study.name,
            "trial": trial.number,
            "state": trial.state,
            "val_accuracy": value,
            "val_accuracy_interval": None
            if value is None
            else [round(bound, 6) for bound in wilson_interval(value, data.validation_images)],
            "finalists": None
            if finalist is None
            else {
                "val_accuracy": round(finalist.mean.value, 6),
                "val_accuracy_interval": [round(bound, 6) for bound in finalist.mean.interval],
                "runs": len(finalist.scores),
                "probability_of_best": round(finalist.best, 4),
            },
            "parameters": trial.parameters,
            "fingerprint": trial.run.get("fingerprint"),
            "split_hash": trial.run.get("split_hash"),
            "device": trial.run.get("device"),
            "versions": trial.run.get("versions"),
        },
        data_files=() if data.dataset in BUILT_IN.names("dataset") else _files_of(study),
    )


def _files_of(study: StudyRow) -> tuple[ComponentFile, ...]:
    """The study's component files, as they were when it was begun; one of them brings the data set."""
    hashes: dict[str, str] = study.comparable["component files"]
    used = [(study.path.parent / name).resolve() for name in tomllib.loads(study.text)["use"]]
    return tuple(ComponentFile(path=path, sha256=hashes[path.name]) for path in used)


def chosen_standings(board: Leaderboard, *, top: int, per_model: bool) -> Sequence[Standing]:
    """The best few, or the best few of each model."""
    if not per_model:
        return board.standings[:top]
    models = dict.fromkeys(standing.trial.model for standing in board.standings)
    return [standing for model in models for standing in [each for each in board.standings if each.trial.model == model][:top]]
