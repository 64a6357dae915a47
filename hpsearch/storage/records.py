"""Store and read the data of studies and trials. Only this module knows the keys of the attributes.

A study stays a plain Optuna study. hpsearch stores its own data in attributes of the study and of its trials. This module
reads the data back as typed rows.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import PRECISIONS, Scalar
from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError, StorageError, StudyNotFoundError
from hpsearch.formatting import one_line, show
from hpsearch.storage.optuna_internals import get_storage, get_study_id, get_trial_id
from hpsearch.storage.trial_cache import PlainCache

BASELINE, BY_HAND = "baseline", "by hand"
"""The origins of a trial that was not drawn by a sampler."""
MAX_FAILURES = 2
"""A configuration is not repeated again after this number of failures with one seed."""
PREFIX = "hpsearch:"
"""Beginning of the key of an attribute that only hpsearch reads."""


class StudyKey:
    """The keys of the user attributes of a study. An id is appended to a key that ends with a colon."""

    IDENTITY = "hpsearch:identity:"
    """A random text. The name of the study is appended to the key, so a copy under another name has no identity of its own."""
    FILE = "hpsearch:study_file"
    COMPARABLE = "hpsearch:comparable"
    SPLIT_HASH = "hpsearch:split_hash"
    AUTO_PRECISION = "hpsearch:auto_precision"
    """The number format that the precision `auto` means, by model. A study of version 0.1 does not have it, and trains in float32."""
    RUN_SECONDS = "hpsearch:seconds_spent:"
    """Seconds that a run has lasted. Each run has its own key."""
    STOP_REQUESTS = "hpsearch:stop_requests"
    """Number of times that `hpsearch stop` was called."""
    PLAN = "hpsearch:plan"
    """In a follow-up study, the configurations that are repeated, as JSON text."""
    N_IMAGES = "hpsearch:images"
    """In a follow-up study, the number of training images in the data set."""
    HELD_OUT_READING = "hpsearch:test_reading:"
    """A reading of the test set is one evaluation of a config. Each reading has its own key, so no reading is overwritten."""
    SYNCED = "hpsearch:fed"
    """The data last written for the dashboard. It is a system attribute, because the dashboard does not show system attributes."""
    ARTIFACT = "artifacts:"
    """A record of Optuna's artifact store, a system attribute. If the artifact was deleted in the dashboard, the record is `null`."""


class TrialKey:
    """The keys of the user attributes of a trial. The dashboard shows the attributes without `PREFIX` as columns."""

    N_PARAMETERS = "parameters"
    FLOPS = "flops"
    SECONDS = "seconds"
    TRAIN_ACCURACY = "train_accuracy"
    GAP = "gap"
    EPOCHS_DONE = "epochs_done"
    ORIGIN = "hpsearch:origin"
    RETRY_OF = "hpsearch:retry_of"
    """The number of the failed trial that this trial repeats."""
    COPY_OF = "hpsearch:copy_of"
    """The study and number of the original trial, if this trial is a copy."""
    RUN = "hpsearch:run"
    EPOCHS = "hpsearch:epochs"
    """`RUN` and `EPOCHS` are JSON text, which is decoded only when needed. Decoded, both are two thirds of a trial."""
    RUNGS = "hpsearch:rungs"
    """The measurements inside the first epoch. A search reads them, so they are no text."""
    PAUSE = "hpsearch:pause"
    """Where the trial was last paused, in epochs, and whether it was promoted from there."""
    AUDIT = "hpsearch:audit"
    """How far the trial was when it would have been stopped, in epochs, if it was trained to its end all the same."""
    ATTEMPTS = "hpsearch:attempts"
    """The workers that took the trial. A trial that a sampler will draw has it from its first moment."""
    DEATHS = "hpsearch:deaths"
    """The workers that died while they trained this trial, and whose supervisor lived on."""
    END = "hpsearch:end"
    CANDIDATE = "candidate"
    """In a follow-up study, the name of the configuration that is repeated."""
    REPEAT = "repeat"
    """In a follow-up study, the number of the seed, counted from 1."""


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
        TrialKey.DEATHS,
    )
)
"""Attributes of a finished trial that samplers, pruners and the budget do not read. Their values differ in each trial."""


