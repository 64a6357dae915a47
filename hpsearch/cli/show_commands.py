"""The commands that read studies: show and ls."""

from __future__ import annotations

import csv as csv_module
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import optuna
import typer
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpsearch.analysis.leaderboard import STATES, records
from hpsearch.cli.console import print_blocks, print_json, print_result, results, say, warn
from hpsearch.cli.options import JsonOption, StudyArgument
from hpsearch.cli.watch import watch_study
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.config.paths import FINALISTS
from hpsearch.errors import StorageError, StudyNotFoundError, UsageError
from hpsearch.formatting import escape_cell, many, printable, times
from hpsearch.report.blocks import Table, number_column, text_column
from hpsearch.report.sections.summary import terminal_summary
from hpsearch.report.study_results import read_results
from hpsearch.report.text import explanation_blocks, verdict_blocks
from hpsearch.report.trial_results import trial_blocks, trial_data
from hpsearch.storage.database import Store
from hpsearch.storage.records import TrialRow, read_frozen_trials, read_study, read_trial, read_trials, readable, single_value, state_of
from hpsearch.storage.study_folder import results_folder
from hpsearch.workflows.export import require_own_files
from hpsearch.workflows.precision import show_precisions, trained_precisions
from hpsearch.workflows.repeat_study import is_follow_up, read_explanation, read_verdict, stored_file
from hpsearch.workflows.repeats import intact_verdict
from hpsearch.workflows.run import study_name


def show(
    study: StudyArgument,
    number: Annotated[int | None, typer.Argument(metavar="[N]", min=0, help="The number of a trial.", show_default=False)] = None,
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Print all trials as CSV.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a search that runs in another process, then show the leaderboard.")
    ] = False,
    workspace: StoredWorkspace,
    json: JsonOption = False,
) -> None:
    """Show a study's leaderboard, or one trial with its learning curve, configuration and error."""
    if watch and (number is not None or json or csv):
        raise UsageError("--watch shows a whole study and cannot be combined with N, --json or --csv", hint="Leave the others out.")
    name = study_name(study)
    store = workspace.open(read_only=True)
    if watch:
        watch_study(name, workspace)
    stored = store.load(name)
    if number is not None:
        trial = read_trial(stored, number)
        print_result(trial_data(trial), trial_blocks(trial), as_json=json)
        return
    if csv:
        _print_csv(read_trials(stored))
        return
    if is_follow_up(stored):
        _print_follow_up(name, store, as_json=json)
        return
    results = read_results(stored, results_folder(name, workspace, store), verdict=intact_verdict(name, store))
    readings = results.row.held_out_readings
    if json:
        finalists = None if results.verdict is None else results.verdict.to_dict()
        print_json({"study": name, **results.board.to_dict(), "finalists": finalists, "test_readings": readings})
        return
    print_blocks(*terminal_summary(results))
    _print_readings(readings)
    if formats := trained_precisions(results.trials):
        say(f"Precision: {show_precisions(formats)}")
    say(f"In the browser: hpsearch dashboard {name}, or Optuna's own dashboard:")
    say(f"  optuna-dashboard {shlex.quote(str(store))} --artifact-dir {shlex.quote(str(workspace.paths.artifacts))}")


def ls(*, workspace: StoredWorkspace, json: JsonOption = False) -> None:
    """List the studies in a storage."""
    store = workspace.open(read_only=True)
    found = [_summary(name, store) for name in store.study_names()]
    if json:
        print_json(found)
    elif not found:
        say(f"No studies in {store}.")
    else:
        drops = {"waiting": 4, "paused": 4, "running": 3, "pruned": 2, "fail": 2, "complete": 1}
        columns = (text_column(key) if key in ("study", "last") else number_column(key, drops.get(key, 0)) for key in found[0])
        rows = (
            tuple("" if value is None else f"{value:.4f}" if isinstance(value, float) else printable(str(value)) for value in row.values())
            for row in found
        )
        print_blocks(Table(columns=tuple(columns), rows=tuple(rows)))


def _summary(name: str, store: Store) -> dict[str, Any]:
    """Return the row of one study. Its records may be damaged, and other programs may have made it."""
    row: dict[str, Any] = {"study": name, **dict.fromkeys(("trials", *STATES, "best", "last"))}
    try:
        study = store.load(name)
        with readable(f"the study '{name}'"):
            trials = read_frozen_trials(study)
            last = max((trial.datetime_complete for trial in trials if trial.datetime_complete), default=None)
            states = Counter(map(state_of, trials))
            row |= {"trials": len(trials), **{state: states[state] for state in STATES}}
            row |= {"best": _best_value(study, trials), "last": last.isoformat(" ", "minutes") if last else None}
    except (StorageError, StudyNotFoundError) as error:
        warn(error.message)
    return row


def _best_value(study: optuna.Study, trials: Sequence[FrozenTrial]) -> float | None:
    """Return the best value, which for a study of another program may be the lowest; None if there are several objectives."""
    values = [value for trial in trials if trial.state.name == "COMPLETE" and (value := single_value(trial)) is not None]
    minimize = study.directions == [StudyDirection.MINIMIZE]
    return min(values, default=None) if minimize else max(values, default=None)


def _print_csv(trials: Sequence[TrialRow]) -> None:
    """Print all trials as CSV, with a column for each parameter."""
    found = records(trials)
    writer = csv_module.DictWriter(results(), fieldnames=list(found[0]) if found else ["trial"])
    writer.writeheader()
    writer.writerows({name: escape_cell(value) for name, value in row.items()} for row in found)


def _print_readings(readings: Sequence[Mapping[str, Any]]) -> None:
    """Print how often the test split was read for models of the study. Each reading is printed with its score."""
    if readings:
        say(f"Test split read {times(len(readings))}:")
    for each in readings:
        found = "cut off before its score was known" if each["accuracy"] is None else f"{100 * each['accuracy']:.2f} %"
        say(f"  {each['at']}  {each['folder']}, {many(each['seeds'], 'seed')}: {found}")


def _print_follow_up(name: str, store: Store, *, as_json: bool) -> None:
    """Print the result of a follow-up study under the name of the study that it belongs to."""
    study, base = store.load(name), name.partition(".")[0]
    if name == f"{base}.{FINALISTS}":
        verdict = read_verdict(study)
        print_result({"study": base, **verdict.to_dict()}, verdict_blocks(base, verdict), as_json=as_json)
    else:
        require_own_files(read_study(study))
        explanation, trial = read_explanation(study, stored_file(study).space)
        data = {"study": base, "trial": trial, **explanation.to_dict()}
        print_result(data, explanation_blocks(explanation, trial), as_json=as_json)
