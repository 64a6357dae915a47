"""The commands that only read a study: show, ls and export. No torch."""

from __future__ import annotations

import csv as csv_module
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.console import print_blocks, print_json, say
from hpsearch.cli.options import JsonOption, PerOption, RunsOption, StorageOption, StudyArgument
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.report.blocks import Table, number_column, text_column

if TYPE_CHECKING:
    from hpsearch.storage.database import Store
    from hpsearch.storage.records import TrialRow


def show(
    study: StudyArgument,
    number: Annotated[int | None, typer.Argument(metavar="[N]", min=0, help="A trial's number.", show_default=False)] = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print all trials as CSV.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look on while it is searched elsewhere, then show it.")] = False,
) -> None:
    """Show a study's leaderboard, or one trial with its curve, config and error."""
    if watch and (number is not None or json or csv):
        from hpsearch.errors import UsageError

        raise UsageError("--watch shows a study as a whole, and goes with neither N nor --json or --csv", hint="Leave the others out.")
    from hpsearch.report.sections.summary import terminal_summary
    from hpsearch.report.study_results import read_results
    from hpsearch.report.trial_results import trial_blocks, trial_data
    from hpsearch.storage.records import read_trial, read_trials
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeat_study import is_follow_up
    from hpsearch.workflows.repeats import find_verdict
    from hpsearch.workflows.run import study_name

    name = study_name(study)
    workspace = Workspace(storage=storage, runs=runs)
    store = workspace.open()
    if watch:
        from hpsearch.cli.watch import watch as look_on

        look_on(name, workspace)
    stored = store.load(name)
    if number is not None:
        trial = read_trial(stored, number)
        if json:
            print_json(trial_data(trial))
        else:
            print_blocks(*trial_blocks(trial))
        return
    if csv:
        _print_csv(read_trials(stored))
        return
    if is_follow_up(stored):
        _print_follow_up(name, store, as_json=json)
        return
    results = read_results(stored, workspace.paths.study(name), verdict=find_verdict(name, store))
    readings = results.row.held_out_readings
    if json:
        finalists = None if results.verdict is None else results.verdict.to_dict()
        print_json({"study": name, **results.board.to_dict(), "finalists": finalists, "test_readings": readings})
        return
    print_blocks(*terminal_summary(results))
    _print_readings(readings)
    say(f"In the browser: hpsearch dashboard {name}, or plain optuna-dashboard, which shows the same:")
    say(f"  optuna-dashboard {shlex.quote(str(store))} --artifact-dir {shlex.quote(str(workspace.paths.artifacts))}")


def ls(storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS, json: JsonOption = False) -> None:
    """List the studies of a storage."""
    from hpsearch.analysis.leaderboard import count_states, rank
    from hpsearch.storage.records import read_trials
    from hpsearch.storage.workspace import Workspace

    store = Workspace(storage=storage, runs=runs).open()
    found = []
    for name in store.study_names():
        trials = read_trials(store.load(name))
        best = next((trial.value for trial in rank(trials)), None)
        last = max((trial.finished for trial in trials if trial.finished), default=None)
        found.append(
            {
                "study": name,
                "trials": len(trials),
                **count_states(trials),
                "best": best,
                "last": last.isoformat(" ", "minutes") if last else None,
            }
        )
    if json:
        print_json(found)
    elif not found:
        say(f"No studies in {store}.")
    else:
        drops = {"waiting": 4, "running": 3, "pruned": 2, "fail": 2, "complete": 1}
        columns = (text_column(key) if key in ("study", "last") else number_column(key, drops.get(key, 0)) for key in found[0])
        rows = (
            tuple("" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values())
            for row in found
        )
        print_blocks(Table(columns=tuple(columns), rows=tuple(rows)))


