"""The commands that search: run and try."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.cli.console import note, print_result, say, warn
from hpsearch.cli.foreground import run_in_foreground, run_repeats, write_pages
from hpsearch.cli.options import JsonOption, StudyArgument, WorkersOption, parse_assignments
from hpsearch.cli.workspace_options import EngineOptions, EpochsOption, TimeOption, TrainingWorkspace, TrialsOption, seconds_of
from hpsearch.config.fairness import wasted_settings
from hpsearch.formatting import many, show_duration
from hpsearch.report.sections.summary import terminal_summary
from hpsearch.report.trial_results import trial_blocks, trial_data
from hpsearch.storage.records import read_trials
from hpsearch.workflows.repeats import find_verdict, finished_verdict, prepare_finalists
from hpsearch.workflows.run import add_trial, find_study_file, prepare_search
from hpsearch.workflows.supervisor import Search
from hpsearch.workflows.write_report import read_study_results


def run(
    study: StudyArgument,
    *,
    trials: TrialsOption = None,
    epochs: EpochsOption = None,
    time: TimeOption = None,
    workers: WorkersOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Repeat failed trials, in addition to the budget.")] = False,
    workspace: TrainingWorkspace,
    engine: EngineOptions,
    json: JsonOption = False,
) -> None:
    """Run the search that a study file describes. The same command continues it after a stop.

    The command ends with the leaderboard and a report. Ctrl-C stops the search and puts running trials back into the queue.
    """
    file = find_study_file(study, workspace)
    search = prepare_search(
        file, workspace, trials=trials, epochs=epochs, seconds=seconds_of(time), workers=workers, retry_failed=retry_failed, engine=engine
    )
    _announce(search)
    if not search.is_spent:
        run_in_foreground(search)
    elif not search.has_converged:
        options = [f"--{name}" for name in ("trials", "epochs") if getattr(search.budget, name) is not None]
        note(f"The budget of {search.budget.amount} is spent. {' and '.join(options)} allow{'s' if len(options) == 1 else ''} more.")
    verdict = None if file.finalists is None else _run_finalists(search, workers)
    _print_result(search, verdict, as_json=json)


def try_(
    study: StudyArgument,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[N] [NAME=VALUE]...", help="The trial to start from, and the values to change.", show_default=False),
    ] = None,
    *,
    workspace: TrainingWorkspace,
    json: JsonOption = False,
) -> None:
    """Train one configuration that you choose, as a trial of the study.

    The configuration is trial N, or the best trial so far, with the values that you change. Example: hpsearch try quickstart 7 sgd.lr=0.1
    """
    words = settings or []
    base = int(words.pop(0)) if words and words[0].isdecimal() else None
    file = find_study_file(study, workspace)
    search = prepare_search(file, workspace)
    number, lease = add_trial(search, parse_assignments(words), base=base)
    note(f"Training trial {number} of {file.name} …")
    try:
        run_in_foreground(search, only=number)
    finally:
        lease.release()
    trial = read_trials(search.study)[number]
    print_result(trial_data(trial), trial_blocks(trial), as_json=json)


def _run_finalists(search: Search, workers: int | None) -> FinalistsResult | None:
    """Run the finalists that the study file asks for.

    Return None if no trial is complete, or if some trials still run or wait.
    """
    section = search.file.finalists
    assert section is not None, "the caller has checked it"
    trials = read_trials(search.study)
    if not all(trial.is_finished for trial in trials):
        note("The finalists will run when no trial runs or waits any more.")
        return None
    if not any(trial.state == "complete" for trial in trials):
        return None
    name = search.file.name
    repeats = prepare_finalists(search.file, search.workspace, top=section.top, seeds=section.seeds, workers=workers, engine=search.engine)
    if finished_verdict(name, search.store) is None:
        run_repeats(repeats)
    return find_verdict(name, search.store)


def _announce(search: Search) -> None:
    file, budget = search.file, search.budget
    time = f" or {show_duration(budget.time)}" if budget.time else ""
    models = " and ".join(file.space.names_of("model"))
    pruner = file.pruner.kind if file.pruner.kind != "none" else "no"
    note(
        f"{file.name}: {models} on {file.data.dataset}, {len(file.space.searched)} hyperparameters by {file.sampler.kind}, "
        f"{pruner} pruner, {budget.amount}{time}."
    )
    for warning in wasted_settings(file, budget):
        warn(warning)
    if search.earlier:
        note(f"Continues: the study has {search.earlier} trials already.")
    if search.requeued:
        note(f"Trials {', '.join(map(str, search.requeued))} were interrupted and go on.")
    if search.retried:
        note(f"Failed trials {', '.join(map(str, search.retried))} are tried again.")
    for line in search.changed:
        note(f"Changed since the last run: {line}" if " → " in line else f"{line[0].upper()}{line[1:]}.")
    note(f"{many(search.workers.count, 'worker')} ({search.workers.reason}); logs in {search.workspace.paths.study(file.name).logs}.")


def _print_result(search: Search, verdict: FinalistsResult | None, *, as_json: bool) -> None:
    name = search.file.name
    results = read_study_results(name, search.workspace, search.store)
    board = results.board
    data = {"study": name, **board.to_dict(), "finalists": None if verdict is None else verdict.to_dict()}
    print_result(data, terminal_summary(results), as_json=as_json)
    if board.best is not None and not as_json:
        say(f"Next: hpsearch show {name} {board.best.trial.number}    (its learning curve and configuration)")
        if verdict is None:
            say(f"      hpsearch finalists {name}    (repeats the best trials with new seeds: is the best really the best?)")
        else:
            say(f"      hpsearch explain {name}    (measures which settings made the difference)")
            say(f"      hpsearch export {name} -o best.toml    (writes the winner's configuration to a file)")
        budget = search.budget
        more = f"--trials {2 * max(budget.trials, board.total)}" if budget.trials else ""
        more += f" --epochs {2 * budget.epochs}" if budget.epochs else ""
        if search.has_converged:
            say('The search has ended by itself, because `stop = "auto"` is in [budget]. Without it, the same command goes on.')
        else:
            say(f"      hpsearch run {name} {more.strip()}    (continues the search)")
    write_pages(results, search)
    if board.counts["complete"] + board.counts["pruned"] == 0:
        sys.exit(1)
