"""A study that runs elsewhere, as `hpsearch run` shows its own: it is only read."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpsearch.cli.console import note
from hpsearch.cli.progress_view import ProgressView
from hpsearch.config.sections import Budget
from hpsearch.search.budget import budget_allows_trial
from hpsearch.search.deletion import study_deleted
from hpsearch.search.study_monitor import Progress, StudyMonitor
from hpsearch.storage.records import read_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import SNAPSHOT_SECONDS, Snapshot

if TYPE_CHECKING:
    import optuna

QUIET_SECONDS = 30.0
"""Without a running trial, once there was one: whoever searched has stopped. A worker that died is replaced sooner."""


def watch(name: str, workspace: Workspace) -> None:
    """Show a study until it is over, or until those who searched it have stopped.

    Raises:
        StudyNotFoundError: there is none of that name, or it was deleted meanwhile.
    """
    store = workspace.open()
    study = store.load(name)
    monitor = StudyMonitor(store, study)
    first = monitor.read_progress()
    budget = _budget(study)
    view = ProgressView(total=max(budget.trials, first.total))
    note(f"{name}: {_standing(first, budget)}. Ctrl-C ends this view, not the study.")
    last = None
    try:
        with view.on_screen():
            for last in _looks(study, monitor):
                view.update(last)
    except KeyError as error:  # what Optuna's storage raises for a study that is no more
        if name in store.study_names():
            raise
        raise study_deleted(name, store, workspace.paths.study(name)) from error
    if last is not None and not _is_over(study, last.progress):
        note(f"No trial has run for {QUIET_SECONDS:.0f} seconds. `hpsearch run {name}` continues.", style="yellow")


def _looks(study: optuna.Study, monitor: StudyMonitor) -> Iterator[Snapshot]:
    """A look every second until nothing more is to come."""
    started = time.monotonic()
    active: float | None = None
    while True:
        now = time.monotonic()
        progress = monitor.read_progress()
        yield Snapshot(progress=progress, elapsed=now - started, deaths=0, stopped=False)
        if _is_over(study, progress):
            return
        if progress.running:
            active = now
        elif active is not None and now - active >= QUIET_SECONDS:
            return
        time.sleep(SNAPSHOT_SECONDS)


def _is_over(study: optuna.Study, progress: Progress) -> bool:
    """Whether nothing runs or waits, and the budget of the study file allows no more."""
    if progress.finished < progress.total:
        return False
    budget = _budget(study)
    time_spent = budget.time is not None and read_study(study).seconds_spent >= budget.time
    return time_spent or not budget_allows_trial(study.get_trials(deepcopy=False), trials=budget.trials)


def _budget(study: optuna.Study) -> Budget:
    """As the study file says; read by itself, since the file's components may be Python that this command has no use for."""
    return Budget.model_validate(tomllib.loads(read_study(study).text).get("budget", {}))


def _standing(progress: Progress, budget: Budget) -> str:
    running = len(progress.running)
    words = [f"{progress.finished} of {budget.trials} trials have ended" if progress.total else "no trial yet"]
    if running:
        words.append(f"{running} {'is' if running == 1 else 'are'} running")
    return ", ".join(words)