def trim_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the user attributes of a finished trial to the attributes that a search reads.

    Args:
        attributes: all user attributes of the trial.

    Returns:
        The reduced attributes. An attempt keeps only its run. An end keeps only its reason and its place.
    """
    trimmed = {key: value for key, value in attributes.items() if key not in UNUSED_BY_SEARCH}
    if TrialKey.ATTEMPTS in trimmed:
        trimmed[TrialKey.ATTEMPTS] = [{"run": attempt["run"]} for attempt in trimmed[TrialKey.ATTEMPTS]]
    if TrialKey.END in trimmed:
        trimmed[TrialKey.END] = {key: trimmed[TrialKey.END].get(key) for key in ("reason", "place")}
    return trimmed


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A stored trial.

    Attributes:
        state: Optuna's name of the state, in lower case: `complete`, `pruned`, `fail`, `running`, `waiting`; or `paused`.
        value: validation accuracy of the last epoch, 0 to 1; None if the trial has no result, or if the study has several objectives.
        params: the sampled values; fixed values are only in `config`.
        run: the facts needed to repeat the trial: config, versions, device.
        origin: `baseline`, `by hand`, or empty for a sampled trial.
        copy_of: study and number of the original trial, such as `study/7`; empty if the trial is not a copy.
        attempts: one entry for each worker that took the trial.
        end: why the trial ended: `reason`, `traceback`, `place`, `diverged`.
        repeat: in a follow-up study, the repeated configuration and the number of the seed.
        rungs: the measurements inside the first epoch.
        audited_at: how far the trial was when it would have been stopped, in epochs; None if it would not, or if it was stopped.
        last_accuracy: the accuracy that an ended or paused trial was last seen with, 0 to 1.
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
    rungs: tuple[Rung, ...] = ()
    audited_at: float | None = None
    last_accuracy: float | None = None

    @classmethod
    def from_trial(cls, trial: FrozenTrial) -> TrialRow:
        """Read the attributes of a trial. If hpsearch did not write the trial, some fields are empty.

        Args:
            trial: a trial of Optuna.

        Returns:
            The row.

        Raises:
            StorageError: an attribute of the trial is damaged.
        """
        with readable(f"trial {trial.number}"):
            return cls._from_trial(trial)

    @classmethod
    def _from_trial(cls, trial: FrozenTrial) -> TrialRow:
        attrs = trial.user_attrs
        run = dict(json.loads(attrs.get(TrialKey.RUN, "{}")))
        has_value = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return cls(
            number=trial.number,
            state=state_of(trial),
            value=single_value(trial) if has_value else None,
            params=trial.params or trial.system_attrs.get("fixed_params", {}),
            config=read_config(trial),
            run=run,
            epochs=tuple(read_epochs(trial)),
            origin=attrs.get(TrialKey.ORIGIN, ""),
            copy_of=attrs.get(TrialKey.COPY_OF, ""),
            n_parameters=attrs.get(TrialKey.N_PARAMETERS),
            flops=attrs.get(TrialKey.FLOPS),
            attempts=tuple(attrs.get(TrialKey.ATTEMPTS, [])),
            end=attrs.get(TrialKey.END, {}),
            started=trial.datetime_start,
            finished=trial.datetime_complete,
            repeat=repeat_of(trial),
            rungs=tuple(read_rungs(trial)),
            audited_at=None if TrialKey.AUDIT not in attrs else float(attrs[TrialKey.AUDIT]),
            last_accuracy=last_accuracy(trial),
        )

    @property
    def model(self) -> str:
        """The name of the model; empty before the values of the trial are sampled."""
        return self.config.model.name if self.config else str(self.params.get("model", ""))

    @property
    def seconds(self) -> float:
        """The training time of all epochs, or of the part of the first epoch that is done."""
        return sum(epoch.seconds for epoch in self.epochs) if self.epochs or not self.rungs else self.rungs[-1].seconds

    @property
    def trained_epochs(self) -> float:
        """The number of epochs, or the share of the first epoch that is done."""
        return len(self.epochs) if self.epochs or not self.rungs else self.rungs[-1].share

    @property
    def is_finished(self) -> bool:
        """Whether the trial is complete, pruned or failed."""
        return self.state in ("complete", "pruned", "fail")


def read_trials(study: optuna.Study) -> list[TrialRow]:
    """Read all trials of a study. In a study of hpsearch, the trials of another program are left out.

    Args:
        study: a study of hpsearch or of plain Optuna.

    Returns:
        The trials in the order of their numbers.

    Raises:
        KeyError: the study was deleted.
    """
    return [TrialRow.from_trial(trial) for trial in read_frozen_trials(study)]


def read_frozen_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Read the trials of `read_trials` as Optuna's own trials. Their records may be damaged, and the intermediate values missing.

    Args:
        study: a study of hpsearch or of plain Optuna.

    Returns:
        The trials in the order of their numbers.

    Raises:
        KeyError: the study was deleted.
    """
    storage, study_id = get_storage(study), get_study_id(study)
    # Do not use the cache. The cache of a worker lacks attributes, and any other cache would keep all trials in memory.
    trials = storage.read_trials(study_id) if isinstance(storage, PlainCache) else storage.get_all_trials(study_id, deepcopy=False)
    return [trial for trial in trials if is_own_trial(trial)] if StudyKey.FILE in study.user_attrs else trials


