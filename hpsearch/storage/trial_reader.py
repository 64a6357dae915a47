"""Reads trials: a statement a table, where Optuna makes an object of every stored value.

For two thousand trials of twenty epochs that is the difference between half a second and three.
What a trial means is the business of `storage.py`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Select, bindparam
from sqlalchemy.orm import Session

Rows = dict[int, list[Any]]
"""What a table holds of each trial, by the trial's id."""


def whole_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study, by number, but for their intermediate values, which `storage.py` keeps as epochs too.

    They are read past Optuna's cache: a worker's holds less, and another process would keep them all.

    Raises:
        KeyError: the study is no more.
    """
    return trials_in(_database(study), study._study_id, reports=False)


def trials_in(
    database: RDBStorage, study_id: int, *, reports: bool, unfinished: Collection[int] = (), beyond: int = -1
) -> list[FrozenTrial]:
    """The trials of a study, by number.

    Args:
        reports: whether with their intermediate values.
        unfinished: of those that are known, the ids to read again.
        beyond: the highest id that is known: all beyond it are read.

    Raises:
        KeyError: the study is no more.
    """
    with Session(database.engine) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session)
        if beyond < 0:
            return _frozen(session, _of_study, {"study_id": study_id}, reports=reports)
        changed = {"study_id": study_id, "beyond": beyond, "unfinished": sorted(unfinished)}
        return _frozen(session, _of_study_and_changed, changed, reports=reports)


def trial_in(database: RDBStorage, trial_id: int) -> FrozenTrial:
    """One trial.

    Raises:
        KeyError: it is no more.
    """
    with Session(database.engine) as session:
        found = _frozen(session, _by_id, {"trial_id": trial_id}, reports=True)
    if not found:
        raise KeyError(f"there is no trial of the id {trial_id}")
    return found[0]


def running_in(database: RDBStorage, study_id: int) -> list[tuple[int, int]]:
    """The running trials of a study, each as id and number.

    Raises:
        KeyError: the study is no more.
    """
    trial = models.TrialModel
    with Session(database.engine) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session)
        running = sqlalchemy.select(trial.trial_id, trial.number).where(trial.study_id == study_id, trial.state == TrialState.RUNNING)
        return [(key, number) for key, number in session.execute(running.order_by(trial.number))]


_of_study = models.TrialModel.study_id == bindparam("study_id")
_of_study_and_changed = _of_study & (
    (models.TrialModel.trial_id > bindparam("beyond")) | models.TrialModel.trial_id.in_(bindparam("unfinished", expanding=True))
)
_by_id = models.TrialModel.trial_id == bindparam("trial_id")


def _frozen(session: Session, where: ColumnElement[bool], named: Mapping[str, Any], *, reports: bool) -> list[FrozenTrial]:
    """The trials that a condition is true of, by number.

    Args:
        named: the values of the parameters in the condition.
    """
    value, report = models.TrialValueModel, models.TrialIntermediateValueModel
    # First: what is stored meanwhile belongs to trials that are known, and not the other way round.
    trials: Sequence[Any] = session.scalars(_statement(where), named).all()
    if not trials:
        return []

    def rows(table: Any, *columns: str) -> Rows:
        found: Rows = defaultdict(list)
        for key, *row in session.execute(_statement(where, table, *columns), named):
            found[key].append(row)
        return found

    values = rows(value, "value", "value_type")
    params = rows(models.TrialParamModel, "param_id", "param_name", "param_value", "distribution_json")
    attributes = rows(models.TrialUserAttributeModel, "key", "value_json")
    system_attributes = rows(models.TrialSystemAttributeModel, "key", "value_json")
    curves = rows(report, "step", "intermediate_value", "intermediate_value_type") if reports else defaultdict(list)
    frozen = []
    for row in trials:
        drawn = {name: (_distribution(text), internal) for _, name, internal, text in sorted(params[row.trial_id])}
        frozen.append(
            FrozenTrial(
                number=row.number,
                state=row.state,
                value=None,
                values=[value.stored_repr_to_value(*stored) for stored in values[row.trial_id]] or None,
                datetime_start=row.datetime_start,
                datetime_complete=row.datetime_complete,
                params={name: distribution.to_external_repr(internal) for name, (distribution, internal) in drawn.items()},
                distributions={name: distribution for name, (distribution, _) in drawn.items()},
                user_attrs={key: json.loads(text) for key, text in attributes[row.trial_id]},
                system_attrs={key: json.loads(text) for key, text in system_attributes[row.trial_id]},
                intermediate_values={
                    step: report.stored_repr_to_intermediate_value(*stored) for step, *stored in sorted(curves[row.trial_id])
                },
                trial_id=row.trial_id,
            )
        )
    return frozen


@cache
def _statement(where: ColumnElement[bool], table: Any = None, *columns: str) -> Select[Any]:
    """Reads the trials, or some columns of another table for them; made once, which takes as long as to run it."""
    trial = models.TrialModel
    if table is None:
        return sqlalchemy.select(trial).where(where).order_by(trial.number)
    joined = sqlalchemy.select(table.trial_id, *(getattr(table, column) for column in columns))
    return joined.join(trial, trial.trial_id == table.trial_id).where(where)


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _database(study: optuna.Study) -> RDBStorage:
    storage = study._storage
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    assert isinstance(backend, RDBStorage), "a store is a database"
    return backend
