"""The commands that act on a stored study as a whole: stop and rm."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from hpsearch.cli.console import say
from hpsearch.cli.options import StudyArgument
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.errors import UsageError
from hpsearch.report.dashboard.sync import delete_artifacts
from hpsearch.search.claim import is_being_searched
from hpsearch.storage.records import read_trials, request_stop
from hpsearch.workflows.repeat_study import follow_up_names
from hpsearch.workflows.run import study_name


def stop(study: StudyArgument, *, workspace: StoredWorkspace) -> None:
    """Stop a running search from another terminal: its trials go back to the queue.

    All workers of the study and of its finalists are asked to stop.
    """
    store, name = workspace.open(), study_name(study)
    studies = [store.load(each) for each in (name, *follow_up_names(name, store))]
    busy = any(is_being_searched(each, workspace.locks) for each in studies)
    for each in studies:
        request_stop(each)
    stopped = "The workers were asked to stop" if busy else "No trial is running now; a worker that is just starting was asked to stop"
    say(f"{stopped}. `hpsearch run` continues the search.")


def rm(
    study: StudyArgument,
    *,
    workspace: StoredWorkspace,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a study: its trials in the storage, and its folder with logs and checkpoints."""
    name = study_name(study)
    store = workspace.open()
    follow_ups = follow_up_names(name, store)
    if any(is_being_searched(store.load(each), workspace.locks) for each in (name, *follow_ups)):
        raise UsageError(f"'{name}' is being searched right now", hint=f"Stop the search first: hpsearch stop {name}")
    if not yes:
        also = "".join(f", and '{each}'" for each in follow_ups)
        typer.confirm(f"Delete '{name}' with its {len(read_trials(store.load(name)))} trials{also}?", abort=True, err=True)
    for each in (*follow_ups, name):
        delete_artifacts(store.load(each), store, workspace.paths.artifacts)
        store.delete(each)
    folder = workspace.paths.study(name).folder
    if folder.is_dir():
        shutil.rmtree(folder)
    say(f"Deleted '{name}' from {store}.")