def single_value(trial: FrozenTrial) -> float | None:
    """Return the value of a trial.

    Args:
        trial: a trial of any study.

    Returns:
        The value; None if the trial has none, or if its study has several objectives.
    """
    return trial.values[0] if trial.values is not None and len(trial.values) == 1 else None


def read_trial(study: optuna.Study, number: int) -> TrialRow:
    """Read one trial of a study.

    Args:
        study: a study of hpsearch or of plain Optuna.
        number: number of the trial.

    Returns:
        The trial.

    Raises:
        StudyNotFoundError: there is no trial of that number.
    """
    storage, study_id = get_storage(study), get_study_id(study)
    try:
        return TrialRow.from_trial(storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number)))
    except KeyError as error:
        count = storage.get_n_trials(study_id)
        known = f"0 to {count - 1}" if count else "none yet"
        raise StudyNotFoundError(f"no trial {number} in '{study.study_name}'", hint=f"Its trials: {known}.") from error


def repeat_of(trial: FrozenTrial) -> tuple[str, int] | None:
    """Return which configuration and which seed a trial of a follow-up study repeats.

    Args:
        trial: a trial of any study.

    Returns:
        The name of the configuration and the number of the seed; None if the study is not a follow-up study.
    """
    attrs = trial.user_attrs
    return (attrs[TrialKey.CANDIDATE], attrs[TrialKey.REPEAT]) if TrialKey.REPEAT in attrs else None


def repeat_attributes(candidate: str, repeat: int, config: TrainConfig) -> dict[str, Any]:
    """Return the user attributes of a new trial of a follow-up study.

    Args:
        candidate: name of the configuration that is repeated.
        repeat: number of the seed, counted from 1.
        config: the training config of the trial.

    Returns:
        The attributes. With them, a trial can be trained without the plan that made it.
    """
    return {TrialKey.CANDIDATE: candidate, TrialKey.REPEAT: repeat, TrialKey.RUN: _packed(_config_record(config))}


