"""The commands that act on a stored study as a whole: stop and rm."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from hpsearch.cli.console import say
from hpsearch.cli.options import StudyArgument
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.errors import UsageError
from hpsearch.report.dashboard.sync import delete_artifacts
from hpsearch.search.claim import is_being_searched
from hpsearch.storage.records import read_trials, request_stop, require_own
from hpsearch.storage.study_folder import delete_folder, require_own_folder
from hpsearch.workflows.repeat_study import follow_up_names
from hpsearch.workflows.run import study_name


def stop(study: StudyArgument, *, workspace: StoredWorkspace) -> None:
    """Stop a running search from another terminal: its trials go back to the queue.

    All workers of the study and of its finalists are asked to stop.
    """
    store, name = workspace.open(), study_name(study)
    studies = [store.load(each) for each in (name, *follow_up_names(name, store))]
    for each in studies:
        require_own(each, hint="The program that made it can stop it.")
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
    studies = [store.load(each) for each in (*follow_ups, name)]
    for each in studies:
        other = f"optuna delete-study --study-name {shlex.quote(each.study_name)} --storage {shlex.quote(str(store))}"
        require_own(each, hint=f"This deletes it: {other}")
    if any(is_being_searched(each, workspace.locks) for each in studies):
        raise UsageError(f"'{name}' is being searched right now", hint=f"Stop the search first: hpsearch stop {name}")
    require_own_folder(name, workspace, store)
    if not yes:
        also = "".join(f", and '{each}'" for each in follow_ups)
        typer.confirm(f"Delete '{name}' with its {len(read_trials(store.load(name)))} trials{also}?", abort=True, err=True)
    delete_folder(name, workspace)  # before the records: if it fails, the study is still there, and the command can be repeated
    for each in studies:
        workspace.identity_of(each)  # a copy forgets the files of its original
        delete_artifacts(each, store, workspace.paths.artifacts)
        store.delete(each.study_name)
    say(f"Deleted '{name}' from {store}.")
