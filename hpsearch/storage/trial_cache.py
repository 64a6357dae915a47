"""The caches of trials in a process: each study of a store reads and writes through one of them."""

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
"""Makes a call that asks the database, again after an outage."""
Trim = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Reduces the user attributes of a finished trial to those that a search needs."""
Row = dict[str, Any]

INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
KEY_COLUMNS = {
    "TrialParamModel": "param_name",
    "TrialUserAttributeModel": "key",
    "TrialSystemAttributeModel": "key",
    "TrialIntermediateValueModel": "step",
}
"""The tables of what is written to trials, and the column that tells the rows of one trial apart."""
TPE_DRAW = "tpe:relative_params:"
"""Optuna's TPE notes a draw under this key, for others to see while the trial runs. Of a finished trial it reads the parameters."""

Value = TypeVar("Value")


class PlainCache(CachedStorage):
    """Optuna's own cache and reader: for an Optuna whose private parts hpsearch does not know.

    Args:
        rdb: the database.
    """

    def __init__(self, rdb: RDBStorage) -> None:
        super().__init__(rdb)
        self._rdb = rdb

    def transaction(self) -> AbstractContextManager[None]:
        """Group what a block writes to trials; here each value is written by itself.

        Returns:
            A context manager.
        """
        return nullcontext()

    def read_trials(self, study_id: int, *, unfinished: Collection[int] = (), last_finished: int = -1) -> list[FrozenTrial]:
        """Read whole trials of a study from the database, past the cache, but perhaps without intermediate values.

        Args:
            study_id: id of the study.
            unfinished: ids of trials that were not finished at an earlier reading.
            last_finished: highest id of those that were; trials with a higher id are read too. -1 for the whole study.

        Returns:
            The trials in the order of their numbers.

        Raises:
            KeyError: the study does not exist.
        """
        trials = self._rdb.get_all_trials(study_id, deepcopy=False)
        return [trial for trial in trials if get_trial_id(trial) > last_finished or get_trial_id(trial) in unfinished]

    def read_running(self, study_id: int) -> list[tuple[int, int]]:
        """Read which trials of a study are running, past the cache.

        Args:
            study_id: id of the study.

        Returns:
            Id and number of each, in the order of their numbers.

        Raises:
            KeyError: the study does not exist.
        """
        running = self._rdb.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [(get_trial_id(trial), trial.number) for trial in running]


class BatchingCache(PlainCache):
    """A cache that reads with one statement for each table, and writes several values in one transaction.

    Args:
        rdb: the database.
        retry: makes each call to the database.
    """

    def __init__(self, rdb: RDBStorage, retry: Retry) -> None:
        super().__init__(rdb)
        self._retry = retry
        self._batch = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what the block writes to trials, except their states, in one transaction at its end.

        A transaction costs more than what it writes. Before the end nobody can read the values, not even the block. A block that
        fails writes nothing. Existing values are replaced. A block inside another one is part of it.

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
        # As in Optuna, a row that the database refuses is ignored: it belongs to a trial that was just deleted.
        with create_scoped_session(self._rdb.scoped_session, ignore_integrity_error=True) as session:
            for trial_id in {row["trial_id"] for of_table in rows.values() for row in of_table}:
                trial = models.TrialModel.find_or_raise_by_id(trial_id, session)
                self._rdb.check_trial_is_updatable(trial_id, trial.state)
            for name, of_table in rows.items():
                session.connection().execute(_upsert(self._rdb.engine.name, name, tuple(of_table[0])), of_table)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a user attribute; see `BaseStorage` and `transaction`."""
        self._add("TrialUserAttributeModel", {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute; see `BaseStorage` and `transaction`."""
        self._add("TrialSystemAttributeModel", {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Write a reported value; see `BaseStorage` and `transaction`."""
        value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        self._add("TrialIntermediateValueModel", row)

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution) -> None:
        """Write a sampled value; see `BaseStorage` and `transaction`."""
        with self._lock:
            study = self._studies[self._trial_id_to_study_id_and_number[trial_id][0]]
            if param_name not in study.param_distribution:
                earlier = (trial.distributions[param_name] for trial in study.trials.values() if param_name in trial.distributions)
                study.param_distribution[param_name] = next(earlier, distribution)
            check_distribution_compatibility(study.param_distribution[param_name], distribution)
        row = {"trial_id": trial_id, "param_name": param_name, "param_value": param_value_internal}
        self._add("TrialParamModel", {**row, "distribution_json": distribution_to_json(distribution)})

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials of a study by number, as far as this cache keeps them; see `BaseStorage`."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            known = self._studies[study_id].trials
            # A trial calls this several times. Sorting thousands of numbers is much faster than sorting trials by number.
            trials = [known[number] for number in sorted(known) if states is None or known[number].state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial: a finished one from memory, any other from the database; see `BaseStorage`."""
        with self._lock:
            finished = self._get_cached_trial(trial_id)
        trial: FrozenTrial = finished or self._retry(lambda: trial_reader.read_trial(self._rdb, trial_id))
        return trial

    def read_trials(self, study_id: int, *, unfinished: Collection[int] = (), last_finished: int = -1) -> list[FrozenTrial]:
        """Read whole trials of a study, without intermediate values; see `PlainCache`."""
        return self._read(study_id, unfinished, last_finished, intermediate_values=False)

    def read_running(self, study_id: int) -> list[tuple[int, int]]:
        """Read which trials of a study are running; see `PlainCache`."""
        running: list[tuple[int, int]] = self._retry(lambda: trial_reader.read_running(self._rdb, study_id))
        return running

    def _read(self, study_id: int, unfinished: Collection[int], last_finished: int, *, intermediate_values: bool) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._retry(
            lambda: trial_reader.read_trials(
                self._rdb, study_id, intermediate_values=intermediate_values, unfinished=unfinished, last_finished=last_finished
            )
        )
        return trials

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read the trials that were not finished at the last reading, and the new ones."""
        with self._lock:
            study = self._studies.setdefault(study_id, StudyInfo())
            unfinished = study.unfinished_trial_ids
            trials = self._read(study_id, unfinished, study.last_finished_trial_id, intermediate_values=True)
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    unfinished.discard(get_trial_id(trial))
                    # A trial may end before one with a lower number, which then is in `unfinished`.
                    study.last_finished_trial_id = max(study.last_finished_trial_id, get_trial_id(trial))
                else:
                    unfinished.add(get_trial_id(trial))


@cache
def _upsert(dialect: str, name: str, columns: tuple[str, ...]) -> Insert:
    """The statement that inserts or replaces rows of a table. Making one takes as long as running it."""
    insert: Any = INSERTS[dialect](getattr(models, name).__table__)
    keys = ("trial_id", KEY_COLUMNS[name])
    changed = {column: insert.excluded[column] for column in columns if column not in keys}
    upsert: Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    return upsert


class TrimmedCache(BatchingCache):
    """A cache for a worker, which lives as long as its search: it keeps of finished trials only what a search needs.

    The rest stays in the database. Trials share equal names, distributions and attributes.

    Args:
        rdb: the database.
        retry: makes each call to the database.
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
