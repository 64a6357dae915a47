"""The commands that run configurations of a finished search again: finalists and explain."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.console import print_blocks, print_json, say
from hpsearch.cli.options import (
    AddressOption,
    CpusOption,
    DataOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    PerOption,
    RunsOption,
    StorageOption,
    StudyArgument,
    WorkersOption,
    engine_of,
)
from hpsearch.config.paths import DEFAULT_RUNS


def finalists(
    study: StudyArgument,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, metavar="K", help="The best K; the baseline is always one more. [default: the study file's, or 3]"),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=2, metavar="N", help="Runs of each, at most. [default: the study file's, or 8]")
    ] = None,
    per: PerOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    json: JsonOption = False,
) -> None:
    """Run the best few and the baseline again, with fresh seeds and splits: which is really the best, and by how much?

    Half of the seeds choose the winner, the other half measures it. The same command continues.
    """
    from hpsearch.cli.foreground import run_again, write_pages
    from hpsearch.config.sections import Finalists
    from hpsearch.report.text import verdict_blocks
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeats import find_verdict, finished_verdict, mean_seconds, prepare_finalists
    from hpsearch.workflows.run import find_study_file
    from hpsearch.workflows.write_report import read_study_results

    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    file = find_study_file(study, workspace)
    section = file.finalists or Finalists()
    search = prepare_finalists(
        file,
        workspace,
        top=top or section.top,
        seeds=seeds or section.seeds,
        per_model=per is not None,
        workers=workers,
        engine=engine_of(engine, address, cpus_per_worker, gpus_per_worker),
    )
    if finished_verdict(file.name, search.store) is None:
        run_again(search, pace=mean_seconds(file.name, search.store))
        write_pages(read_study_results(file.name, workspace, search.store), workspace, search.store)
    verdict = find_verdict(file.name, search.store)
    assert verdict is not None, "it was just prepared"
    if json:
        print_json({"study": file.name, **verdict.to_dict()})
        return
    print_blocks(*verdict_blocks(file.name, verdict))
    say(f"Next: hpsearch export {file.name} -o best.toml    (the winner as a config that stands alone)")


def explain(
    study: StudyArgument,
    seeds: Annotated[int, typer.Option("--seeds", min=2, metavar="N", help="Runs that measure each step.")] = 4,
    trial: Annotated[int | None, typer.Option("--trial", min=0, metavar="N", help="Where the way leads, instead of the winner.")] = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    json: JsonOption = False,
) -> None:
    """Walk from the baseline to the winner, one parameter at a time: which changes made the difference?

    At each step every change that is left is tried on one seed and the best is taken; fresh seeds then measure each step.
    """
    from hpsearch.cli.foreground import run_again, write_pages
    from hpsearch.report.text import explanation_blocks
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeats import find_explanation, mean_seconds, prepare_explanation
    from hpsearch.workflows.run import find_study_file
    from hpsearch.workflows.write_report import read_study_results

    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    file = find_study_file(study, workspace)
    cluster = engine_of(engine, address, cpus_per_worker, gpus_per_worker)
    search = prepare_explanation(file, workspace, seeds=seeds, trial=trial, workers=workers, engine=cluster)
    found = find_explanation(file, search.store)
    if found is None or not found[0].is_over:
        run_again(search, pace=mean_seconds(file.name, search.store))
        write_pages(read_study_results(file.name, workspace, search.store), workspace, search.store)
        found = find_explanation(file, search.store)
    assert found is not None, "it was just prepared"
    if json:
        print_json({"study": file.name, "trial": found[1], **found[0].to_dict()})
    else:
        print_blocks(*explanation_blocks(*found))