def read_config(trial: optuna.Trial | FrozenTrial) -> TrainConfig | None:
    """Read the stored training config of a trial.

    Args:
        trial: a trial of any study.

    Returns:
        The config; None if the trial has none yet.

    Raises:
        StorageError: the stored config is damaged.
    """
    stored = trial.user_attrs.get(TrialKey.RUN, "{}")
    with readable(f"trial {trial.number}"):
        run = json.loads(stored)
        return TrainConfig.from_dict(run["config"]) if "config" in run else None


def candidate_scores(trials: Sequence[FrozenTrial]) -> dict[str, dict[int, float]]:
    """Collect the accuracies of a follow-up study.

    Args:
        trials: all trials of the study.

    Returns:
        The validation accuracies of the complete repeats, by configuration and by number of the seed.
    """
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for trial in trials:
        repeat = repeat_of(trial)
        if repeat is not None and trial.state == TrialState.COMPLETE and trial.value is not None:
            scores[repeat[0]][repeat[1]] = trial.value
    return dict(scores)


def failed_candidates(trials: Sequence[FrozenTrial]) -> frozenset[str]:
    """Find the configurations of a follow-up study that failed too often.

    Args:
        trials: all trials of the study.

    Returns:
        The configurations that failed `MAX_FAILURES` times with one seed.
    """
    failures = Counter(repeat_of(trial) for trial in trials if trial.state == TrialState.FAIL)
    return frozenset(repeat[0] for repeat, count in failures.items() if repeat is not None and count >= MAX_FAILURES)


def is_copy(trial: FrozenTrial) -> bool:
    """Return whether a trial was trained in another study.

    Args:
        trial: a trial of any study.

    Returns:
        True if the trial is a copy.
    """
    return TrialKey.COPY_OF in trial.user_attrs


def is_own_trial(trial: FrozenTrial) -> bool:
    """Return whether a trial belongs to the search. Another program may have asked for a trial of its own in the same study.

    Args:
        trial: a trial of a study of hpsearch.

    Returns:
        True if hpsearch made or began the trial, or if the trial waits: whoever queued it asks hpsearch to train it.
    """
    attrs = trial.user_attrs
    return trial.state == TrialState.WAITING or TrialKey.ATTEMPTS in attrs or TrialKey.ORIGIN in attrs or TrialKey.RUN in attrs


def is_paused(trial: FrozenTrial) -> bool:
    """Return whether a trial was paused, and goes on only if it is promoted.

    Args:
        trial: a trial of any study.

    Returns:
        True if it waits at the rung where it was paused.
    """
    return trial.state == TrialState.WAITING and (pause := read_pause(trial)) is not None and not pause["promoted"]


def read_pause(trial: optuna.Trial | FrozenTrial) -> Mapping[str, Any] | None:
    """Read where a trial was last paused.

    Args:
        trial: a trial of any study.

    Returns:
        `at`, the number of epochs or the share of the first epoch, and `promoted`, whether the trial was promoted from there; None if it
        was never paused.

    Raises:
        StorageError: the stored value is damaged.
    """
    if TrialKey.PAUSE not in trial.user_attrs:
        return None
    with readable(f"trial {trial.number}"):
        pause: Mapping[str, Any] = trial.user_attrs[TrialKey.PAUSE]
        if type(pause["promoted"]) is not bool or type(pause["at"]) not in (int, float):
            raise TypeError(f"{TrialKey.PAUSE} is {show(pause)}")
        return pause


def state_of(trial: FrozenTrial) -> str:
    """Return the state of a trial.

    Args:
        trial: a trial of any study.

    Returns:
        Optuna's name of the state in lower case, or `paused`.
    """
    return "paused" if is_paused(trial) else trial.state.name.lower()


def trained_epochs(trial: FrozenTrial) -> float:
    """Return how far a trial has been trained.

    Args:
        trial: a trial with its intermediate values.

    Returns:
        The number of its epochs, or the share of the first epoch.
    """
    return len(trial.intermediate_values) or max((rung["share"] for rung in trial.user_attrs.get(TrialKey.RUNGS, ())), default=0)


