"""The commands that train: run, try and worker."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say
from hpsearch.cli.options import (
    AddressOption,
    CpusOption,
    DataOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    RunsOption,
    StorageOption,
    StudyArgument,
    WorkersOption,
    engine_of,
)
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.formatting import many, show_duration

if TYPE_CHECKING:
    from hpsearch.analysis.finalists import FinalistsResult
    from hpsearch.workflows.supervisor import Search

TrialsOption = Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all, instead of the study file's.")]
TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="TIME", help='Time in all runs, instead of the study file\'s: "2h", "10m".')
]


def run(
    study: StudyArgument,
    trials: TrialsOption = None,
    time: TimeOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again, on top of the budget.")] = False,
    json: JsonOption = False,
) -> None:
    """Search what a study file asks for; the same command again continues.

    Ends with the leaderboard and a report. Ctrl-C puts running trials back into the queue.
    """
    from hpsearch.cli.foreground import watch
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.run import find_study_file, prepare_search

    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    cluster = engine_of(engine, address, cpus_per_worker, gpus_per_worker)
    file = find_study_file(study, workspace)
    search = prepare_search(
        file, workspace, trials=trials, seconds=_seconds(time), workers=workers, retry_failed=retry_failed, engine=cluster
    )
    _announce(search)
    if search.is_spent:
        note(f"The budget is spent: {search.budget.trials} of {search.budget.trials} trials. --trials allows more.")
    else:
        watch(search)
    verdict = _run_finalists(search, workers) if file.finalists is not None else None
    _print_result(search, verdict, as_json=json)


def try_(
    study: StudyArgument,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[N] [NAME=VALUE]...", help="A trial to start from, and what to change.", show_default=False),
    ] = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train one point of the space by hand, as a trial of the study.

    Without N it starts from the best trial so far. For example: hpsearch try quickstart 7 sgd.lr=0.1
    """
    from hpsearch.cli.foreground import watch
    from hpsearch.report.trial_results import trial_blocks, trial_data
    from hpsearch.storage.records import read_trials
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.run import add_trial, find_study_file, prepare_search

    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    file = find_study_file(study, workspace)
    base, changes = _parse_settings(settings or [])
    search = prepare_search(file, workspace)
    number, lease = add_trial(search, changes, base=base)
    note(f"Training trial {number} of {file.name} …")
    try:
        watch(search, number)
    finally:
        lease.release()
    trial = read_trials(search.study)[number]
    if json:
        print_json(trial_data(trial))
    else:
        print_blocks(*trial_blocks(trial))


def stop(study: StudyArgument, storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS) -> None:
    """Ask all workers of a study to stop, from another terminal: their trials go back to the queue."""
    from hpsearch.search.claim import is_being_searched
    from hpsearch.storage.records import request_stop
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeat_study import follow_up_names
    from hpsearch.workflows.run import study_name

    workspace = Workspace(storage=storage, runs=runs)
    store, name = workspace.open(), study_name(study)
    stored = [store.load(each) for each in (name, *follow_up_names(name, store))]
    busy = any(is_being_searched(each, workspace.locks) for each in stored)
    for each in stored:
        request_stop(each)
    said = "Its workers were asked to stop" if busy else "Nobody is training a trial of it right now; who begins to was asked to stop"
    say(f"{said}. `hpsearch run` continues.")


def worker(
    study: StudyArgument,
    name: Annotated[
        str | None, typer.Option("--name", help="Unique name in logs and in the database. [default: machine and process]")
    ] = None,
    trials: TrialsOption = None,
    time: TimeOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    only: Annotated[int | None, typer.Option("--only", min=0, help="Train this trial and no other.")] = None,
    order: Annotated[str | None, typer.Option("--order", help="A supervisor's order, as JSON.", hidden=True)] = None,
) -> None:
    """Join a study from any shell: train its trials until nothing is left to do.

    `hpsearch run` starts its workers itself.
    """
    from hpsearch.search.worker_order import WorkerOrder
    from hpsearch.search.worker_pool import train_like_a_worker
    from hpsearch.workflows.worker_process import run_worker

    if order is not None:
        worker_order = WorkerOrder.model_validate_json(order)
    else:
        train_like_a_worker()  # a supervisor sets this environment itself
        name = name or f"{platform.node() or 'worker'}-{os.getpid()}"
        worker_order = WorkerOrder(
            study=study, worker=name, runs=runs, data=data, device=device, trials=trials, time=_seconds(time), only_trial=only
        )
    ended = run_worker(worker_order, storage=storage)
    note(f"{worker_order.worker} is done: it ended {many(ended, 'trial')}.")


