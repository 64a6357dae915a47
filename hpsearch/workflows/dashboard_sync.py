"""Keeps the dashboard in sync with the studies, at the end of a run and while a dashboard is served."""

from __future__ import annotations

import logging
import threading
import time

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import HpsearchError, StudyNotFoundError
from hpsearch.formatting import one_line
from hpsearch.report.dashboard.sync import last_synced, state_of, sync
from hpsearch.report.study_results import StudyResults, read_results
from hpsearch.storage.database import Store
from hpsearch.storage.locks import sync_lock
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.records import require_own
from hpsearch.storage.study_folder import results_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeat_study import is_follow_up
from hpsearch.workflows.write_report import read_study_results, write_report

LEAST_PAUSE = 30.0
"""Minimum seconds between two syncs. Each sync interrupts a person who is writing the note."""
LARGEST_SHARE = 0.02
"""Maximum share of a core for syncing. The rest is left for training."""

log = logging.getLogger("hpsearch")


def sync_dashboard(name: str, workspace: Workspace, store: Store, results: StudyResults | None = None) -> bool:
    """Write a study's note, plots and files for the dashboard if the study has changed.

    A follow-up study such as the finalists is left out. It is no search, so its leaderboard would mislead.

    Args:
        name: name of the study.
        workspace: folders and locks of the study.
        store: the database of the study.
        results: results of the study; None if this function has to read them.

    Returns:
        Whether the study had changed since the last sync.

    Raises:
        StudyNotFoundError: there is no such study, or it was not made by hpsearch.
        DiskError: a file cannot be written.
    """
    study = store.load(name)
    if is_follow_up(study):
        return False
    require_own(study, hint="The dashboard shows it as it is.")
    workspace.identity_of(study)  # a copy forgets the files of its original
    paths = results_folder(name, workspace, store)
    if paths.folder.exists() and not paths.report.exists():
        results = results or read_study_results(name, workspace, store)
        write_report([results], paths.report)
    with workspace.locks.hold(sync_lock(get_study_id(study))):
        if last_synced(study, store) == state_of(results or read_results(study, paths)):
            return False
        sync(study, store, results or read_study_results(name, workspace, store), workspace.paths.artifacts)
        return True


class DashboardSync:
    """Syncs the dashboard of a storage in its own thread, at the start and after changes of a study.

    A user who may not write to the storage sees what the last sync wrote.

    Args:
        workspace: the storage, the folders and the locks.
        only: name of the only study to sync; None for all studies.
    """

    def __init__(self, workspace: Workspace, *, only: str | None) -> None:
        self._workspace = workspace
        self._store = workspace.open(read_only=not workspace.database.may_write)
        self._only = only
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard-sync", daemon=True)
        self._warned: set[str] = set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for the sync of the current study, then stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._store.dispose()

    def sync_all(self) -> None:
        """Sync each study once, in the calling thread."""
        for name in self._names():
            if self._stop.is_set():
                return
            self._sync(name)

    def _run(self) -> None:
        while self._workspace.database.may_write and not self._stop.is_set():
            begun = time.thread_time()
            self.sync_all()
            self._stop.wait(max(LEAST_PAUSE, (time.thread_time() - begun) / LARGEST_SHARE))

    def _names(self) -> list[str]:
        try:
            return self._store.study_names() if self._only is None else [self._only]
        except (HpsearchError, SQLAlchemyError, StorageInternalError):  # the pages say that the database is locked or gone
            return []

    def _sync(self, name: str) -> None:
        try:
            sync_dashboard(name, self._workspace, self._store)
        except (StudyNotFoundError, KeyError):
            return  # a study of another program, or a study that was just deleted
        except Exception as error:  # whatever is wrong with one study must not end the sync of the others
            if name not in self._warned:
                self._warned.add(name)
                log.warning("the dashboard of '%s' could not be synced: %s", name, one_line(str(error)))
