"""Report that somebody deleted a study while workers trained its trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.exceptions import StorageInternalError

from hpsearch.config.paths import StudyPaths
from hpsearch.errors import StudyNotFoundError, UsageError
from hpsearch.storage.database import Store
from hpsearch.storage.records import read_identity


@dataclass(frozen=True, kw_only=True)
class LoadedStudy:
    """A study as a process loaded it. The study may since have been deleted, or deleted and made again with the same ids.

    Attributes:
        store: the database of the study.
        paths: the folder of the study.
        identity: the identity that the study had when it was loaded; empty if it had none.
    """

    study: optuna.Study
    store: Store
    paths: StudyPaths
    identity: str

    def exists(self) -> bool:
        """Return whether the database still holds the study.

        Returns:
            True if the database holds the study. False also if its name and its ids now belong to another study.
        """
        try:
            present = read_identity(self.study)
        except KeyError:
            return False
        return not self.identity or present == self.identity

    def require_exists(self) -> None:
        """Raise an error if the study was deleted.

        Raises:
            StudyNotFoundError: the study was deleted, or deleted and made again.
        """
        if not self.exists():
            raise self.deleted()

    def deleted(self) -> StudyNotFoundError:
        """Return the error for a study that was deleted during the search.

        Returns:
            The error, which the caller must raise.
        """
        return StudyNotFoundError(
            f"the study '{self.study.study_name}', or a trial of it, is gone from {self.store}",
            hint=f"Checkpoints are kept in {self.paths.folder}.",
        )

    @contextmanager
    def report_deletion(self) -> Iterator[None]:
        """Raise a clear error if a block fails because the study was deleted.

        Optuna raises unclear errors for a missing record or row. A worker that starts at that moment fails because it finds no study.

        Yields:
            Nothing.

        Raises:
            StudyNotFoundError: the block failed because the study was deleted, or deleted and made again.
        """
        try:
            yield
        except (KeyError, StorageInternalError, UsageError) as error:
            if self.exists():
                raise
            raise self.deleted() from error