def _run_finalists(search: Search, workers: int | None) -> FinalistsResult | None:
    """The finalists that the study file asks for; None where no trial came so far, or others still search."""
    from hpsearch.cli.foreground import run_again
    from hpsearch.storage.records import read_trials
    from hpsearch.workflows.repeats import find_verdict, finished_verdict, mean_seconds, prepare_finalists

    section = search.file.finalists
    assert section is not None, "asked for"
    trials = read_trials(search.study)
    if not all(trial.is_finished for trial in trials):
        note("The finalists run when no trial is left to be trained.")
        return None
    if not any(trial.state == "complete" for trial in trials):
        return None
    again = prepare_finalists(search.file, search.workspace, top=section.top, seeds=section.seeds, workers=workers, engine=search.engine)
    if finished_verdict(search.file.name, search.store) is None:
        run_again(again, pace=mean_seconds(search.file.name, search.store))
    return find_verdict(search.file.name, search.store)


def _announce(search: Search) -> None:
    file, budget = search.file, search.budget
    time = f" or {show_duration(budget.time)}" if budget.time else ""
    models = " and ".join(file.space.names_of("model"))
    note(
        f"{file.name}: {models} on {file.data.dataset}, {len(file.space.searched)} parameters by {file.sampler.kind}, "
        f"{file.pruner.kind if file.pruner.kind != 'none' else 'no'} pruner, {budget.trials} trials{time}."
    )
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
    from hpsearch.cli.foreground import write_pages
    from hpsearch.report.sections.summary import terminal_summary
    from hpsearch.workflows.write_report import read_study_results

    name = search.file.name
    results = read_study_results(name, search.workspace, search.store)
    board = results.board
    if as_json:
        print_json({"study": name, **board.to_dict(), "finalists": None if verdict is None else verdict.to_dict()})
        write_pages(results, search.workspace, search.store)
        return
    print_blocks(*terminal_summary(results))
    if board.best is not None:
        say(f"Next: hpsearch show {name} {board.best.trial.number}    (its curve and its whole config)")
        if verdict is None:
            say(f"      hpsearch finalists {name}    (is the best really the best? the best few again, with fresh seeds)")
        else:
            say(f"      hpsearch explain {name}    (which settings made the difference)")
            say(f"      hpsearch export {name} -o best.toml    (the winner as a config that stands alone)")
        say(f"      hpsearch run {name} --trials {2 * max(search.budget.trials, board.total)}    (search on)")
    write_pages(results, search.workspace, search.store)
    if board.counts["complete"] + board.counts["pruned"] == 0:
        sys.exit(1)


def _parse_settings(words: list[str]) -> tuple[int | None, dict[str, Any]]:
    from hpsearch.errors import ConfigError

    base = None
    if words and words[0].isdecimal():
        base, words = int(words[0]), words[1:]
    return base, parse_assignments(words, ConfigError)


def parse_assignments(words: list[str], error: type[Exception]) -> dict[str, Any]:
    """`["sgd.lr=0.1", "model=cnn"]` as values; numbers, true and false as TOML writes them."""
    import tomllib

    values: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise error(f"expected NAME=VALUE, but got '{word}'")
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name] = text
    return values


def _seconds(text: str | None) -> float | None:
    from hpsearch.config.sections import parse_duration
    from hpsearch.errors import UsageError

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--time {error}, but got '{text}'") from error
