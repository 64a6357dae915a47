"""Optuna's cache of trials in a process, which reads by one statement a table and writes several things in one transaction."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, cast

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite

from hpsearch.storage.trial_reader import trial_in, trials_in

Outlast = Callable[[Callable[[], Any]], Any]
Row = dict[str, Any]

INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
KEYS = {
    models.TrialParamModel: "param_name",
    models.TrialUserAttributeModel: "key",
    models.TrialSystemAttributeModel: "key",
    models.TrialIntermediateValueModel: "step",
}
"""What is written of trials, one thing a row: the tables, and what tells the rows of a trial apart."""


class BatchingCache(_CachedStorage):
    """Optuna's cache over a database, but for how it reads and writes.

    Args:
        outlast: makes a call that asks the database, and waits where that is away.
    """

    def __init__(self, backend: RDBStorage, outlast: Outlast) -> None:
        super().__init__(backend)
        self._database = backend
        self._outlast = outlast
        self._block = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what the block writes of trials, but for their states, in one transaction at its end.

        A transaction costs more than what is written in it. Until the end nobody reads any of it, the block itself included, and
        where the block fails it is as if it had never been. What is there already is written over. A block within a block is
        part of it.

        Raises:
            KeyError: a trial is no more.
            UpdateFinishedTrialError: a trial is over.
        """
        if getattr(self._block, "rows", None) is not None:
            yield
            return
        rows: dict[Any, list[Row]] = {}
        self._block.rows = rows
        try:
            yield
        finally:
            self._block.rows = None
        if rows:
            self._outlast(lambda: self._write(rows))

    def _keep(self, table: Any, row: Row) -> None:
        rows = getattr(self._block, "rows", None)
        if rows is None:
            with self.transaction():
                self._keep(table, row)
        else:
            rows.setdefault(table, []).append(row)

    def _write(self, rows: Mapping[Any, Sequence[Row]]) -> None:
        # As Optuna's: a row that the database refuses belongs to a trial that is just deleted, and the next who reads it says so.
        with _create_scoped_session(self._database.scoped_session, True) as session:
            for trial_id in {row["trial_id"] for some in rows.values() for row in some}:
                trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session)
                self._database.check_trial_is_updatable(trial_id, trial.state)
            for table, some in rows.items():
                session.connection().execute(_upsert(self._database.engine.name, table, tuple(some[0])), list(some))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._keep(models.TrialUserAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._keep(models.TrialSystemAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's."""
        table = models.TrialIntermediateValueModel
        value, kind = table.intermediate_value_to_stored_repr(intermediate_value)
        self._keep(table, {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind})

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution) -> None:
        """As Optuna's.

        Raises:
            ValueError: a parameter of that name has another kind of distribution.
        """
        with self._lock:
            study = self._studies[self._trial_id_to_study_id_and_number[trial_id][0]]
            if param_name not in study.param_distribution:
                before = (trial.distributions[param_name] for trial in study.trials.values() if param_name in trial.distributions)
                study.param_distribution[param_name] = next(before, distribution)
            check_distribution_compatibility(study.param_distribution[param_name], distribution)
        row = {"trial_id": trial_id, "param_name": param_name, "param_value": param_value_internal}
        self._keep(models.TrialParamModel, {**row, "distribution_json": distribution_to_json(distribution)})

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials of a study, by number."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            known = self._studies[study_id].trials
            # Several times in each trial, and of thousands: numbers are sorted in no time, trials by number are not.
            trials = [known[number] for number in sorted(known) if states is None or known[number].state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial; one that is over comes from memory.

        Raises:
            KeyError: it is no more.
        """
        with self._lock:
            known = self._get_cached_trial(trial_id)
        return known or cast("FrozenTrial", self._outlast(lambda: trial_in(self._database, trial_id)))

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read what was not over at the last reading, and what is new."""
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            known, beyond = study.unfinished_trial_ids, study.last_finished_trial_id
            trials: list[FrozenTrial] = self._outlast(
                lambda: trials_in(self._database, study_id, reports=True, unfinished=known, beyond=beyond)
            )
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    known.discard(trial._trial_id)
                    # A trial may have ended before one with a lower number, which then is among those that are read again.
                    study.last_finished_trial_id = max(study.last_finished_trial_id, trial._trial_id)
                else:
                    known.add(trial._trial_id)


@cache
def _upsert(database: str, table: Any, names: tuple[str, ...]) -> Insert:
    """Writes rows of those names, or over them; made once, which takes as long as to run it."""
    insert: Any = INSERTS[database](table.__table__)
    keys = ("trial_id", KEYS[table])
    update: Insert = insert.on_conflict_do_update(
        index_elements=keys, set_={name: insert.excluded[name] for name in names if name not in keys}
    )
    return update


def transaction(trial: Trial) -> AbstractContextManager[None]:
    """Write what the block writes of a trial in one transaction, as `BatchingCache.transaction`."""
    assert isinstance(trial.storage, BatchingCache), "a trial of a store"
    return trial.storage.transaction()
