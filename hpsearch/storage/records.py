"""What hpsearch keeps in a storage: the one place that knows the attributes' keys.

Everything stays plain Optuna. What is written is read back here as typed rows.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import Scalar
from hpsearch.config.epoch import Epoch
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import StudyNotFoundError
from hpsearch.storage.optuna_internals import get_storage, get_study_id
from hpsearch.storage.trial_cache import PlainCache

BASELINE, BY_HAND = "baseline", "by hand"
"""Where a trial that no sampler drew comes from."""
MAX_FAILURES = 2
"""A configuration that fails so often on one seed is not repeated any more."""

PREFIX = "hpsearch:"
"""Of what only hpsearch reads."""


class StudyKey:
    """The user attributes of a study."""

    FILE = "hpsearch:study_file"
    COMPARABLE = "hpsearch:comparable"
    SPLIT_HASH = "hpsearch:split_hash"
    RUN_SECONDS = "hpsearch:seconds_spent:"
    """And the id of a run."""
    STOP_REQUESTS = "hpsearch:stop_requests"
    """How often its workers were asked to stop."""
    PLAN = "hpsearch:plan"
    """Of a linked study: which configurations are repeated, as JSON text."""
    N_IMAGES = "hpsearch:images"
    """Of a linked study: the training images of the data set."""
    HELD_OUT_READING = "hpsearch:test_reading:"
    """And the id of a reading of the test split: each has a key of its own, so that none overwrites another."""
    SYNCED = "hpsearch:fed"
    """What the dashboard was last fed with; a system attribute, which the dashboard does not show."""


class TrialKey:
    """The user attributes of a trial; those without the prefix are numbers for the dashboard's columns."""

    N_PARAMETERS = "parameters"
    FLOPS = "flops"
    SECONDS = "seconds"
    TRAIN_ACCURACY = "train_accuracy"
    GAP = "gap"
    EPOCHS_DONE = "epochs_done"
    ORIGIN = "hpsearch:origin"
    RETRY_OF = "hpsearch:retry_of"
    """The number of the failed trial that it tries again."""
    COPY_OF = "hpsearch:copy_of"
    """The study and number that it was copied from."""
    RUN = "hpsearch:run"
    EPOCHS = "hpsearch:epochs"
    """Both as JSON text: most of those who read a trial look at neither, and decoded they would be two thirds of it."""
    ATTEMPTS = "hpsearch:attempts"
    END = "hpsearch:end"
    CANDIDATE = "candidate"
    """In a linked study: which configuration is repeated."""
    REPEAT = "repeat"
    """And with which of the seeds, from 1."""


UNUSED_BY_SEARCH = frozenset(
    (
        TrialKey.RUN,
        TrialKey.EPOCHS,
        TrialKey.N_PARAMETERS,
        TrialKey.FLOPS,
        TrialKey.SECONDS,
        TrialKey.TRAIN_ACCURACY,
        TrialKey.GAP,
        TrialKey.EPOCHS_DONE,
    )
)
"""Attributes of a finished trial that samplers, pruners and the budget do not read, and that differ in each trial."""


