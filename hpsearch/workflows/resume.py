"""Create a study or continue it: what may change between its runs, what is queued in it, and what is refused."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import SELECTORS, TRAINER_OPTIONS, Scalar
from hpsearch.config.distributions import Searched
from hpsearch.config.sections import Budget
from hpsearch.config.space import Space
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import NotComparableError
from hpsearch.formatting import show
from hpsearch.storage.database import Store
from hpsearch.storage.records import (
    BASELINE,
    StudyKey,
    TrialKey,
    TrialRow,
    counts_towards_budget,
    read_study,
    write_study,
)

COMPONENT_FILES = "component files"
MOST_DIFFERENCES = 8
"""Lines of a refusal; more would hide the first."""


def create_or_continue(store: Store, file: StudyFile, budget: Budget) -> tuple[optuna.Study, int, tuple[str, ...]]:
    """The study, how many trials it had, and what changed; the caller holds the lock of creation."""
    comparable = json.loads(json.dumps(file.comparable))
    changed: list[str] = []
    sources = _sources(store, file)  # what cannot be copied is refused before anything is written
    if file.name not in store.study_names():
        study, earlier = store.create(file.name), 0
    else:
        study = store.load(file.name)
        trials = study.get_trials(deepcopy=False)
        earlier = sum(_has_begun(trial) for trial in trials)
        # Whoever made the study may have been killed before its first note.
        if StudyKey.FILE in study.user_attrs or earlier:
            row = read_study(study)
            differences = differing(row.comparable, comparable)
            measured = any(TrialKey.EPOCHS in trial.user_attrs for trial in trials)
            # A component file that never got as far as an epoch may be mended: there is nothing to compare with.
            if differences and (measured or any(not line.startswith(COMPONENT_FILES) for line in differences)):
                raise _not_comparable(file, earlier, differences)
            changed = differences + _changed_sections(row.text, file.text)
    write_study(study, text=file.text, path=file.path, comparable=comparable)
    for source, trials in sources.items():
        changed += _copy_trials(study, file, source, trials)
    changed += _queue_baselines(study, file, budget)
    return study, earlier, tuple(changed)


def _has_begun(trial: FrozenTrial) -> bool:
    """Whether a worker of this study ever took the trial up."""
    if TrialKey.COPY_OF in trial.user_attrs:
        return False
    return trial.state != TrialState.WAITING or TrialKey.ATTEMPTS in trial.user_attrs


def _queue_baselines(study: optuna.Study, file: StudyFile, budget: Budget) -> list[str]:
    """Queue the baselines that the study does not have; returns what to say about those that do not fit."""
    trials = study.get_trials(deepcopy=False)
    known = [TrialRow.from_trial(trial).params for trial in trials if trial.user_attrs.get(TrialKey.ORIGIN) == BASELINE]
    missing = [point for values in file.baselines if (point := searched_values(file, values)) not in known]
    room = max(0, budget.trials - sum(map(counts_towards_budget, trials)))
    for point in missing[:room]:
        study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BASELINE})
    return [f"{len(missing) - room} of the baselines do not fit into the budget any more"] if len(missing) > room else []


def searched_values(file: StudyFile, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The values that Optuna samples, without the fixed ones."""
    return {parameter.name: values[parameter.name] for parameter in file.space.searched if parameter.name in values}


