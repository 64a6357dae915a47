"""Run a search in the foreground: its progress on screen, and what a signal does to it."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

from hpsearch.cli.console import note

if TYPE_CHECKING:
    from hpsearch.report.study_results import StudyResults
    from hpsearch.storage.database import Store
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.supervisor import Search


def watch(search: Search, only: int | None = None) -> None:
    """Show the run until its end; on a signal, stop it in good order and exit."""
    from hpsearch.cli.progress_view import ProgressView

    view = ProgressView(total=search.budget.trials)
    received: list[int] = []
    asked = False
    snapshots = search.run(only_trial=only, stop_requested=lambda: bool(received))

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with view.on_screen():
            for snapshot in snapshots:
                view.update(snapshot)
                if snapshot.stopped:
                    asked = True
                elif received:
                    break
        if received:
            note("Stopping: running trials go back to the queue. Once more stops at once.", style="yellow")
        snapshots.close()
    except KeyboardInterrupt:
        # Closing it goes on where it was, with workers that are dead by now.
        with contextlib.suppress(KeyboardInterrupt):
            snapshots.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received or asked:
        _say_stopped(search)
        sys.exit(128 + (received[0] if received else signal.SIGTERM))


def _say_stopped(search: Search) -> None:
    from hpsearch.storage.records import read_trials

    trials = read_trials(search.study)
    done = sum(trial.is_finished for trial in trials)
    interrupted = [trial for trial in trials if trial.state == "waiting" and trial.attempts]
    text = f"Stopped: {done} done"
    if interrupted:
        epochs = " and ".join(str(len(trial.epochs)) for trial in interrupted)
        text += f", {len(interrupted)} interrupted at epoch{'s' if len(interrupted) > 1 else ''} {epochs}"
    note(f"{text}. Continue with the same command.", style="yellow")


def run_again(search: Search, *, pace: float) -> None:
    """Run what a linked study still wants, on screen.

    Args:
        pace: seconds that one run will take; 0 if nobody knows.

    Raises:
        SystemExit: it was stopped.
    """
    from hpsearch.formatting import many, show_duration

    if search.earlier:
        note(f"Continues: {many(search.earlier, 'run')} done already.")
    text = (
        f"{search.file.name}: at most {many(search.budget.trials, 'run')}; {many(search.workers.count, 'worker')} ({search.workers.reason})"
    )
    left = search.budget.trials - search.earlier
    if pace and left > 0:
        text += f"; at the pace of the search up to {show_duration(left * pace / search.workers.count)}"
    note(f"{text}.")
    watch(search)


def write_pages(results: StudyResults, workspace: Workspace, store: Store) -> None:
    """Write the report of a study and sync the dashboard.

    Args:
        results: of the study.
        workspace: its folders and locks.
        store: its storage.
    """
    from hpsearch.errors import HpsearchError
    from hpsearch.workflows.dashboard_sync import sync_dashboard
    from hpsearch.workflows.write_report import write_report

    page = results.paths.report
    write_report([results], page)
    note(f"Report: {page}")
    try:
        sync_dashboard(results.name, workspace, store, results)
    except (HpsearchError, OSError) as error:  # the search is done all the same
        note(f"The dashboard could not be synced: {str(error).splitlines()[0]}", style="yellow")
        return
    note(f"In the browser: hpsearch dashboard {results.name} --open")
