"""Keeps the dashboard in sync with the studies, at the end of a run and while a dashboard is served."""

from __future__ import annotations

import logging
import threading
import time

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import HpsearchError, StudyNotFoundError
from hpsearch.report.dashboard.sync import last_synced, state_of, sync
from hpsearch.report.study_results import StudyResults, read_results
from hpsearch.storage.database import Store
from hpsearch.storage.locks import sync_lock
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeat_study import is_follow_up
from hpsearch.workflows.write_report import read_study_results, write_report

LEAST_PAUSE = 30.0
"""Seconds between two syncs: each one interrupts a person who is writing the note."""
LARGEST_SHARE = 0.02
"""Share of a core for syncing: the machine is there to train."""

log = logging.getLogger("hpsearch")


def sync_dashboard(name: str, workspace: Workspace, store: Store, results: StudyResults | None = None) -> bool:
    """Write a study's note, plots and files for the dashboard where they have changed.

    A follow-up study such as the finalists is left out: it is no search, and its leaderboard would mislead.

    Args:
        name: of the study.
        workspace: its folders and locks.
        store: its storage.
        results: of the study, where the caller has read them.

    Returns:
        Whether anything had changed.

    Raises:
        StudyNotFoundError: there is no such study, or it was not made by hpsearch.
        DiskError: a file cannot be written.
    """
    study = store.load(name)
    if is_follow_up(study):
        return False
    paths = workspace.paths.study(name)
    if paths.folder.exists() and not paths.report.exists():
        results = results or read_study_results(name, workspace, store)
        write_report([results], paths.report)
    with workspace.locks.hold(sync_lock(get_study_id(study))):
        if last_synced(study, store) == state_of(results or read_results(study, paths)):
            return False
        sync(study, store, results or read_study_results(name, workspace, store), workspace.paths.artifacts)
        return True


class DashboardSync:
    """Syncs the dashboard of a storage from its own thread, at once and whenever a study has changed.

    Args:
        workspace: the folders and locks.
        store: the storage.
        only: sync this study alone.
    """

    def __init__(self, workspace: Workspace, store: Store, *, only: str | None) -> None:
        self._workspace = workspace
        self._store = store
        self._only = only
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard-sync", daemon=True)
        self._warned: set[str] = set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after the study that it is writing."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.thread_time()
            for name in self._names():
                if self._stop.is_set():
                    return
                self._sync(name)
            self._stop.wait(max(LEAST_PAUSE, (time.thread_time() - begun) / LARGEST_SHARE))

    def _names(self) -> list[str]:
        try:
            return self._store.study_names() if self._only is None else [self._only]
        except (HpsearchError, SQLAlchemyError, StorageInternalError):  # locked or gone: the pages say so
            return []

    def _sync(self, name: str) -> None:
        try:
            sync_dashboard(name, self._workspace, self._store)
        except (StudyNotFoundError, KeyError):
            return  # another program's study, or one that was just deleted
        except (HpsearchError, OSError, SQLAlchemyError, StorageInternalError) as error:
            if name not in self._warned:
                self._warned.add(name)
                log.warning("the dashboard of '%s' could not be synced: %s", name, str(error).splitlines()[0])