def trim_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user attributes of a finished trial without what a search does not read.

    Args:
        attributes: all user attributes of the trial.

    Returns:
        Those that a search reads. Of an attempt only the run is left, of an end only the reason.
    """
    trimmed = {key: value for key, value in attributes.items() if key not in UNUSED_BY_SEARCH}
    if TrialKey.ATTEMPTS in trimmed:
        trimmed[TrialKey.ATTEMPTS] = [{"run": attempt["run"]} for attempt in trimmed[TrialKey.ATTEMPTS]]
    if TrialKey.END in trimmed:
        trimmed[TrialKey.END] = {"reason": trimmed[TrialKey.END].get("reason")}
    return trimmed


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A stored trial.

    Attributes:
        state: Optuna's, in lower case: `complete`, `pruned`, `fail`, `running`, `waiting`.
        value: validation accuracy of the last epoch, 0 to 1; None if there is none.
        params: what was sampled; fixed values are in `config` only.
        origin: `baseline`, `by hand`, or empty for a sampled one.
        copy_of: the study and number that a warm start copied it from, `study/7`, or empty.
        seconds: over all epochs.
        end: why it ended: `reason`, `traceback`, `diverged`.
        repeat: in a linked study, the configuration that it repeats and with which of the seeds.
    """

    number: int
    state: str
    value: float | None
    params: Mapping[str, Scalar]
    config: TrainConfig | None
    run: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    origin: str
    copy_of: str
    n_parameters: int | None
    flops: int | None
    attempts: tuple[Mapping[str, Any], ...]
    end: Mapping[str, Any]
    started: datetime | None
    finished: datetime | None
    repeat: tuple[str, int] | None = None

    @property
    def model(self) -> str:
        """The model's name; empty before anything was sampled."""
        return self.config.model.name if self.config else str(self.params.get("model", ""))

    @property
    def seconds(self) -> float:
        """Time of all epochs."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def is_finished(self) -> bool:
        """Whether nothing will be added to it."""
        return self.state in ("complete", "pruned", "fail")


def read_trials(study: optuna.Study) -> list[TrialRow]:
    """All trials of a study, by number."""
    storage, study_id = get_storage(study), get_study_id(study)
    # Past the cache: that of a worker lacks attributes, and any other would keep all trials in memory.
    trials = storage.read_trials(study_id) if isinstance(storage, PlainCache) else storage.get_all_trials(study_id, deepcopy=False)
    return [trial_row(trial) for trial in trials]


def read_trial(study: optuna.Study, number: int) -> TrialRow:
    """One trial of a study.

    Raises:
        StudyNotFoundError: there is no trial of that number.
    """
    storage, study_id = get_storage(study), get_study_id(study)
    try:
        return trial_row(storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number)))
    except KeyError as error:
        count = storage.get_n_trials(study_id)
        known = f"0 to {count - 1}" if count else "none yet"
        raise StudyNotFoundError(f"no trial {number} in '{study.study_name}'", hint=f"Its trials: {known}.") from error


def trial_row(trial: FrozenTrial) -> TrialRow:
    """A stored trial as a typed row; one that hpsearch did not write has gaps."""
    attrs = trial.user_attrs
    run = json.loads(attrs.get(TrialKey.RUN, "{}"))
    finite = trial.values is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        value=trial.value if finite else None,
        params=trial.params or trial.system_attrs.get("fixed_params", {}),
        config=TrainConfig.from_dict(run["config"]) if "config" in run else None,
        run=run,
        epochs=tuple(Epoch.from_dict(stored) for stored in json.loads(attrs.get(TrialKey.EPOCHS, "[]"))),
        origin=attrs.get(TrialKey.ORIGIN, ""),
        copy_of=attrs.get(TrialKey.COPY_OF, ""),
        n_parameters=attrs.get(TrialKey.N_PARAMETERS),
        flops=attrs.get(TrialKey.FLOPS),
        attempts=tuple(attrs.get(TrialKey.ATTEMPTS, [])),
        end=attrs.get(TrialKey.END, {}),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        repeat=repeat_of(trial),
    )


def repeat_of(trial: FrozenTrial) -> tuple[str, int] | None:
    """Which configuration a trial of a linked study repeats, and with which of the seeds."""
    attrs = trial.user_attrs
    return (attrs[TrialKey.CANDIDATE], attrs[TrialKey.REPEAT]) if TrialKey.REPEAT in attrs else None


def candidate_scores(trials: Sequence[FrozenTrial]) -> dict[str, dict[int, float]]:
    """The accuracy of every complete run of a linked study: configuration to repeat to value."""
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for trial in trials:
        run = repeat_of(trial)
        if run is not None and trial.state == TrialState.COMPLETE and trial.value is not None:
            scores[run[0]][run[1]] = trial.value
    return dict(scores)


def failed_candidates(trials: Sequence[FrozenTrial]) -> frozenset[str]:
    """The configurations of a linked study that failed on one seed again and again."""
    failures = Counter(repeat_of(trial) for trial in trials if trial.state == TrialState.FAIL)
    return frozenset(run[0] for run, count in failures.items() if run is not None and count >= MAX_FAILURES)


def write_attempt(trial: optuna.Trial, *, worker: str, run: str, at: float) -> list[dict[str, Any]]:
    """Note that a worker takes up the trial; returns all who have, this one last.

    Each notes the worker, its run, when (seconds since 1970) and how many epochs were on record then.
    """
    earlier = trial.user_attrs.get(TrialKey.ATTEMPTS, [])
    attempts = [*earlier, {"worker": worker, "run": run, "at": round(at, 3), "epochs": len(read_epochs(trial))}]
    trial.set_user_attr(TrialKey.ATTEMPTS, attempts)
    return attempts


def write_clean_exit(trial: optuna.Trial) -> None:
    """Note that the trial's worker left it in good order, and did not die."""
    attempts = trial.user_attrs[TrialKey.ATTEMPTS]
    trial.set_user_attr(TrialKey.ATTEMPTS, [*attempts[:-1], {**attempts[-1], "left": True}])


def write_run(trial: optuna.Trial, config: TrainConfig, *, n_parameters: int, flops: int, facts: Mapping[str, Any]) -> None:
    """Note what is needed to repeat the trial, and what it costs."""
    run = {"config": config.to_dict(), "digest": config.digest, **facts}
    # A continued trial finds the same there, unless it goes on elsewhere.
    packed = _packed(run)
    if trial.user_attrs.get(TrialKey.RUN) != packed:
        with transaction(trial):
            trial.set_user_attr(TrialKey.RUN, packed)
            trial.set_user_attr(TrialKey.N_PARAMETERS, n_parameters)
            trial.set_user_attr(TrialKey.FLOPS, flops)


