"""What hpsearch stores in a database: the only module that knows the keys of the attributes.

A study stays a plain Optuna study. What is written here is read back as typed rows.
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
"""The origins of a trial that no sampler drew."""
MAX_FAILURES = 2
"""A configuration that fails this often with one seed is not repeated again."""
PREFIX = "hpsearch:"
"""Marks attributes that only hpsearch reads."""


class StudyKey:
    """The user attributes of a study. A key that ends with a colon is followed by an id."""

    FILE = "hpsearch:study_file"
    COMPARABLE = "hpsearch:comparable"
    SPLIT_HASH = "hpsearch:split_hash"
    RUN_SECONDS = "hpsearch:seconds_spent:"
    """One key for each run."""
    STOP_REQUESTS = "hpsearch:stop_requests"
    """How often `hpsearch stop` was called."""
    PLAN = "hpsearch:plan"
    """In a follow-up study: which configurations are repeated, as JSON text."""
    N_IMAGES = "hpsearch:images"
    """In a follow-up study: the number of training images in the data set."""
    HELD_OUT_READING = "hpsearch:test_reading:"
    """One key for each reading of the test set, so that none overwrites another."""
    SYNCED = "hpsearch:fed"
    """What was last written for the dashboard. A system attribute, which the dashboard does not show."""


class TrialKey:
    """The user attributes of a trial. Those without the prefix are numbers, which the dashboard shows as columns."""

    N_PARAMETERS = "parameters"
    FLOPS = "flops"
    SECONDS = "seconds"
    TRAIN_ACCURACY = "train_accuracy"
    GAP = "gap"
    EPOCHS_DONE = "epochs_done"
    ORIGIN = "hpsearch:origin"
    RETRY_OF = "hpsearch:retry_of"
    """The number of the failed trial that this one repeats."""
    COPY_OF = "hpsearch:copy_of"
    """The study and number of the original."""
    RUN = "hpsearch:run"
    EPOCHS = "hpsearch:epochs"
    """Both are JSON text. Decoded they are two thirds of a trial, and most readers need neither."""
    ATTEMPTS = "hpsearch:attempts"
    END = "hpsearch:end"
    CANDIDATE = "candidate"
    """In a follow-up study: the configuration that is repeated."""
    REPEAT = "repeat"
    """In a follow-up study: the number of its seed, from 1."""


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
    """Reduce the user attributes of a finished trial to those that a search reads.

    Args:
        attributes: all user attributes of the trial.

    Returns:
        The reduced ones: of an attempt only the run, of an end only the reason.
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
        params: the sampled values; fixed ones are in `config` only.
        run: what is needed to repeat the trial: config, versions, device.
        origin: `baseline`, `by hand`, or empty for a sampled trial.
        copy_of: study and number of the original, `study/7`, if a warm start copied the trial; else empty.
        attempts: one entry for each worker that took the trial.
        end: why the trial ended: `reason`, `traceback`, `diverged`.
        repeat: in a follow-up study, the repeated configuration and the number of its seed.
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

    @classmethod
    def from_trial(cls, trial: FrozenTrial) -> TrialRow:
        """Read the attributes of a trial. A trial that hpsearch did not write has gaps.

        Args:
            trial: of Optuna.

        Returns:
            The row.
        """
        attrs = trial.user_attrs
        run = json.loads(attrs.get(TrialKey.RUN, "{}"))
        has_value = trial.values is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return cls(
            number=trial.number,
            state=trial.state.name.lower(),
            value=trial.value if has_value else None,
            params=trial.params or trial.system_attrs.get("fixed_params", {}),
            config=TrainConfig.from_dict(run["config"]) if "config" in run else None,
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
        )

    @property
    def model(self) -> str:
        """The model's name; empty before anything was sampled."""
        return self.config.model.name if self.config else str(self.params.get("model", ""))

    @property
    def seconds(self) -> float:
        """The training time of all epochs."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def is_finished(self) -> bool:
        """Whether the trial is complete, pruned or failed."""
        return self.state in ("complete", "pruned", "fail")


def read_trials(study: optuna.Study) -> list[TrialRow]:
    """Read all trials of a study.

    Args:
        study: of hpsearch or of plain Optuna.

    Returns:
        The trials in the order of their numbers.

    Raises:
        KeyError: the study was deleted.
    """
    storage, study_id = get_storage(study), get_study_id(study)
    # The cache is not used: that of a worker lacks attributes, and any other would keep all trials in memory.
    trials = storage.read_trials(study_id) if isinstance(storage, PlainCache) else storage.get_all_trials(study_id, deepcopy=False)
    return [TrialRow.from_trial(trial) for trial in trials]


def read_trial(study: optuna.Study, number: int) -> TrialRow:
    """Read one trial of a study.

    Args:
        study: of hpsearch or of plain Optuna.
        number: of the trial.

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
    """Return what a trial of a follow-up study repeats.

    Args:
        trial: of any study.

    Returns:
        The configuration and the number of its seed; None in another study.
    """
    attrs = trial.user_attrs
    return (attrs[TrialKey.CANDIDATE], attrs[TrialKey.REPEAT]) if TrialKey.REPEAT in attrs else None


