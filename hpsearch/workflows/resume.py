"""Create a study or continue it. This module decides what may change between the runs of a study and which trials are queued."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hpsearch.config.components import SELECTORS, TRAINER_OPTIONS, Scalar
from hpsearch.config.sections import Budget
from hpsearch.config.space import PRECISION, Space
from hpsearch.config.study_file import StudyFile, stored_hashes
from hpsearch.errors import NotComparableError
from hpsearch.formatting import show
from hpsearch.storage.database import Store
from hpsearch.storage.records import (
    BASELINE,
    StudyKey,
    StudyRow,
    TrialKey,
    TrialRow,
    counts_towards_budget,
    is_own_trial,
    read_study,
    require_own,
    write_study,
)

COMPONENT_FILES = "component files"
CHANGEABLE_SECTIONS = ("budget", "limits", "sampler", "pruner")
"""Sections of a study file that do not make trials incomparable."""
MAX_SHOWN_DIFFERENCES = 8
"""Maximum number of differences in an error message. With more lines the reader would miss the first lines."""


def create_or_continue(
    store: Store, file: StudyFile, budget: Budget, auto_precision: Mapping[str, str]
) -> tuple[optuna.Study, int, tuple[str, ...]]:
    """Create the study of a study file, or load the study and check that its trials stay comparable.

    This function also queues baselines and copies the trials of a warm start. The caller must hold the creation lock.

    Args:
        store: the database.
        file: the study file.
        budget: the budget of this run.
        auto_precision: the number format that the precision `auto` means in a new study, by model.

    Returns:
        The study, the number of trials that it had before, and one line for each change.

    Raises:
        NotComparableError: new trials could not be compared with the stored trials.
        StudyNotFoundError: a study of the warm start does not exist, or another program made the study.
    """
    sources = _warm_start_trials(store, file)  # may raise an error, so it comes before anything is written
    changed: list[str] = []
    n_earlier = 0
    study = create_or_load(store, file.name)
    # The process that made the study may have been killed before it stored the study file.
    if StudyKey.FILE in study.user_attrs:
        trials = study.get_trials(deepcopy=False)
        n_earlier = sum(map(_was_started, trials))
        row = read_study(study)
        differences = differing(_stored_comparable(row, file), comparable(file))
        # A component file may change until a trial has an epoch, because before the first epoch there is nothing to compare.
        has_epochs = any(TrialKey.EPOCHS in trial.user_attrs for trial in trials)
        if differences and (has_epochs or any(not line.startswith(COMPONENT_FILES) for line in differences)):
            raise NotComparableError(
                f"{file.path.name}: new trials could not be compared with the {n_earlier} trials of '{file.name}':{_listed(differences)}",
                hint="Undo the change, or begin another study that learns from this one:\n"
                f'    name = "{file.name}-2"\n    warm_start.from = ["{file.name}"]',
            )
        changed = differences + _changed_sections(row.text, file.text)
    write_study(study, text=file.text, path=file.path, comparable=comparable(file), auto_precision=auto_precision)
    for source, trials in sources.items():
        changed += _copy_trials(study, file.space, source, trials)
    changed += _queue_baselines(study, file, budget)
    return study, n_earlier, tuple(changed)


def create_or_load(store: Store, name: str) -> optuna.Study:
    """Create a study, or load it if hpsearch made it. The caller must hold the creation lock.

    Args:
        store: the database.
        name: name of the study.

    Returns:
        The study.

    Raises:
        StudyNotFoundError: another program made the study of that name.
    """
    if name not in store.study_names():
        return store.create(name)
    study = store.load(name)
    # The process that made the study may have been killed before it stored anything else.
    if study.get_trials(deepcopy=False) or study.directions != [optuna.study.StudyDirection.MAXIMIZE]:
        require_own(study, hint="Give the study file another name.")
    return study


def comparable(file: StudyFile) -> dict[str, Any]:
    """Return the settings that all trials of a study must share, in the form that the database stores.

    Args:
        file: the study file.

    Returns:
        Nested tables of plain JSON values.
    """
    stored: dict[str, Any] = json.loads(json.dumps(file.comparable))
    return stored


def _stored_comparable(row: StudyRow, file: StudyFile) -> dict[str, Any]:
    """Return the stored settings. A component file whose hash version 0.1 did not store is taken for the present one."""
    hashes = stored_hashes(row.text, row.path, row.comparable[COMPONENT_FILES])
    now = comparable(file)[COMPONENT_FILES]
    return {**row.comparable, COMPONENT_FILES: {name: sha256 or now.get(name) for name, sha256 in hashes.items()}}


def require_comparable(study: optuna.Study, file: StudyFile) -> None:
    """Raise an error if trials of a study file could not be compared with the stored trials.

    Args:
        study: the stored study.
        file: the study file.

    Raises:
        NotComparableError: trials could not be compared. The message lists the differences.
    """
    differences = differing(_stored_comparable(read_study(study), file), comparable(file))
    if differences:
        raise NotComparableError(
            f"{file.path.name} differs from the study file of the stored trials of '{file.name}':{_listed(differences)}",
            hint="Undo the change, or begin another study with it.",
        )


def searched_values(file: StudyFile, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return only the values that Optuna samples, without fixed values.

    Args:
        file: the study file.
        values: values by parameter name.

    Returns:
        The values of searched parameters.
    """
    return {parameter.name: values[parameter.name] for parameter in file.space.searched if parameter.name in values}


