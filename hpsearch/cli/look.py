"""The commands that only read: show and ls. No torch."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.console import print_json, print_table, say
from hpsearch.cli.options import JsonOption, RunsOption, StorageOption, StudyArgument
from hpsearch.paths import DEFAULT_RUNS


def show(
    study: StudyArgument,
    number: Annotated[int | None, typer.Argument(metavar="[N]", min=0, help="A trial's number.", show_default=False)] = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print all trials as CSV.")] = False,
) -> None:
    """Show a study's leaderboard, or one trial with its curve, config and error."""
    from hpsearch.cli.show_study import print_csv, print_leaderboard
    from hpsearch.cli.show_trial import print_trial
    from hpsearch.results.leaderboard import make_leaderboard
    from hpsearch.run import Place, study_name
    from hpsearch.storage import one_trial, read_study, read_trials

    name = study_name(study)
    stored = Place(storage=storage, runs=runs).open().load(name)
    if number is not None:
        print_trial(one_trial(stored, number), as_json=json)
        return
    trials = read_trials(stored)
    if csv:
        print_csv(trials)
        return
    board = make_leaderboard(trials, validation_images=read_study(stored).comparable["data"]["validation_images"])
    if json:
        print_json({"study": name, **board.to_dict()})
    else:
        print_leaderboard(name, board)


def ls(storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS, json: JsonOption = False) -> None:
    """List the studies of a storage."""
    from hpsearch.run import Place
    from hpsearch.storage import read_trials

    store = Place(storage=storage, runs=runs).open()
    found = []
    for name in store.names():
        trials = read_trials(store.load(name))
        best = max((trial.value for trial in trials if trial.state == "complete" and trial.value is not None), default=None)
        last = max((trial.finished for trial in trials if trial.finished), default=None)
        states = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "fail", "running", "waiting")}
        found.append(
            {"study": name, "trials": len(trials), **states, "best": best, "last": last.isoformat(" ", "minutes") if last else None}
        )
    if json:
        print_json(found)
    elif not found:
        say(f"No studies in {store}.")
    else:
        columns = {key: "left" if key in ("study", "last") else "right" for key in found[0]}
        rows = [
            ["" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()] for row in found
        ]
        print_table(columns, rows)
