"""Run a search in the foreground. This module shows the progress of the search and handles signals."""

from __future__ import annotations

import contextlib
import signal
import sys

from hpsearch.analysis.leaderboard import describe_progress
from hpsearch.cli.console import note, warn
from hpsearch.cli.progress_view import SearchView
from hpsearch.cli.signals import collect_signals
from hpsearch.errors import HpsearchError
from hpsearch.formatting import many, show_duration
from hpsearch.report.study_results import StudyResults
from hpsearch.storage.records import read_trials
from hpsearch.workflows.dashboard_sync import sync_dashboard
from hpsearch.workflows.precision import slow_search
from hpsearch.workflows.repeats import mean_seconds
from hpsearch.workflows.supervisor import Search
from hpsearch.workflows.write_report import write_report


def run_in_foreground(search: Search, *, only: int | None = None) -> None:
    """Run a search to its end and show its progress.

    A signal stops the search, and running trials go back to the queue. Then the process exits.

    Args:
        search: the search to run.
        only: number of the only trial to train; None trains all trials.

    Raises:
        SystemExit: the search was stopped.
    """
    if search.engine is None:
        warn(slow_search(search))
    view = SearchView(search.budget)
    stopped = False
    with collect_signals(interrupt_at=2) as received:
        snapshots = search.run(only_trial=only, stop_requested=lambda: bool(received))
        try:
            with view:
                for snapshot in snapshots:
                    view.show(snapshot)
                    if snapshot.stopped:
                        stopped = True
                    elif received:
                        break
            if received:
                note("Stopping: running trials go back to the queue. A second Ctrl-C stops at once.", style="yellow")
            snapshots.close()
        except KeyboardInterrupt:
            # The second signal may come before the generator is closed. Closing the generator stops the workers.
            with contextlib.suppress(KeyboardInterrupt):
                snapshots.close()
    if received or stopped:
        _say_stopped(search)
        sys.exit(128 + (received[0] if received else signal.SIGTERM))


def _say_stopped(search: Search) -> None:
    trials = read_trials(search.study)
    text = f"Stopped: {sum(trial.is_finished for trial in trials)} trials done"
    interrupted = [trial for trial in trials if trial.state == "waiting" and trial.attempts]
    if interrupted:
        text += f", {len(interrupted)} interrupted at {' and '.join(map(describe_progress, interrupted))}"
    if paused := sum(trial.state == "paused" for trial in trials):
        text += f", {paused} paused"
    note(f"{text}. Continue with the same command.", style="yellow")


def run_repeats(search: Search) -> None:
    """Run the repeats that a follow-up study still needs, and show their progress.

    Args:
        search: the search of the follow-up study.

    Raises:
        SystemExit: the runs were stopped.
    """
    if search.earlier:
        note(f"Continues: {many(search.earlier, 'run')} done already.")
    workers = f"{many(search.workers.count, 'worker')} ({search.workers.reason})"
    text = f"{search.file.name}: at most {many(search.budget.max_trials, 'run')}; {workers}"
    seconds_per_run = mean_seconds(search.file.name.partition(".")[0], search.store)
    left = search.budget.max_trials - search.earlier
    if seconds_per_run and left > 0:
        text += f"; at most about {show_duration(left * seconds_per_run / search.workers.count)}, as fast as the search was"
    note(f"{text}.")
    run_in_foreground(search)


def write_pages(results: StudyResults, search: Search) -> None:
    """Write the report of a study and sync the dashboard.

    Args:
        results: results of the study.
        search: the search of the study, or of its follow-up study.
    """
    page = results.paths.report
    write_report([results], page)
    note(f"Report: {page}")
    try:
        sync_dashboard(results.name, search.workspace, search.store, results)
    except (HpsearchError, OSError) as error:  # the search is done even if this step fails
        note(f"The dashboard could not be synced: {str(error).splitlines()[0]}", style="yellow")
        return
    note(f"In the browser: hpsearch dashboard {results.name} --open")
