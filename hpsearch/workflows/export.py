"""Export a stored trial as a best config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpsearch.analysis.finalists import Finalist
from hpsearch.analysis.leaderboard import Leaderboard, RankedTrial
from hpsearch.analysis.metrics import wilson_interval
from hpsearch.config.best_config import BestConfig, read_table
from hpsearch.config.components import BUILT_IN, ComponentFile
from hpsearch.config.registration import component_hash, require_run_before
from hpsearch.config.sections import Data
from hpsearch.config.study_file import stored_hashes, used_files
from hpsearch.errors import ConfigError, StudyNotFoundError, UsageError
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
        data_files=() if data.dataset in BUILT_IN.names("dataset") else tuple(recorded_files(study).values()),
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
    return "belongs to another program" if trial.is_finished else f"has no configuration yet: it is {trial.state}"


def recorded_files(study: StudyRow) -> dict[str, ComponentFile]:
    """Return the component files of a study with the hashes that the study stores. The files are not read.

    Args:
        study: the study.

    Returns:
        The files by their paths relative to the study file.
    """
    hashes = stored_hashes(study.text, study.path, study.comparable["component files"])
    return {name: ComponentFile(path=path, sha256=hashes[name]) for name, path in used_files(study.text, study.path).items()}


def require_own_files(study: StudyRow) -> None:
    """Raise an error if a study uses component files that this user has not run before. Looking at results must not run a program.

    Args:
        study: the study. Its database may come from elsewhere, and then may name any file.

    Raises:
        ComponentError: a component file has not been run before.
    """
    for name, file in recorded_files(study).items():
        present = component_hash(file.path)
        if present is not None:
            require_run_before(
                ComponentFile(path=file.path, sha256=present),
                owner=f"the study '{study.name}'",
                allow=f"check a study file that uses {name} with `hpsearch check`",
            )


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
        table = read_table(path)
    except ConfigError:
        return False
    return isinstance(table, dict) and {"format", "provenance"} <= set(table)
