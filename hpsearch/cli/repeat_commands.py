"""The commands that run configurations of a finished search again: finalists and explain."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.console import print_result, say
from hpsearch.cli.foreground import run_repeats, write_pages
from hpsearch.cli.options import JsonOption, PerOption, StudyArgument, WorkersOption
from hpsearch.cli.workspace_options import EngineOptions, TrainingWorkspace
from hpsearch.config.sections import Finalists
from hpsearch.report.text import explanation_blocks, verdict_blocks
from hpsearch.workflows.repeats import find_explanation, find_verdict, finished_verdict, prepare_explanation, prepare_finalists
from hpsearch.workflows.run import find_study_file
from hpsearch.workflows.write_report import read_study_results


def finalists(
    study: StudyArgument,
    *,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="K", min=1, help="Repeat the best K trials; the baseline is always added. [default: the study file's, or 3]"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", min=2, help="Runs of each trial, at most. [default: the study file's, or 8]")
    ] = None,
    per: PerOption = None,
    workers: WorkersOption = None,
    workspace: TrainingWorkspace,
    engine: EngineOptions,
    json: JsonOption = False,
) -> None:
    """Repeat the best trials and the baseline with new seeds and splits: which one is really the best, and by how much?

    Half of the seeds choose the winner, and the other half measures it. The same command continues after a stop.
    """
    file = find_study_file(study, workspace)
    section = file.finalists or Finalists()
    search = prepare_finalists(
        file,
        workspace,
        top=top or section.top,
        seeds=seeds or section.seeds,
        per_model=per is not None,
        workers=workers,
        engine=engine,
    )
    if finished_verdict(file.name, search.store) is None:
        run_repeats(search)
        write_pages(read_study_results(file.name, workspace, search.store), search)
    verdict = find_verdict(file.name, search.store)
    assert verdict is not None, "it was just prepared"
    print_result({"study": file.name, **verdict.to_dict()}, verdict_blocks(file.name, verdict), as_json=json)
    if not json:
        say(f"Next: hpsearch export {file.name} -o best.toml    (writes the winner's configuration to a file)")


def explain(
    study: StudyArgument,
    *,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=2, help="Runs that measure each step.")] = 4,
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", min=0, help="Explain trial N. [default: the winner of the finalists]")
    ] = None,
    workers: WorkersOption = None,
    workspace: TrainingWorkspace,
    engine: EngineOptions,
    json: JsonOption = False,
) -> None:
    """Go from the baseline to the winner, one parameter at a time: which changes made the difference?

    Each step tries every change that is left with one seed and takes the best. New seeds then measure the step.
    """
    file = find_study_file(study, workspace)
    search = prepare_explanation(file, workspace, seeds=seeds, trial=trial, workers=workers, engine=engine)
    explanation = find_explanation(file, search.store)
    if explanation is None or not explanation[0].is_over:
        run_repeats(search)
        write_pages(read_study_results(file.name, workspace, search.store), search)
        explanation = find_explanation(file, search.store)
    assert explanation is not None, "it was just prepared"
    data = {"study": file.name, "trial": explanation[1], **explanation[0].to_dict()}
    print_result(data, explanation_blocks(*explanation), as_json=json)