def differing(old: Any, new: Any, key: str = "") -> list[str]:
    """Compare two nested tables.

    Args:
        old: the first table.
        new: the second table.
        key: key of the two tables inside the tables that hold them; empty for the outermost tables.

    Returns:
        A line for each difference: `space.dropout.float: [0, 0.6] → [0, 0.5]`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        return [line for name in keys for line in differing(old.get(name), new.get(name), f"{key}.{name}" if key else name)]
    return [] if old == new else [f"{key}: {_short(old)} → {_short(new)}"]


def queue_failed_again(study: optuna.Study) -> list[int]:
    """Queue each failed trial again as a new trial, unless it was queued again before.

    Args:
        study: the study.

    Returns:
        The numbers of the failed trials.
    """
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(TrialKey.RETRY_OF) for trial in trials}
    failed = [
        trial for trial in trials if trial.state == TrialState.FAIL and is_own_trial(trial) and trial.params and trial.number not in retried
    ]
    for trial in failed:
        study.enqueue_trial(trial.params, user_attrs={TrialKey.RETRY_OF: trial.number, TrialKey.ORIGIN: f"retry of {trial.number}"})
    return [trial.number for trial in failed]


def _was_started(trial: FrozenTrial) -> bool:
    """Return whether a worker of this study ever claimed the trial."""
    return (
        is_own_trial(trial)
        and TrialKey.COPY_OF not in trial.user_attrs
        and (trial.state != TrialState.WAITING or TrialKey.ATTEMPTS in trial.user_attrs)
    )


def _short(value: Any) -> str:
    """Return a value for a line of differences. A hash is shortened."""
    if value is None:
        return "nothing"
    return f"{value[:12]}…" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else show(value)


def _listed(differences: list[str]) -> str:
    n_more = len(differences) - MAX_SHOWN_DIFFERENCES
    lines = [*differences[:MAX_SHOWN_DIFFERENCES], *([f"and {n_more} more"] if n_more > 0 else [])]
    return "".join(f"\n  {line}" for line in lines)


def _changed_sections(old: str, new: str) -> list[str]:
    try:
        before, after = ({name: tomllib.loads(text).get(name, {}) for name in CHANGEABLE_SECTIONS} for text in (old, new))
    except tomllib.TOMLDecodeError:
        return []
    return differing(before, after)


def _queue_baselines(study: optuna.Study, file: StudyFile, budget: Budget) -> list[str]:
    """Queue the baselines that the study does not have. Return a line if the budget has no room for some baselines."""
    trials = study.get_trials(deepcopy=False)
    existing = [TrialRow.from_trial(trial).params for trial in trials if trial.user_attrs.get(TrialKey.ORIGIN) == BASELINE]
    missing = [point for values in file.baselines if (point := searched_values(file, values)) not in existing]
    room = max(0, budget.max_trials - sum(map(counts_towards_budget, trials)))
    for point in missing[:room]:
        study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BASELINE})
    return [f"{len(missing) - room} of the baselines do not fit into the budget any more"] if len(missing) > room else []


def _warm_start_trials(store: Store, file: StudyFile) -> dict[str, list[FrozenTrial]]:
    """Return the finished trials of each study of the warm start. Raise an error if a study was measured differently."""
    found = {}
    for source in file.warm_start:
        study = store.load(source)
        old, new = _stored_comparable(read_study(study), file), comparable(file)
        differences = [line for key in ("data", "seed", COMPONENT_FILES) for line in differing(old[key], new[key], key)]
        if differences:
            raise NotComparableError(
                f"{file.path.name}: warm_start.from: the trials of '{source}' were measured otherwise:{_listed(differences)}",
                hint="A study may differ only in its space from the studies of its warm start.",
            )
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        found[source] = [trial for trial in finished if trial.values is not None]  # without a whole epoch there is no value
    return found


def _copy_trials(study: optuna.Study, space: Space, source: str, trials: list[FrozenTrial]) -> list[str]:
    """Copy the trials of another study that fit the space and were not copied before. Return a line about the copies."""
    labels = [f"{source}/{trial.number}" for trial in trials]
    copied = {trial.user_attrs.get(TrialKey.COPY_OF) for trial in study.get_trials(deepcopy=False)}
    n_copies = 0
    for label, trial in zip(labels, trials, strict=True):
        point = None if label in copied else _equal_point(space, TrialRow.from_trial(trial))
        if point is None:
            continue
        # Pauses and audits are decisions of the other study.
        attributes = {key: value for key, value in trial.user_attrs.items() if key not in (TrialKey.PAUSE, TrialKey.AUDIT)}
        fixed = FixedTrial(point)
        space.sample(fixed)
        study.add_trial(
            optuna.trial.create_trial(
                state=trial.state,
                value=trial.value,
                params=fixed.params,
                distributions=fixed.distributions,
                intermediate_values=trial.intermediate_values,
                user_attrs={**attributes, TrialKey.COPY_OF: label, TrialKey.ORIGIN: f"copy of {label}"},
            )
        )
        n_copies += 1
    if n_copies or not copied.intersection(labels):
        return [f"{n_copies} of the {len(trials)} finished trials of '{source}' fit the space and were copied"]
    return []


def _equal_point(space: Space, trial: TrialRow) -> dict[str, Scalar] | None:
    """Return the point of the space with exactly the trial's configuration; None if the space has no such point."""
    config = trial.config
    if config is None or trial.value is None:
        return None
    settings: dict[tuple[str, str], Scalar] = {("trainer", option.name): getattr(config, option.name) for option in TRAINER_OPTIONS}
    for kind in SELECTORS:
        chosen = getattr(config, kind)
        settings["trainer", kind] = chosen.name
        settings.update({(kind, name): value for name, value in chosen.options.items()})
    values: dict[str, Scalar] = {}
    for parameter in space:
        if parameter.exists(values):
            value = settings.get((parameter.owner, parameter.option))
            if (parameter.owner, parameter.option) == PRECISION and (value is None or value not in parameter.distribution):
                value = "auto" if "auto" in parameter.distribution else parameter.distribution.listed[0]
            if value is None or value not in parameter.distribution:
                return None
            values[parameter.name] = value
    # Options that the space does not mention must have had their defaults. Both precisions measure the same.
    here = replace(space.config(values, seed=config.seed), precision=config.precision)
    return values if here.digest == config.digest else None
