"""From a stored trial to a best config."""

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
"""Of a best config's file; without one it is TOML."""


def best_config(trial: TrialRow, study: StudyRow, finalist: Finalist | None = None) -> BestConfig:
    """The trial's training run, and where it comes from.

    Args:
        finalist: what fresh seeds said of it, where there are any.

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
    """Why a trial has no configuration that could be trained again, as the end of a sentence."""
    if trial.state == "fail":
        return f"failed: {trial.end.get('reason', 'no reason is on record')}"
    return f"has no configuration yet: it is {trial.state}"


def _files_of(study: StudyRow) -> tuple[ComponentFile, ...]:
    """The study's component files, as they were when it was begun; one of them brings the data set."""
    hashes: dict[str, str] = study.comparable["component files"]
    used = [(study.path.parent / name).resolve() for name in tomllib.loads(study.text)["use"]]
    return tuple(ComponentFile(path=path, sha256=hashes[path.name]) for path in used)


def select_best(board: Leaderboard, *, top: int, per_model: bool) -> Sequence[RankedTrial]:
    """The best few, or the best few of each model."""
    if not per_model:
        return board.ranking[:top]
    models = dict.fromkeys(ranked.trial.model for ranked in board.ranking)
    return [ranked for model in models for ranked in [each for each in board.ranking if each.trial.model == model][:top]]


def write_best_config(config: BestConfig, path: Path) -> None:
    """Write a best config, JSON or TOML by the name's ending; over another best config, but over no other file.

    Raises:
        UsageError: another ending, a file that is something else, or one that cannot be written.
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
