"""Keeps optuna-dashboard fed: one process at a time, at the end of a run and while a dashboard is served."""

from __future__ import annotations

import logging
import threading
import time

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import HpsearchError, StudyNotFoundError
from hpsearch.report.dashboard.sync import feed, last_fed, state_of
from hpsearch.report.study_results import read_studied
from hpsearch.storage.database import Store
from hpsearch.storage.locks import sync_lock
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeat_study import is_follow_up
from hpsearch.workflows.write_report import read_studies, write_report

LEAST_PAUSE = 30.0
"""Seconds between two feeds: who writes a note in the dashboard is told that it changed meanwhile, and should not be told often."""
LARGEST_SHARE = 0.02
"""Of a core; the machine is there to train."""

log = logging.getLogger("hpsearch")


def feed_dashboard(name: str, workspace: Workspace, store: Store) -> bool:
    """Bring what the dashboard shows of a study up to date; returns whether anything had changed.

    A study that belongs to another, its finalists for example, is no search: a leaderboard of it would mislead.

    Raises:
        StudyNotFoundError: there is no such study, or it was not made by hpsearch.
        DiskError: a file cannot be written.
    """
    study = store.load(name)
    if is_follow_up(study):
        return False
    paths = workspace.paths.study(name)
    if paths.folder.exists() and not paths.report.exists():
        write_report(read_studies([name], workspace), paths.report)
    with workspace.locks.hold(sync_lock(get_study_id(study))):
        if last_fed(study, store) == state_of(study, paths):
            return False
        feed(study, store, read_studied(study, paths), paths, workspace.paths.artifacts)
        return True


class Feeder:
    """Feeds the dashboard of a storage from a thread of its own, at once and whenever a study has gone on.

    Args:
        only: this study alone.
    """

    def __init__(self, workspace: Workspace, store: Store, *, only: str | None) -> None:
        self._place = workspace
        self._store = store
        self._only = only
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._complained: set[str] = set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being written."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.thread_time()
            for name in self._names():
                if self._stop.is_set():
                    return
                self._feed(name)
            self._stop.wait(max(LEAST_PAUSE, (time.thread_time() - begun) / LARGEST_SHARE))

    def _names(self) -> list[str]:
        try:
            return self._store.study_names() if self._only is None else [self._only]
        except (HpsearchError, SQLAlchemyError, StorageInternalError):  # locked for long, or gone: the pages say so
            return []

    def _feed(self, name: str) -> None:
        try:
            feed_dashboard(name, self._place, self._store)
        except (StudyNotFoundError, KeyError):
            return  # somebody else's study, or one that was just deleted
        except (HpsearchError, OSError, SQLAlchemyError, StorageInternalError) as error:
            if name not in self._complained:
                self._complained.add(name)
                log.warning("the dashboard of '%s' could not be fed: %s", name, str(error).splitlines()[0])