def export(
    study: StudyArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; with several, -1, -2 and so on are added.")
    ] = Path("best.toml"),
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, metavar="N", help="This trial, instead of the finalists' winner, or of the best.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="K", help="The best K.")] = 1,
    per: PerOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Write a trial as a config that stands alone: TOML, or JSON where the name ends in .json."""
    from hpsearch.analysis.leaderboard import make_leaderboard
    from hpsearch.errors import UsageError
    from hpsearch.storage.records import read_study, read_trial, read_trials
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.export import best_config, select_best, write_best_config
    from hpsearch.workflows.repeats import finished_verdict
    from hpsearch.workflows.run import study_name

    if trial is not None and (top != 1 or per is not None):
        raise UsageError("--trial names one trial, but --top and --per choose among the best", hint="Leave one of them out.")
    name = study_name(study)
    store = Workspace(storage=storage, runs=runs).open()
    stored = store.load(name)
    row = read_study(stored)
    verdict = finished_verdict(name, store)
    winner = None if verdict is None or verdict.winner is None else verdict.winner.candidate.trial
    if trial is not None:
        chosen = [read_trial(stored, trial)]
    elif winner is not None and top == 1 and per is None:
        chosen = [read_trial(stored, winner)]
    else:
        board = make_leaderboard(read_trials(stored), validation_images=row.comparable["data"]["validation_images"])
        chosen = [ranked.trial for ranked in select_best(board, top=top, per_model=per is not None)]
    if not chosen:
        raise UsageError(f"no trial of '{name}' is complete yet", hint="`hpsearch run` trains some.")
    paths = [output] if len(chosen) == 1 else [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(chosen) + 1)]
    for path, each in zip(paths, chosen, strict=True):
        again = None if verdict is None else verdict.of_trial(each.number)
        write_best_config(best_config(each, row, again), path)
        value = "" if each.value is None else f", {100 * each.value:.2f} % on validation"
        value += f" after epoch {len(each.epochs)}, where it was pruned" if each.state == "pruned" else ""
        value += "" if again is None else f", {100 * again.mean.value:.2f} % as a finalist"
        say(f"Wrote {path}: trial {each.number}, {each.model}{value}.")


def _print_csv(trials: Sequence[TrialRow]) -> None:
    """Print all trials as CSV, a column for each parameter."""
    from hpsearch.analysis.leaderboard import records
    from hpsearch.formatting import escape_cell

    found = records(trials)
    writer = csv_module.DictWriter(sys.stdout, fieldnames=list(found[0]) if found else ["trial"])
    writer.writeheader()
    writer.writerows({name: escape_cell(value) for name, value in row.items()} for row in found)


def _print_readings(readings: Sequence[Mapping[str, Any]]) -> None:
    """Print how often the test split was read for models of the study, and the score of each reading."""
    from hpsearch.formatting import many, times

    if readings:
        say(f"Test split read {times(len(readings))}:")
    for each in readings:
        found = "cut off before its score was known" if each["accuracy"] is None else f"{100 * each['accuracy']:.2f} %"
        say(f"  {each['at']}  {each['folder']}, {many(each['seeds'], 'seed')}: {found}")


def _print_follow_up(name: str, store: Store, *, as_json: bool) -> None:
    """Print the result of a follow-up study for the study that it belongs to."""
    from hpsearch.config.paths import FINALISTS
    from hpsearch.report.text import explanation_blocks, verdict_blocks
    from hpsearch.workflows.repeat_study import read_explanation, read_verdict, stored_file

    study, base = store.load(name), name.partition(".")[0]
    if name == f"{base}.{FINALISTS}":
        verdict = read_verdict(study)
        if as_json:
            print_json({"study": base, **verdict.to_dict()})
        else:
            print_blocks(*verdict_blocks(base, verdict))
        return
    explanation, trial = read_explanation(study, stored_file(study).space)
    if as_json:
        print_json({"study": base, "trial": trial, **explanation.to_dict()})
    else:
        print_blocks(*explanation_blocks(explanation, trial))
