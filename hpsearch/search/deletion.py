"""Report a study that somebody deleted while it was searched."""

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
    """Say that the study is gone where the block fails for that.

    Optuna finds a record missing then, or a row to change; a worker that begins just then finds no study.

    Raises:
        StudyNotFoundError: somebody has deleted the study meanwhile, and perhaps made one of the same name.
    """
    try:
        yield
    except (KeyError, StorageInternalError, UsageError) as error:
        if study_exists(study, store):
            raise
        raise study_deleted(study.study_name, store, paths) from error


def study_exists(study: optuna.Study, store: Store) -> bool:
    """Whether the study stands in the storage."""
    try:
        return store.storage.get_study_id_from_name(study.study_name) == get_study_id(study)
    except KeyError:
        return False


def study_deleted(name: str, store: Store, paths: StudyPaths) -> StudyNotFoundError:
    """What to say when somebody has deleted the study meanwhile."""
    return StudyNotFoundError(
        f"the study '{name}', or a trial of it, is gone from {store}", hint=f"Checkpoints are kept in {paths.folder}."
    )
