"""Export a stored trial as a best config."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from hpsearch.analysis.finalists import Finalist
from hpsearch.analysis.leaderboard import Leaderboard, RankedTrial
from hpsearch.analysis.metrics import wilson_interval
from hpsearch.config.best_config import BestConfig
from hpsearch.config.components import BUILT_IN, ComponentFile
from hpsearch.config.sections import Data
from hpsearch.errors import StudyNotFoundError, UsageError
from hpsearch.formatting import show_path
from hpsearch.storage.records import StudyRow, TrialRow

ENDINGS = ("", ".toml", ".json")
"""Allowed endings of a best config. A file without an ending is TOML."""


def best_config(trial: TrialRow, study: StudyRow, finalist: Finalist | None = None) -> BestConfig:
    """Return the best config of a trial. It holds the training run and the provenance.

    Args:
        trial: the trial.
        study: the study of the trial.
        finalist: result of the trial in the finalists; None if the trial has no such result.

    Returns:
        The config.

    Raises:
        StudyNotFoundError: the trial failed, or has no configuration yet.
    """
    if trial.config is None or trial.state == "fail":
        raise StudyNotFoundError(f"trial {trial.number} of '{study.name}' {why_unusable(trial)}")
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
            "parameters": trial.n_parameters,
            "fingerprint": trial.run.get("fingerprint"),
            "split_hash": trial.run.get("split_hash"),
            "device": trial.run.get("device"),
            "versions": trial.run.get("versions"),
        },
        data_files=() if data.dataset in BUILT_IN.names("dataset") else _files_of(study),
    )


def why_unusable(trial: TrialRow) -> str:
    """Say why a trial cannot be trained again.

    Args:
        trial: a trial that failed or has no configuration yet.

    Returns:
        The end of a sentence whose subject is the trial.
    """
    if trial.state == "fail":
        return f"failed: {trial.end.get('reason', 'no reason is on record')}"
    return f"has no configuration yet: it is {trial.state}"


def _files_of(study: StudyRow) -> tuple[ComponentFile, ...]:
    """Return the study's component files with the hashes that the study stores. One of these files defines the data set."""
    hashes: dict[str, str] = study.comparable["component files"]
    used = [(study.path.parent / name).resolve() for name in tomllib.loads(study.text)["use"]]
    return tuple(ComponentFile(path=path, sha256=hashes[path.name]) for path in used)


def select_best(board: Leaderboard, *, top: int, per_model: bool) -> Sequence[RankedTrial]:
    """Select the best trials of a study.

    Args:
        board: the leaderboard.
        top: maximum number of trials.
        per_model: whether `top` counts for each model.

    Returns:
        The trials by rank. With `per_model` they are grouped by model.
    """
    if not per_model:
        return board.ranking[:top]
    models = dict.fromkeys(ranked.trial.model for ranked in board.ranking)
    return [ranked for model in models for ranked in [each for each in board.ranking if each.trial.model == model][:top]]


def write_best_config(config: BestConfig, path: Path) -> None:
    """Write a best config as TOML or JSON. An existing file is overwritten only if it is a best config.

    Args:
        config: the config.
        path: the file. Its ending decides the format.

    Raises:
        UsageError: the ending is wrong, another file is there, or the file cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"a best config is TOML or JSON, but {show_path(path)} ends in '{path.suffix}'", hint="End it in .toml or .json.")
    if path.is_file() and not _is_best_config(path):
        raise UsageError(f"{show_path(path)} exists and is no best config", hint="Choose another file with -o.")
    try:
        path.write_text(config.to_json() if path.suffix == ".json" else config.to_toml(), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="Choose another file with -o.") from error


def _is_best_config(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and {"format", "provenance"} <= set(table)
