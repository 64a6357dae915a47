"""Watch a study whose search runs in another process. The view is the same as in `hpsearch run`, and only reads the storage."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator

import optuna

from hpsearch.cli.console import note
from hpsearch.cli.progress_view import SearchView
from hpsearch.config.sections import Budget, Data
from hpsearch.formatting import many
from hpsearch.search.budget import budget_allows_trial
from hpsearch.search.deletion import LoadedStudy
from hpsearch.search.study_monitor import Progress, StudyMonitor
from hpsearch.storage.records import read_identity, read_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import SNAPSHOT_SECONDS, Snapshot

QUIET_SECONDS = 30.0
"""The view ends if no trial has run for this time, because the search has then stopped.

A dead worker does not end the view, because another worker replaces it in less time.
"""


def watch_study(name: str, workspace: Workspace) -> None:
    """Show a study until its search is complete or has stopped.

    Args:
        name: name of the study.
        workspace: where the study is stored.

    Raises:
        StudyNotFoundError: the study does not exist, or was deleted while this function ran.
    """
    store = workspace.open(read_only=True)
    study = store.load(name)
    loaded = LoadedStudy(study=study, store=store, paths=workspace.paths.study(name), identity=read_identity(study))
    monitor = StudyMonitor(store, study)
    first = monitor.read_progress()
    budget, _ = _budget_and_data(study)
    state = _state(first, budget) if first.total else "no trial yet"
    if running := len(first.running):
        state += f", {running} {'is' if running == 1 else 'are'} running"
    note(f"{name}: {state}. Ctrl-C ends this view, not the study.")
    last = None
    with loaded.report_deletion(), SearchView(budget) as view:
        for last in _snapshots(loaded, monitor):
            view.show(last)
    if last is not None and not _is_over(study, last.progress):
        note(f"No trial has run for {QUIET_SECONDS:.0f} seconds. `hpsearch run {name}` continues the search.", style="yellow")


def _state(first: Progress, budget: Budget) -> str:
    if budget.trials is None:
        return f"{first.epochs:.0f} of {budget.epochs} epochs are trained, {many(first.finished, 'trial')} ended"
    return f"{first.finished} of {budget.trials} trials have ended"


def _snapshots(loaded: LoadedStudy, monitor: StudyMonitor) -> Iterator[Snapshot]:
    """Yield the state of the study every second until the search is complete or has stopped."""
    started = time.monotonic()
    active: float | None = None
    while True:
        now = time.monotonic()
        loaded.require_exists()
        progress = monitor.read_progress()
        yield Snapshot(progress=progress, elapsed=now - started, deaths=0, stopped=False)
        if _is_over(loaded.study, progress):
            return
        if progress.running:
            active = now
        elif active is not None and now - active >= QUIET_SECONDS:
            return
        time.sleep(SNAPSHOT_SECONDS)


def _is_over(study: optuna.Study, progress: Progress) -> bool:
    """Return whether the search is complete. Then no trial runs or waits, and the budget allows no further trial."""
    if progress.finished < progress.total:
        return False
    budget, data = _budget_and_data(study)
    time_spent = budget.time is not None and read_study(study).seconds_spent >= budget.time
    return time_spent or not budget_allows_trial(study.get_trials(deepcopy=False), budget, data.validation_images)


def _budget_and_data(study: optuna.Study) -> tuple[Budget, Data]:
    """Read two sections of the study file. Reading all of it might import component files, which are not needed here."""
    sections = tomllib.loads(read_study(study).text)
    return Budget.model_validate(sections.get("budget", {})), Data.model_validate(sections.get("data", {}))