def last_accuracy(trial: FrozenTrial) -> float | None:
    """Return the validation accuracy that a trial was last seen with.

    Args:
        trial: a trial with its intermediate values.

    Returns:
        The accuracy, 0 to 1; None if the trial runs, waits, failed or was not measured. A paused trial was measured.
    """
    if not (is_paused(trial) or trial.state in (TrialState.COMPLETE, TrialState.PRUNED)):
        return None
    if (value := single_value(trial)) is not None:
        return value
    if trial.intermediate_values:
        return trial.intermediate_values[max(trial.intermediate_values)]
    return next((rung.val_accuracy for rung in reversed(read_rungs(trial))), None)


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the budget.

    A copy, the repetition of a failed trial, or a trial of another program does not count.

    Args:
        trial: a trial of any study.

    Returns:
        True if the trial counts.
    """
    return is_own_trial(trial) and not is_copy(trial) and TrialKey.RETRY_OF not in trial.user_attrs


def write_attempt(trial: optuna.Trial, *, worker: str, run: str, at: float) -> list[dict[str, Any]]:
    """Store that a worker took a trial.

    Args:
        trial: a running trial.
        worker: name of the worker.
        run: id of the run.
        at: the time, in seconds since 1970.

    Returns:
        All attempts, the new attempt last. An attempt also has the number of epochs stored at that time.
    """
    earlier = trial.user_attrs.get(TrialKey.ATTEMPTS, [])
    attempts = [*earlier, {"worker": worker, "run": run, "at": round(at, 3), "epochs": len(read_epochs(trial))}]
    with transaction(trial):
        trial.set_user_attr(TrialKey.ATTEMPTS, attempts)
        if pause := read_pause(trial):
            trial.set_user_attr(TrialKey.PAUSE, {**pause, "promoted": True})
    return attempts


@dataclass(frozen=True, kw_only=True)
class Death:
    """The death of a worker that trained a trial.

    Attributes:
        cause: the signal or the exit code.
        epochs: number of epochs that the trial had when the worker took it.
        seconds: seconds from the claim to the death.
    """

    worker: str
    cause: str
    epochs: int
    seconds: float


def read_deaths(trial: optuna.Trial | FrozenTrial) -> list[Death]:
    """Read the deaths of a trial's workers.

    Args:
        trial: a trial of any study.

    Returns:
        The deaths that a supervisor saw, the oldest first.
    """
    return [Death(**stored) for stored in trial.user_attrs.get(TrialKey.DEATHS, [])]


def write_death(storage: BaseStorage, trial: FrozenTrial, death: Death) -> None:
    """Add the death of a worker to a trial that has not ended.

    Args:
        storage: the storage of the trial.
        trial: the trial.
        death: the death.
    """
    storage.set_trial_user_attr(get_trial_id(trial), TrialKey.DEATHS, [asdict(each) for each in (*read_deaths(trial), death)])


def write_clean_exit(trial: optuna.Trial) -> None:
    """Store that the worker left a trial on purpose, so that the attempt does not count as a death.

    Args:
        trial: a running trial with at least one attempt.
    """
    attempts = trial.user_attrs[TrialKey.ATTEMPTS]
    trial.set_user_attr(TrialKey.ATTEMPTS, [*attempts[:-1], {**attempts[-1], "left": True}])


def write_run(trial: optuna.Trial, config: TrainConfig, *, n_parameters: int, flops: int, facts: Mapping[str, Any]) -> None:
    """Store the cost of a trial and the facts needed to repeat the trial.

    Args:
        trial: a running trial.
        config: the training config of the trial.
        n_parameters: number of weights.
        flops: floating-point operations of the forward pass of one image.
        facts: versions, device and split hash.
    """
    run = _packed({**_config_record(config), **facts})
    # A continued trial has the same facts stored already, unless it continues on another machine.
    if trial.user_attrs.get(TrialKey.RUN) != run:
        with transaction(trial):
            trial.set_user_attr(TrialKey.RUN, run)
            trial.set_user_attr(TrialKey.N_PARAMETERS, n_parameters)
            trial.set_user_attr(TrialKey.FLOPS, flops)


def read_epochs(trial: optuna.Trial | FrozenTrial) -> list[Epoch]:
    """Read the stored epochs of a trial.

    Args:
        trial: a running or stored trial.

    Returns:
        The epochs in the order of their numbers.

    Raises:
        StorageError: the stored epochs are damaged.
    """
    stored = trial.user_attrs.get(TrialKey.EPOCHS, "[]")
    with readable(f"trial {trial.number}"):
        return [Epoch.from_dict(epoch) for epoch in json.loads(stored)]


def read_rungs(trial: optuna.Trial | FrozenTrial) -> list[Rung]:
    """Read the measurements of a trial inside its first epoch.

    Args:
        trial: a running or stored trial.

    Returns:
        The measurements in their order.

    Raises:
        StorageError: the stored measurements are damaged.
    """
    stored = trial.user_attrs.get(TrialKey.RUNGS, ())
    with readable(f"trial {trial.number}"):
        return [Rung.from_dict(rung) for rung in stored]


def write_rungs(trial: optuna.Trial, rungs: Sequence[Rung]) -> None:
    """Store the measurements of a trial inside its first epoch, and replace those stored before.

    Args:
        trial: a running trial.
        rungs: all measurements so far.
    """
    trial.set_user_attr(TrialKey.RUNGS, [asdict(rung) for rung in rungs])


def write_pause(trial: optuna.Trial, epochs: float, *, at: float) -> None:
    """Store that a trial is paused. After this, its state must be set to WAITING.

    Args:
        trial: a running trial with at least one attempt.
        epochs: number of epochs, or share of the first epoch, after which it is paused.
        at: the time, in seconds since 1970.
    """
    attempts = trial.user_attrs[TrialKey.ATTEMPTS]
    with transaction(trial):
        trial.set_user_attr(TrialKey.ATTEMPTS, [*attempts[:-1], {**attempts[-1], "left": True, "paused_at": round(at, 3)}])
        trial.set_user_attr(TrialKey.PAUSE, {"at": epochs, "promoted": False})


def write_epochs(trial: optuna.Trial, epochs: Sequence[Epoch]) -> None:
    """Store the epochs of a trial, and replace the epochs stored before.

    Args:
        trial: a running trial.
        epochs: all epochs so far.
    """
    trial.set_user_attr(TrialKey.EPOCHS, _packed([epoch.to_dict() for epoch in epochs]))


def write_end(trial: optuna.Trial, epochs: Sequence[Epoch], end: Mapping[str, Any]) -> None:
    """Store how a trial ended. This must be done before its final state is set, because a finished trial is read-only.

    Args:
        trial: a running trial.
        epochs: all epochs of the trial.
        end: `reason`, `traceback`, `place` or `diverged`; empty for a complete trial.
    """
    with transaction(trial):
        if epochs:
            last = epochs[-1]
            trial.set_user_attr(TrialKey.EPOCHS_DONE, last.number)
            trial.set_user_attr(TrialKey.SECONDS, round(sum(epoch.seconds for epoch in epochs), 2))
            trial.set_user_attr(TrialKey.TRAIN_ACCURACY, last.train_accuracy)
            trial.set_user_attr(TrialKey.GAP, round(last.train_accuracy - last.val_accuracy, 6))
        if end or TrialKey.END in trial.user_attrs:  # a worker may have died after it stored another end
            trial.set_user_attr(TrialKey.END, dict(end))


def transaction(trial: optuna.Trial) -> AbstractContextManager[None]:
    """Write all values of a block in one transaction, as `BatchingCache.transaction` does.

    Args:
        trial: a running trial.

    Returns:
        A context manager. If the storage is not a cache of hpsearch, each value is written by itself.
    """
    return trial.storage.transaction() if isinstance(trial.storage, PlainCache) else nullcontext()


@contextmanager
def readable(owner: str) -> Iterator[None]:
    """Raise a StorageError for any error of a block that reads stored data. Somebody has then changed the data.

    Args:
        owner: what the data belongs to, for the message.

    Yields:
        Nothing.

    Raises:
        StorageError: the stored data is damaged.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
        raise StorageError(
            f"the stored record of {owner} is damaged: {type(error).__name__}: {one_line(str(error))}",
            hint="Restore the database from a copy. hpsearch has not changed this record.",
        ) from error