def candidate_scores(trials: Sequence[FrozenTrial]) -> dict[str, dict[int, float]]:
    """Collect the accuracies of a follow-up study.

    Args:
        trials: all trials of the study.

    Returns:
        For each configuration the validation accuracy of each complete repeat.
    """
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for trial in trials:
        repeat = repeat_of(trial)
        if repeat is not None and trial.state == TrialState.COMPLETE and trial.value is not None:
            scores[repeat[0]][repeat[1]] = trial.value
    return dict(scores)


def failed_candidates(trials: Sequence[FrozenTrial]) -> frozenset[str]:
    """Find the configurations of a follow-up study that cannot be trained.

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
        trial: of any study.

    Returns:
        Whether it was.
    """
    return TrialKey.COPY_OF in trial.user_attrs


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Return whether a trial uses up the budget: a copy does not, nor the repetition of a failed trial.

    Args:
        trial: of any study.

    Returns:
        Whether it does.
    """
    return not is_copy(trial) and TrialKey.RETRY_OF not in trial.user_attrs


def write_attempt(trial: optuna.Trial, *, worker: str, run: str, at: float) -> list[dict[str, Any]]:
    """Store that a worker took a trial.

    Args:
        trial: a running trial.
        worker: name of the worker.
        run: id of the run.
        at: the time, in seconds since 1970.

    Returns:
        All attempts, this one last: worker, run, time and the number of epochs stored at that time.
    """
    earlier = trial.user_attrs.get(TrialKey.ATTEMPTS, [])
    attempts = [*earlier, {"worker": worker, "run": run, "at": round(at, 3), "epochs": len(read_epochs(trial))}]
    trial.set_user_attr(TrialKey.ATTEMPTS, attempts)
    return attempts


def write_clean_exit(trial: optuna.Trial) -> None:
    """Store that the worker left a trial on purpose, and did not die.

    Args:
        trial: a running trial with at least one attempt.
    """
    attempts = trial.user_attrs[TrialKey.ATTEMPTS]
    trial.set_user_attr(TrialKey.ATTEMPTS, [*attempts[:-1], {**attempts[-1], "left": True}])


def write_run(trial: optuna.Trial, config: TrainConfig, *, n_parameters: int, flops: int, facts: Mapping[str, Any]) -> None:
    """Store what is needed to repeat a trial, and its cost.

    Args:
        trial: a running trial.
        config: its training config.
        n_parameters: number of weights.
        flops: of one forward pass of one image.
        facts: versions, device and split hash.
    """
    run = _packed({"config": config.to_dict(), "digest": config.digest, **facts})
    # A continued trial has the same run stored, unless it continues on another machine.
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
        The epochs, the first one first.
    """
    return [Epoch.from_dict(stored) for stored in json.loads(trial.user_attrs.get(TrialKey.EPOCHS, "[]"))]


def write_epochs(trial: optuna.Trial, epochs: Sequence[Epoch]) -> None:
    """Store the epochs of a trial, in place of those stored before.

    Args:
        trial: a running trial.
        epochs: all epochs so far.
    """
    trial.set_user_attr(TrialKey.EPOCHS, _packed([epoch.to_dict() for epoch in epochs]))


def write_end(trial: optuna.Trial, epochs: Sequence[Epoch], end: Mapping[str, Any]) -> None:
    """Store how a trial ended, before its state is set: a finished trial is read-only.

    Args:
        trial: a running trial.
        epochs: all epochs.
        end: `reason`, `traceback` or `diverged`; empty for a complete trial.
    """
    with transaction(trial):
        if epochs:
            last = epochs[-1]
            trial.set_user_attr(TrialKey.EPOCHS_DONE, last.number)
            trial.set_user_attr(TrialKey.SECONDS, round(sum(epoch.seconds for epoch in epochs), 2))
            trial.set_user_attr(TrialKey.TRAIN_ACCURACY, last.train_accuracy)
            trial.set_user_attr(TrialKey.GAP, round(last.train_accuracy - last.val_accuracy, 6))
        if end:
            trial.set_user_attr(TrialKey.END, dict(end))


