"""The caches of trials in a process. All studies of a store read and write through the cache of the store."""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Callable, Collection, Container, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite

from hpsearch.storage import trial_reader
from hpsearch.storage.optuna_internals import CachedStorage, StudyInfo, create_scoped_session, get_trial_id, models

Retry = Callable[[Callable[[], Any]], Any]
"""Makes a call to the database, and repeats the call after an outage."""
Trim = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Reduces the user attributes of a finished trial to the attributes that a search needs."""
Row = dict[str, Any]

INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
KEY_COLUMNS = {
    "TrialParamModel": "param_name",
    "TrialUserAttributeModel": "key",
    "TrialSystemAttributeModel": "key",
    "TrialIntermediateValueModel": "step",
}
"""The tables that hold values of trials, each with a column in which all rows of one trial differ."""
TPE_DRAW = "tpe:relative_params:"
"""Optuna's TPE sampler stores a draw under this key, so that other workers see the draw while the trial runs.

For a finished trial, the sampler reads the parameters instead.
"""

Value = TypeVar("Value")


class PlainCache(CachedStorage):
    """Optuna's own cache and reader. It is used if hpsearch does not know the private parts of the installed Optuna.

    Args:
        rdb: the database.
    """

    def __init__(self, rdb: RDBStorage) -> None:
        super().__init__(rdb)
        self._rdb = rdb

    def transaction(self) -> AbstractContextManager[None]:
        """Write the values of a block to trials. In this class each value is written by itself, and not in one transaction.

        Returns:
            A context manager.
        """
        return nullcontext()

    def read_trials(self, study_id: int, *, unfinished: Collection[int] = (), last_finished: int = -1) -> list[FrozenTrial]:
        """Read trials of a study from the database, not from the cache. The intermediate values may be missing.

        Args:
            study_id: id of the study.
            unfinished: ids of trials that were not finished at an earlier reading.
            last_finished: highest id of the trials that were finished at the earlier reading; -1 to read the whole study.
                All trials with a higher id are read too.

        Returns:
            The trials in the order of their numbers.

        Raises:
            KeyError: the study does not exist.
        """
        trials = self._rdb.get_all_trials(study_id, deepcopy=False)
        return [trial for trial in trials if get_trial_id(trial) > last_finished or get_trial_id(trial) in unfinished]

    def read_running(self, study_id: int) -> list[tuple[int, int]]:
        """Read which trials of a study are running, from the database and not from the cache.

        Args:
            study_id: id of the study.

        Returns:
            Id and number of each running trial, in the order of the numbers.

        Raises:
            KeyError: the study does not exist.
        """
        running = self._rdb.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [(get_trial_id(trial), trial.number) for trial in running]

    def read_study_names(self) -> list[str]:
        """Read the names of all studies.

        Returns:
            The names.
        """
        return [study.study_name for study in self._rdb.get_all_studies()]


class BatchingCache(PlainCache):
    """A cache that reads with one statement for each table, and writes several values in one transaction.

    Args:
        rdb: the database.
        retry: makes each call to the database, and repeats the call after an outage.
    """

    def __init__(self, rdb: RDBStorage, retry: Retry) -> None:
        super().__init__(rdb)
        self._retry = retry
        self._batch = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write the values of a block to trials in one transaction, at the end of the block. States of trials are written at once.

        One transaction is faster, because a transaction costs more time than the values in it. Before the end of the block nobody
        can read the values, not even the block itself. If the block fails, nothing is written. Existing values are replaced.
        A block inside another block belongs to the transaction of the outer block.

        Yields:
            Nothing.

        Raises:
            KeyError: a trial does not exist.
            UpdateFinishedTrialError: a trial is finished.
        """
        if getattr(self._batch, "rows", None) is not None:
            yield
            return
        rows: dict[str, list[Row]] = {}
        self._batch.rows = rows
        try:
            yield
        finally:
            self._batch.rows = None
        if rows:
            self._retry(lambda: self._write(rows))

    def _add(self, name: str, row: Row) -> None:
        with self.transaction():
            self._batch.rows.setdefault(name, []).append(row)

    def _write(self, rows: Mapping[str, list[Row]]) -> None:
        # As in Optuna, a row that the database refuses is ignored. Such a row belongs to a trial that was just deleted.
        with create_scoped_session(self._rdb.scoped_session, ignore_integrity_error=True) as session:
            for trial_id in {row["trial_id"] for of_table in rows.values() for row in of_table}:
                trial = models.TrialModel.find_or_raise_by_id(trial_id, session)
                self._rdb.check_trial_is_updatable(trial_id, trial.state)
            for name, of_table in rows.items():
                session.connection().execute(_upsert(self._rdb.engine.name, name, tuple(of_table[0])), of_table)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a user attribute of a trial. Inside a `transaction`, it is written at the end of the block."""
        self._add("TrialUserAttributeModel", {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute of a trial. Inside a `transaction`, it is written at the end of the block."""
        self._add("TrialSystemAttributeModel", {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Write a value that a trial reported. Inside a `transaction`, it is written at the end of the block."""
        value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        self._add("TrialIntermediateValueModel", row)

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution) -> None:
        """Write a sampled value of a trial. Inside a `transaction`, it is written at the end of the block."""
        with self._lock:
            study = self._studies[self._trial_id_to_study_id_and_number[trial_id][0]]
            if param_name not in study.param_distribution:
                earlier = (trial.distributions[param_name] for trial in study.trials.values() if param_name in trial.distributions)
                study.param_distribution[param_name] = next(earlier, distribution)
            check_distribution_compatibility(study.param_distribution[param_name], distribution)
        row = {"trial_id": trial_id, "param_name": param_name, "param_value": param_value_internal}
        self._add("TrialParamModel", {**row, "distribution_json": distribution_to_json(distribution)})

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers. In a `TrimmedCache`, finished trials lack some attributes."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            known = self._studies[study_id].trials
            # This method is called several times in each trial. Sorting thousands of numbers is much faster than sorting trials by number.
            trials = [known[number] for number in sorted(known) if states is None or known[number].state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial. A finished trial comes from memory, and any other trial comes from the database."""
        with self._lock:
            finished = self._get_cached_trial(trial_id)
        trial: FrozenTrial = finished or self._retry(lambda: trial_reader.read_trial(self._rdb, trial_id))
        return trial

    def read_trials(self, study_id: int, *, unfinished: Collection[int] = (), last_finished: int = -1) -> list[FrozenTrial]:
        """Read trials of a study from the database, without their intermediate values."""
        return self._read(study_id, unfinished, last_finished, intermediate_values=False)

    def read_running(self, study_id: int) -> list[tuple[int, int]]:
        """Read which trials of a study are running, from the database."""
        running: list[tuple[int, int]] = self._retry(lambda: trial_reader.read_running(self._rdb, study_id))
        return running

    def read_study_names(self) -> list[str]:
        """Read the names of all studies, without their attributes."""
        names: list[str] = self._retry(lambda: trial_reader.read_study_names(self._rdb))
        return names

    def _read(self, study_id: int, unfinished: Collection[int], last_finished: int, *, intermediate_values: bool) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._retry(
            lambda: trial_reader.read_trials(
                self._rdb, study_id, intermediate_values=intermediate_values, unfinished=unfinished, last_finished=last_finished
            )
        )
        return trials

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read the trials that were not finished at the last reading, and the new trials."""
        with self._lock:
            study = self._studies.setdefault(study_id, StudyInfo())
            unfinished = study.unfinished_trial_ids
            trials = self._read(study_id, unfinished, study.last_finished_trial_id, intermediate_values=True)
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    unfinished.discard(get_trial_id(trial))
                    # A trial may end before a trial with a lower id. The trial with the lower id is then in `unfinished`.
                    study.last_finished_trial_id = max(study.last_finished_trial_id, get_trial_id(trial))
                else:
                    unfinished.add(get_trial_id(trial))


@cache
def _upsert(dialect: str, name: str, columns: tuple[str, ...]) -> Insert:
    """Return the statement that inserts or replaces rows of a table. It is cached, because making it takes as long as running it."""
    insert: Any = INSERTS[dialect](getattr(models, name).__table__)
    keys = ("trial_id", KEY_COLUMNS[name])
    changed = {column: insert.excluded[column] for column in columns if column not in keys}
    upsert: Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    return upsert


class TrimmedCache(BatchingCache):
    """A cache for a worker. It keeps only the parts of finished trials that a search needs.

    This saves memory, because a worker lives as long as its search. The other parts stay in the database. Equal names,
    distributions and attributes are kept only one time, and the trials share them.

    Args:
        rdb: the database.
        retry: makes each call to the database, and repeats the call after an outage.
        trim: reduces the user attributes of a finished trial.
    """

    def __init__(self, rdb: RDBStorage, retry: Retry, trim: Trim) -> None:
        super().__init__(rdb, retry)
        self._trim_attributes = trim
        self._shared: dict[Hashable, Any] = {}

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            if trial.state.is_finished():
                self._trim(trial)
        super()._add_trials_to_cache(study_id, trials)

    def _trim(self, trial: FrozenTrial) -> None:
        attributes = self._trim_attributes(trial.user_attrs)
        trial.user_attrs = self._share(json.dumps(attributes, sort_keys=True), attributes)
        trial.system_attrs = {key: value for key, value in trial.system_attrs.items() if not key.startswith(TPE_DRAW)}
        trial.distributions = self._share(tuple(trial.distributions.items()), trial.distributions)
        values = trial.params
        trial.params = {name: _interned(values[name]) for name in trial.distributions}

    def _share(self, key: Hashable, value: Value) -> Value:
        shared: Value = self._shared.setdefault(key, value)
        return shared


def _interned(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value