def _config_record(config: TrainConfig) -> dict[str, Any]:
    return {"config": config.to_dict(), "digest": config.digest}


def _packed(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """The data that is stored with a study.

    Attributes:
        text: the text of the study file at the last run.
        path: path of the study file.
        comparable: the settings that all trials of the study share.
        auto_precision: the number format that the precision `auto` means, by model. It means `float32` for other models.
        split_hash: hash of the train/validation split; None before the first trial.
        run_seconds: seconds that each run has lasted, by the id of the run.
        stop_requests: number of times that `hpsearch stop` was called.
        held_out_readings: the readings of the test set for configs of the study, the oldest first. Each reading has the fields
            of `analysis.final_score.HeldOutReading`.
    """

    name: str
    text: str
    path: Path
    comparable: Mapping[str, Any]
    auto_precision: Mapping[str, str]
    split_hash: str | None
    run_seconds: Mapping[str, float]
    stop_requests: int
    held_out_readings: Sequence[Mapping[str, Any]]

    @property
    def seconds_spent(self) -> float:
        """The seconds of all runs together."""
        return sum(self.run_seconds.values())


def read_study(study: optuna.Study) -> StudyRow:
    """Read the data that is stored with a study.

    Args:
        study: a study that hpsearch made.

    Returns:
        The row.

    Raises:
        StudyNotFoundError: hpsearch did not make the study.
        StorageError: an attribute of the study is damaged.
    """
    attrs = study.user_attrs
    if StudyKey.FILE not in attrs:
        raise StudyNotFoundError(f"the study '{study.study_name}' was not made by hpsearch", hint="Give the study file another name.")

    def by_id(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in attrs.items() if key.startswith(prefix)}

    with readable(f"the study '{study.study_name}'"):
        return StudyRow(
            name=study.study_name,
            text=attrs[StudyKey.FILE]["text"],
            path=Path(attrs[StudyKey.FILE]["path"]),
            comparable=attrs[StudyKey.COMPARABLE],
            auto_precision=_auto_precision(attrs.get(StudyKey.AUTO_PRECISION, {})),
            split_hash=attrs.get(StudyKey.SPLIT_HASH),
            run_seconds=by_id(StudyKey.RUN_SECONDS),
            stop_requests=attrs.get(StudyKey.STOP_REQUESTS, 0),
            held_out_readings=sorted(by_id(StudyKey.HELD_OUT_READING).values(), key=lambda reading: (reading["at"], reading["id"])),
        )


def _auto_precision(stored: Any) -> Mapping[str, str]:
    if not isinstance(stored, dict) or not all(isinstance(each, str) and each in PRECISIONS for each in stored.values()):
        raise ValueError(f"{StudyKey.AUTO_PRECISION} is {show(stored)}")
    return stored


def is_own(study: optuna.Study) -> bool:
    """Return whether hpsearch made a study.

    Args:
        study: a study of hpsearch or of plain Optuna.

    Returns:
        True if hpsearch has stored an identity or a study file with it.
    """
    return any(key == StudyKey.FILE or key.startswith(StudyKey.IDENTITY) for key in study.user_attrs)


def require_own(study: optuna.Study, *, hint: str) -> None:
    """Raise an error if hpsearch did not make a study.

    Args:
        study: a study of hpsearch or of plain Optuna.
        hint: what the user can do with a study of another program.

    Raises:
        StudyNotFoundError: hpsearch did not make the study.
    """
    if not is_own(study):
        raise StudyNotFoundError(f"the study '{study.study_name}' was not made by hpsearch", hint=hint)


def read_identity(study: optuna.Study) -> str:
    """Return the identity of a study. A study that is deleted and made anew has another one, even if SQLite gives it the same ids.

    Args:
        study: a study of any program.

    Returns:
        The identity. It is empty if the study comes from version 0.1, or is a copy under another name, and no run has continued it.

    Raises:
        KeyError: the study was deleted.
    """
    return str(study.user_attrs.get(f"{StudyKey.IDENTITY}{study.study_name}", ""))


def ensure_identity(study: optuna.Study) -> str:
    """Give a study an identity if it has none. The caller must hold the creation lock.

    A copy made by Optuna has the attributes of its original. So it forgets the original's identity, and the original's files in the
    dashboard: the next sync would overwrite them.

    Args:
        study: a study that hpsearch made.

    Returns:
        The identity.
    """
    if identity := read_identity(study):
        return identity
    originals = [key for key, value in study.user_attrs.items() if key.startswith(StudyKey.IDENTITY) and value]
    if originals:
        storage, study_id = get_storage(study), get_study_id(study)
        for key in storage.get_study_system_attrs(study_id):
            if key.startswith(StudyKey.ARTIFACT):
                storage.set_study_system_attr(study_id, key, "null")
        storage.set_study_system_attr(study_id, StudyKey.SYNCED, {})
    for key in originals:
        study.set_user_attr(key, "")
    identity = uuid.uuid4().hex
    study.set_user_attr(f"{StudyKey.IDENTITY}{study.study_name}", identity)
    return identity


def write_study(
    study: optuna.Study, *, text: str, path: Path, comparable: Mapping[str, Any], auto_precision: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Store the study file of a study, and give the study an identity if it has none. The caller must hold the creation lock.

    Args:
        study: the study.
        text: text of the study file.
        path: path of the study file.
        comparable: the settings that all trials share.
        auto_precision: the number format that the precision `auto` means, by model. A study keeps what it has stored first.
    """
    ensure_identity(study)
    if StudyKey.FILE not in study.user_attrs:
        study.set_user_attr(StudyKey.AUTO_PRECISION, dict(auto_precision))
    study.set_user_attr(StudyKey.COMPARABLE, dict(comparable))
    # The file comes last. A study with a file has all the rest, also if this process is killed between two writes.
    study.set_user_attr(StudyKey.FILE, {"text": text, "path": str(path)})


def write_split_hash(study: optuna.Study, split_hash: str) -> None:
    """Store the hash of the train/validation split that all trials of a study share.

    Args:
        study: the study.
        split_hash: hash of the split.
    """
    study.set_user_attr(StudyKey.SPLIT_HASH, split_hash)


def write_run_seconds(study: optuna.Study, run: str, seconds: float) -> None:
    """Store how long a run has lasted.

    Args:
        study: the study.
        run: id of the run.
        seconds: seconds since the start of the run.
    """
    study.set_user_attr(f"{StudyKey.RUN_SECONDS}{run}", round(seconds, 1))


def request_stop(study: optuna.Study) -> None:
    """Ask all workers of a study, on all machines, to put their trials back into the queue and end.

    Args:
        study: the study.
    """
    study.set_user_attr(StudyKey.STOP_REQUESTS, study.user_attrs.get(StudyKey.STOP_REQUESTS, 0) + 1)


def write_held_out_reading(study: optuna.Study, reading: Mapping[str, Any]) -> int:
    """Store a reading of the test set, or replace the stored reading of the same id.

    Args:
        study: the study whose config was evaluated.
        reading: the fields of `analysis.final_score.HeldOutReading`.

    Returns:
        The number of readings for configs of the study.
    """
    study.set_user_attr(f"{StudyKey.HELD_OUT_READING}{reading['id']}", dict(reading))
    return len(read_study(study).held_out_readings)
