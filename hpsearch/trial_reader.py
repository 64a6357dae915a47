"""Reads all trials of a study at once: a statement a table, where Optuna makes an object of every stored value.

For two thousand trials of twenty epochs that is the difference between half a second and three.
What a trial means is the business of `storage.py`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.orm import InstrumentedAttribute, Session

Rows = dict[int, list[Any]]
"""What a table holds of each trial, by the trial's id."""


def whole_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study, by number, but for their intermediate values, which `storage.py` keeps as epochs too.

    They are read past Optuna's cache: a worker's holds less, and another process would keep them all.

    Raises:
        KeyError: the study is no more.
    """
    return trials_in(_database(study), study._study_id, reports=False)


def trials_in(database: RDBStorage, study_id: int, *, reports: bool) -> list[FrozenTrial]:
    """All trials of a study, by number.

    Args:
        reports: whether with their intermediate values.

    Raises:
        KeyError: the study is no more.
    """
    trial, param, attribute, system = (
        models.TrialModel,
        models.TrialParamModel,
        models.TrialUserAttributeModel,
        models.TrialSystemAttributeModel,
    )
    value, report = models.TrialValueModel, models.TrialIntermediateValueModel
    with Session(database.engine) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session)
        # First: what is stored meanwhile belongs to trials that are known, and not the other way round.
        trials: Sequence[Any] = session.scalars(sqlalchemy.select(trial).where(trial.study_id == study_id).order_by(trial.number)).all()
        values = _rows(session, study_id, value.trial_id, value.value, value.value_type)
        params = _rows(session, study_id, param.trial_id, param.param_id, param.param_name, param.param_value, param.distribution_json)
        attributes = _rows(session, study_id, attribute.trial_id, attribute.key, attribute.value_json)
        system_attributes = _rows(session, study_id, system.trial_id, system.key, system.value_json)
        curves: Rows = defaultdict(list)
        if reports:
            curves = _rows(session, study_id, report.trial_id, report.step, report.intermediate_value, report.intermediate_value_type)
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


def _rows(session: Session, study_id: int, trial_id: InstrumentedAttribute[int], *columns: InstrumentedAttribute[Any]) -> Rows:
    """Some columns of a table for all trials of a study."""
    found: Rows = defaultdict(list)
    statement = sqlalchemy.select(trial_id, *columns).join(models.TrialModel, models.TrialModel.trial_id == trial_id)
    for key, *row in session.execute(statement.where(models.TrialModel.study_id == study_id)):
        found[key].append(row)
    return found


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _database(study: optuna.Study) -> RDBStorage:
    storage = study._storage
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    assert isinstance(backend, RDBStorage), "a store is a database"
    return backend