def read_epochs(trial: optuna.Trial) -> list[Epoch]:
    """The epochs that a trial has on record."""
    return [Epoch.from_dict(stored) for stored in json.loads(trial.user_attrs.get(TrialKey.EPOCHS, "[]"))]


def write_epochs(trial: optuna.Trial, epochs: Sequence[Epoch]) -> None:
    """Put a trial's epochs on record."""
    trial.set_user_attr(TrialKey.EPOCHS, _packed([epoch.to_dict() for epoch in epochs]))


def transaction(trial: optuna.Trial) -> AbstractContextManager[None]:
    return trial.storage.transaction() if isinstance(trial.storage, PlainCache) else nullcontext()


def _packed(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def write_end(trial: optuna.Trial, epochs: Sequence[Epoch], end: Mapping[str, Any]) -> None:
    """Note how a trial ended; it must still be running, a finished one is read-only."""
    with transaction(trial):
        if epochs:
            last = epochs[-1]
            trial.set_user_attr(TrialKey.EPOCHS_DONE, last.number)
            trial.set_user_attr(TrialKey.SECONDS, round(sum(epoch.seconds for epoch in epochs), 2))
            trial.set_user_attr(TrialKey.TRAIN_ACCURACY, last.train_accuracy)
            trial.set_user_attr(TrialKey.GAP, round(last.train_accuracy - last.val_accuracy, 6))
        if end:
            trial.set_user_attr(TrialKey.END, dict(end))


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What a study was made with.

    Attributes:
        text, path: the study file as it was last run.
        comparable: what all its trials share.
        split_hash: of the train/validation split; None before the first trial.
        seconds_spent: over all its runs.
    """

    name: str
    text: str
    path: Path
    comparable: Mapping[str, Any]
    split_hash: str | None
    seconds_spent: float


def read_study(study: optuna.Study) -> StudyRow:
    """What a study was made with.

    Raises:
        StudyNotFoundError: it was not made by hpsearch.
    """
    attrs = study.user_attrs
    if StudyKey.FILE not in attrs:
        raise StudyNotFoundError(f"the study '{study.study_name}' was not made by hpsearch", hint="Give the study file another name.")
    return StudyRow(
        name=study.study_name,
        text=attrs[StudyKey.FILE]["text"],
        path=Path(attrs[StudyKey.FILE]["path"]),
        comparable=attrs[StudyKey.COMPARABLE],
        split_hash=attrs.get(StudyKey.SPLIT_HASH),
        seconds_spent=sum(value for key, value in attrs.items() if key.startswith(StudyKey.RUN_SECONDS)),
    )


def write_study(study: optuna.Study, *, text: str, path: Path, comparable: Mapping[str, Any]) -> None:
    """Note what a study is made with."""
    study.set_user_attr(StudyKey.FILE, {"text": text, "path": str(path)})
    study.set_user_attr(StudyKey.COMPARABLE, dict(comparable))


def read_stop_requests(study: optuna.Study) -> int:
    """How often the workers of a study were asked to stop so far."""
    count: int = study.user_attrs.get(StudyKey.STOP_REQUESTS, 0)
    return count


def request_stop(study: optuna.Study) -> None:
    """Ask all workers of a study, wherever they run, to leave their trials in good order."""
    study.set_user_attr(StudyKey.STOP_REQUESTS, read_stop_requests(study) + 1)


def write_held_out_reading(study: optuna.Study, reading: Mapping[str, Any]) -> int:
    """Note a reading of the test split for a config of the study, or what is known of it since; returns how many there are."""
    study.set_user_attr(f"{StudyKey.HELD_OUT_READING}{reading['id']}", dict(reading))
    return len(read_held_out_readings(study))


def read_held_out_readings(study: optuna.Study) -> list[Mapping[str, Any]]:
    """Every reading of the test split for a config of the study, the oldest first, as `hpsearch.analysis.final_score.HeldOutReading` has it."""
    readings = [value for key, value in study.user_attrs.items() if key.startswith(StudyKey.HELD_OUT_READING)]
    return sorted(readings, key=lambda reading: (reading["at"], reading["id"]))


def is_copy(trial: FrozenTrial) -> bool:
    """Whether a trial was trained in another study."""
    return TrialKey.COPY_OF in trial.user_attrs


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the budget's: a copy or a second try of a failed one is not."""
    return not is_copy(trial) and TrialKey.RETRY_OF not in trial.user_attrs


def write_split_hash(study: optuna.Study, split_hash: str) -> None:
    """Note the split that the study's trials are measured on."""
    study.set_user_attr(StudyKey.SPLIT_HASH, split_hash)


def read_run_seconds(study: optuna.Study, run: str) -> float:
    """How long a run had lasted when it was last noted, in seconds."""
    seconds: float = study.user_attrs.get(f"{StudyKey.RUN_SECONDS}{run}", 0.0)
    return seconds


def write_run_seconds(study: optuna.Study, run: str, seconds: float) -> None:
    """Note how long a run has lasted so far."""
    study.set_user_attr(f"{StudyKey.RUN_SECONDS}{run}", round(seconds, 1))
