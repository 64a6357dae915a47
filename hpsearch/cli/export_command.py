"""The command export: the configuration of a trial as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.analysis.leaderboard import describe_progress, make_leaderboard
from hpsearch.cli.console import say
from hpsearch.cli.options import PerOption, StudyArgument
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.errors import UsageError
from hpsearch.storage.records import read_study, read_trial, read_trials
from hpsearch.workflows.export import best_config, select_best, write_best_config
from hpsearch.workflows.repeats import finished_verdict
from hpsearch.workflows.run import study_name


def export(
    study: StudyArgument,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; several files get the endings -1, -2 and so on.")
    ] = Path("best.toml"),
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", min=0, help="Trial N. [default: the winner of the finalists, or the best trial]")
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="The best K trials.")] = 1,
    per: PerOption = None,
    workspace: StoredWorkspace,
) -> None:
    """Write the configuration of the best trial to a file: JSON if the name ends in .json, else TOML.

    The file stands alone: `hpsearch train` and `hpsearch compare` need no study beside it.
    """
    if trial is not None and (top != 1 or per is not None):
        raise UsageError("--trial names one trial, but --top and --per choose among the best", hint="Leave one of them out.")
    name = study_name(study)
    store = workspace.open(read_only=True)
    stored = store.load(name)
    record = read_study(stored)
    verdict = finished_verdict(name, store)
    if trial is None and verdict is not None and verdict.winner is not None and top == 1 and per is None:
        trial = verdict.winner.candidate.trial
    if trial is not None:
        chosen = [read_trial(stored, trial)]
    else:
        board = make_leaderboard(read_trials(stored), validation_images=record.comparable["data"]["validation_images"])
        chosen = [ranked.trial for ranked in select_best(board, top=top, per_model=per is not None)]
    if not chosen:
        raise UsageError(f"no trial of '{name}' is complete yet", hint=f"`hpsearch run {name}` trains some.")
    paths = [output] if len(chosen) == 1 else [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(chosen) + 1)]
    for path, each in zip(paths, chosen, strict=True):
        repeats = None if verdict is None else verdict.of_trial(each.number)
        write_best_config(best_config(each, record, repeats), path)
        accuracy = "" if each.value is None else f", {100 * each.value:.2f} % on validation"
        accuracy += f" after {describe_progress(each)}, where it was {each.state}" if each.state in ("pruned", "paused") else ""
        accuracy += "" if repeats is None else f", {100 * repeats.mean.value:.2f} % as a finalist"
        say(f"Wrote {path}: trial {each.number}, {each.model}{accuracy}.")