def transaction(trial: optuna.Trial) -> AbstractContextManager[None]:
    """Write all values of a block in one transaction, as `BatchingCache.transaction` does.

    Args:
        trial: a running trial.

    Returns:
        A context manager; without a store's cache each value is written by itself.
    """
    return trial.storage.transaction() if isinstance(trial.storage, PlainCache) else nullcontext()


def _packed(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What is stored with a study.

    Attributes:
        text: the study file as it was last run.
        path: of the study file.
        comparable: what all its trials share.
        split_hash: of the train/validation split; None before the first trial.
        run_seconds: how long each run has lasted, by its id.
        stop_requests: how often `hpsearch stop` was called.
        held_out_readings: the readings of the test set for configs of the study, as `analysis.final_score.HeldOutReading`
            defines them, the oldest first.
    """

    name: str
    text: str
    path: Path
    comparable: Mapping[str, Any]
    split_hash: str | None
    run_seconds: Mapping[str, float]
    stop_requests: int
    held_out_readings: Sequence[Mapping[str, Any]]

    @property
    def seconds_spent(self) -> float:
        """The time of all runs."""
        return sum(self.run_seconds.values())


def read_study(study: optuna.Study) -> StudyRow:
    """Read what is stored with a study.

    Args:
        study: of hpsearch.

    Returns:
        The row.

    Raises:
        StudyNotFoundError: hpsearch did not make the study.
    """
    attrs = study.user_attrs
    if StudyKey.FILE not in attrs:
        raise StudyNotFoundError(f"the study '{study.study_name}' was not made by hpsearch", hint="Give the study file another name.")

    def by_id(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in attrs.items() if key.startswith(prefix)}

    return StudyRow(
        name=study.study_name,
        text=attrs[StudyKey.FILE]["text"],
        path=Path(attrs[StudyKey.FILE]["path"]),
        comparable=attrs[StudyKey.COMPARABLE],
        split_hash=attrs.get(StudyKey.SPLIT_HASH),
        run_seconds=by_id(StudyKey.RUN_SECONDS),
        stop_requests=attrs.get(StudyKey.STOP_REQUESTS, 0),
        held_out_readings=sorted(by_id(StudyKey.HELD_OUT_READING).values(), key=lambda reading: (reading["at"], reading["id"])),
    )


def write_study(study: optuna.Study, *, text: str, path: Path, comparable: Mapping[str, Any]) -> None:
    """Store the study file of a study.

    Args:
        study: the study.
        text: of the study file.
        path: of the study file.
        comparable: what all trials share.
    """
    study.set_user_attr(StudyKey.FILE, {"text": text, "path": str(path)})
    study.set_user_attr(StudyKey.COMPARABLE, dict(comparable))


def write_split_hash(study: optuna.Study, split_hash: str) -> None:
    """Store the train/validation split that the trials of a study share.

    Args:
        study: the study.
        split_hash: of the split.
    """
    study.set_user_attr(StudyKey.SPLIT_HASH, split_hash)


def write_run_seconds(study: optuna.Study, run: str, seconds: float) -> None:
    """Store how long a run has lasted.

    Args:
        study: the study.
        run: id of the run.
        seconds: since its start.
    """
    study.set_user_attr(f"{StudyKey.RUN_SECONDS}{run}", round(seconds, 1))


def request_stop(study: optuna.Study) -> None:
    """Ask all workers of a study, on all machines, to put their trials back into the queue and end.

    Args:
        study: the study.
    """
    study.set_user_attr(StudyKey.STOP_REQUESTS, study.user_attrs.get(StudyKey.STOP_REQUESTS, 0) + 1)


def write_held_out_reading(study: optuna.Study, reading: Mapping[str, Any]) -> int:
    """Store a reading of the test set, or replace the stored one of the same id.

    Args:
        study: whose config was evaluated.
        reading: the fields of `analysis.final_score.HeldOutReading`.

    Returns:
        The number of readings for configs of the study.
    """
    study.set_user_attr(f"{StudyKey.HELD_OUT_READING}{reading['id']}", dict(reading))
    return len(read_study(study).held_out_readings)
