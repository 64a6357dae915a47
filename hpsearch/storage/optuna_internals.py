"""The only module that touches Optuna's private attributes and modules.

Optuna may change its private parts in any release. `optuna_is_known` checks that they are as hpsearch expects. If they
are not, a store uses Optuna's own cache and reader (`trial_cache.PlainCache`), which are slower but correct. The ids of studies
and trials can be read only from private attributes. There is no fallback for the ids.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial


def _private(module: str, name: str = "") -> Any:
    """Import a private part of Optuna. Return None if Optuna has no part of that name."""
    try:
        found = importlib.import_module(f"optuna.{module}")
    except ImportError:
        return None
    return getattr(found, name, None) if name else found


models: Any = _private("storages._rdb.models")
"""The SQLAlchemy classes of Optuna's tables."""
StudyInfo: Any = _private("storages._cached_storage", "_StudyInfo")
"""The entry for a study in Optuna's cache."""
create_scoped_session: Any = _private("storages._rdb.storage", "_create_scoped_session")
"""Opens a session that commits at its end, or rolls back after an error. Optuna's own rules for errors apply."""
CachedStorage = _CachedStorage
"""Optuna's cache of trials. It is the base class of the caches of hpsearch."""

RDB_METHODS = (
    *(name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction) if not name.startswith("_")),
    *(name for name in ("_create_new_trial", "_get_trials", "_get_best_trial_id", "_set_trial_param") if hasattr(RDBStorage, name)),
)
"""Names of the methods through which Optuna and its cache read and write a database."""

TRIAL_COLUMNS = {
    "TrialValueModel": ("value", "value_type"),
    "TrialParamModel": ("param_id", "param_name", "param_value", "distribution_json"),
    "TrialUserAttributeModel": ("key", "value_json"),
    "TrialSystemAttributeModel": ("key", "value_json"),
    "TrialIntermediateValueModel": ("step", "intermediate_value", "intermediate_value_type"),
}
"""The tables that hold the parts of a trial, and their columns besides `trial_id`."""

log = logging.getLogger("hpsearch")


def get_study_id(study: optuna.Study) -> int:
    """Return the id of a study in its database.

    Args:
        study: a study.

    Returns:
        The id, which no other study of the database has.
    """
    return study._study_id


def get_trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the id of a trial in its database. The number of a trial, in contrast, is unique only within its study.

    Args:
        trial: a live or stored trial.

    Returns:
        The id, which no other trial of the database has.
    """
    return trial._trial_id


def get_storage(study: Any) -> BaseStorage:
    """Return the storage of a study.

    Args:
        study: a study, or a view of a study.

    Returns:
        The storage that the study was made or loaded with.
    """
    storage: BaseStorage = study._storage
    return storage


@cache
def optuna_is_known() -> bool:
    """Check that Optuna's private parts are as hpsearch expects, and log a warning if they are not.

    Returns:
        Whether `trial_reader` and `BatchingCache` can be used.
    """
    difference = next(find_differences(), "")
    if difference:
        log.warning(
            "the internals of Optuna %s are new to hpsearch (%s): it uses Optuna's own, slower cache", optuna.__version__, difference
        )
    return not difference


def find_differences() -> Iterator[str]:
    """Look for private parts of Optuna that hpsearch does not expect.

    Yields:
        A description of each difference.
    """
    for name, part in (("models", models), ("_StudyInfo", StudyInfo), ("_create_scoped_session", create_scoped_session)):
        if part is None:
            yield f"there is no {name}"
            return
    expected: tuple[tuple[Any, str, str], ...] = (
        (_CachedStorage, "__init__", "self, backend"),
        (_CachedStorage, "_add_trials_to_cache", "self, study_id, trials"),
        (_CachedStorage, "_read_trials_from_remote_storage", "self, study_id"),
        (_CachedStorage, "_get_cached_trial", "self, trial_id"),
        (RDBStorage, "check_trial_is_updatable", "self, trial_id, trial_state"),
        (models, "StudyModel.find_or_raise_by_id", "study_id, session, for_update"),
        (models, "TrialModel.find_or_raise_by_id", "trial_id, session, for_update"),
        (models, "TrialValueModel.stored_repr_to_value", "value, float_type"),
        (models, "TrialIntermediateValueModel.intermediate_value_to_stored_repr", "value"),
        (models, "TrialIntermediateValueModel.stored_repr_to_intermediate_value", "value, float_type"),
    )
    for owner, name, parameters in expected:
        try:
            found = ", ".join(inspect.signature(attrgetter(name)(owner)).parameters)
        except AttributeError:
            found = "nothing"
        if found != parameters:
            yield f"{name} takes {found}, not {parameters}"
    instances = (
        (_CachedStorage(cast("RDBStorage", None)), ("_lock", "_studies", "_trial_id_to_study_id_and_number")),
        (StudyInfo(), ("trials", "unfinished_trial_ids", "last_finished_trial_id", "param_distribution")),
    )
    for instance, attributes in instances:
        yield from (f"{type(instance).__name__} has no {name}" for name in attributes if not hasattr(instance, name))
    tables = {name: ("trial_id", *columns) for name, columns in TRIAL_COLUMNS.items()}
    tables["TrialModel"] = ("trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete")
    tables["StudyModel"] = ("study_id", "study_name")
    for name, columns in tables.items():
        yield from (f"{name} has no {column}" for column in columns if not hasattr(getattr(models, name, None), column))