def differing(old: Any, new: Any, key: str = "") -> list[str]:
    """What differs between two nested tables, a line each: `space.dropout.float: [0, 0.6] → [0, 0.5]`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        return [line for name in keys for line in differing(old.get(name), new.get(name), f"{key}.{name}" if key else name)]
    if old == new:
        return []
    shown = ["nothing" if value is None else _short(value) for value in (old, new)]
    return [f"{key}: {shown[0]} → {shown[1]}"]


def require_comparable(study: optuna.Study, file: StudyFile) -> None:
    """Refuse a study file that would train something else than what the stored trials were made with.

    Raises:
        NotComparableError: with the differences.
    """
    differences = differing(read_study(study).comparable, json.loads(json.dumps(file.comparable)))
    if differences:
        raise NotComparableError(
            f"{file.path.name}: the trials of '{file.name}' were made otherwise:\n  " + "\n  ".join(differences[:MOST_DIFFERENCES]),
            hint="Undo the change, or begin another study with it.",
        )


def _short(value: Any) -> str:
    """A value for a line of differences; of a hash its beginning."""
    return f"{value[:12]}…" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else show(value)


def _not_comparable(file: StudyFile, trials: int, differences: list[str]) -> NotComparableError:
    lines = differences[:MOST_DIFFERENCES] + (
        [f"and {len(differences) - MOST_DIFFERENCES} more"] if len(differences) > MOST_DIFFERENCES else []
    )
    return NotComparableError(
        f"{file.path.name}: the study '{file.name}' has {trials} trials that were made otherwise, which could not be compared:\n  "
        + "\n  ".join(lines),
        hint=f'Undo the change, or begin another study that learns from this one:\n    name = "{file.name}-2"\n    warm_start.from = ["{file.name}"]',
    )


def _changed_sections(old: str, new: str) -> list[str]:
    """What the sections that may change between runs say otherwise."""
    try:
        tables = tomllib.loads(old), tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        return []
    sections = ("budget", "limits", "sampler", "pruner")
    was, now = ({name: table.get(name, {}) for name in sections} for table in tables)
    return differing(was, now)


def queue_failed_again(study: optuna.Study) -> list[int]:
    """Queue every failed trial that was not tried again yet, as a new trial; returns the failed ones' numbers."""
    trials = study.get_trials(deepcopy=False)
    tried = {trial.user_attrs[TrialKey.RETRY_OF] for trial in trials if TrialKey.RETRY_OF in trial.user_attrs}
    failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.params and trial.number not in tried]
    for trial in failed:
        study.enqueue_trial(trial.params, user_attrs={TrialKey.RETRY_OF: trial.number, TrialKey.ORIGIN: f"retry of {trial.number}"})
    return [trial.number for trial in failed]


def _sources(store: Store, file: StudyFile) -> dict[str, list[FrozenTrial]]:
    """The finished trials of the studies to begin with.

    Raises:
        StudyNotFoundError: there is no such study.
        NotComparableError: its trials were measured otherwise.
    """
    found = {}
    for source in file.warm_start:
        other = store.load(source)
        theirs, ours = read_study(other).comparable, json.loads(json.dumps(file.comparable))
        differences = [line for key in ("data", "seed", COMPONENT_FILES) for line in differing(theirs[key], ours[key], key)]
        if differences:
            raise NotComparableError(
                f"{file.path.name}: warm_start.from: the trials of '{source}' were measured otherwise:\n  " + "\n  ".join(differences),
                hint="Only the space may differ from that of a study to begin with.",
            )
        found[source] = [trial for trial in other.get_trials(deepcopy=False) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return found


def _copy_trials(study: optuna.Study, file: StudyFile, source: str, trials: list[FrozenTrial]) -> list[str]:
    """Copy the trials that fit the space and are not copied yet; returns what to say of it."""
    known = {trial.user_attrs.get(TrialKey.COPY_OF) for trial in study.get_trials(deepcopy=False)}
    copies = 0
    for trial in trials:
        label = f"{source}/{trial.number}"
        point = None if label in known else _same_point(file.space, TrialRow.from_trial(trial))
        if point is not None:
            _copy(study, trial, _distributions(file.space, point), label)
            copies += 1
    if copies or not known & {f"{source}/{trial.number}" for trial in trials}:
        return [f"{copies} of the {len(trials)} finished trials of '{source}' fit the space and were copied"]
    return []


def _same_point(space: Space, trial: TrialRow) -> dict[str, Scalar] | None:
    """The point of the space that stands for the very training run of the trial; None where there is none."""
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
            if value is None or value not in parameter.distribution:
                return None
            values[parameter.name] = value
    # What the space does not mention must have been at its default.
    return values if space.config(values, seed=config.seed).digest == config.digest else None


def _distributions(space: Space, point: Mapping[str, Scalar]) -> dict[str, tuple[Scalar, BaseDistribution]]:
    """Return the searched values of a complete point with their distributions."""
    return {
        parameter.name: (point[parameter.name], parameter.distribution.optuna)
        for parameter in space
        if parameter.name in point and isinstance(parameter.distribution, Searched)
    }


def _copy(study: optuna.Study, trial: FrozenTrial, drawn: Mapping[str, tuple[Scalar, BaseDistribution]], label: str) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=trial.state,
            value=trial.value,
            params={name: value for name, (value, _) in drawn.items()},
            distributions={name: distribution for name, (_, distribution) in drawn.items()},
            intermediate_values=trial.intermediate_values,
            user_attrs={**trial.user_attrs, TrialKey.COPY_OF: label, TrialKey.ORIGIN: f"copy of {label}"},
        )
    )
