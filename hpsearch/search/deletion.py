"""Report that somebody deleted a study while it was searched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import StorageInternalError

from hpsearch.config.paths import StudyPaths
from hpsearch.errors import StudyNotFoundError, UsageError
from hpsearch.storage.database import Store
from hpsearch.storage.optuna_internals import get_study_id


@contextmanager
def report_deletion(study: optuna.Study, store: Store, paths: StudyPaths) -> Iterator[None]:
    """Turn the errors of a deleted study into one that says so.

    Optuna raises for a missing record or row; a worker that starts at that moment finds no study.

    Args:
        study: the study that the block works on.
        store: its database.
        paths: its folder.

    Yields:
        Nothing.

    Raises:
        StudyNotFoundError: the block failed because the study was deleted, or deleted and made again.
    """
    try:
        yield
    except (KeyError, StorageInternalError, UsageError) as error:
        if study_exists(study, store):
            raise
        raise study_deleted(study.study_name, store, paths) from error


def study_exists(study: optuna.Study, store: Store) -> bool:
    """Return whether the database still holds the study.

    Args:
        study: the study as it was loaded.
        store: its database.

    Returns:
        False also if another study has its name now.
    """
    try:
        return store.storage.get_study_id_from_name(study.study_name) == get_study_id(study)
    except KeyError:
        return False


def study_deleted(name: str, store: Store, paths: StudyPaths) -> StudyNotFoundError:
    """Return the error for a study that was deleted during the search.

    Args:
        name: name of the study.
        store: its database.
        paths: its folder.

    Returns:
        The error, to be raised.
    """
    return StudyNotFoundError(
        f"the study '{name}', or a trial of it, is gone from {store}", hint=f"Checkpoints are kept in {paths.folder}."
    )
