"""Report that somebody deleted a study while workers trained its trials."""

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
    """Raise a clear error if a block fails because its study was deleted.

    Optuna raises unclear errors for a missing record or row. A worker that starts at that moment fails because it finds no study.

    Args:
        study: the study that the block works on.
        store: the database of the study.
        paths: the folder of the study.

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
        store: the database of the study.

    Returns:
        True if the database holds the study. False also if the name now belongs to another study.
    """
    try:
        return store.storage.get_study_id_from_name(study.study_name) == get_study_id(study)
    except KeyError:
        return False


def study_deleted(name: str, store: Store, paths: StudyPaths) -> StudyNotFoundError:
    """Return the error for a study that was deleted during the search.

    Args:
        name: name of the study.
        store: the database of the study.
        paths: the folder of the study.

    Returns:
        The error, which the caller must raise.
    """
    return StudyNotFoundError(
        f"the study '{name}', or a trial of it, is gone from {store}", hint=f"Checkpoints are kept in {paths.folder}."
    )
