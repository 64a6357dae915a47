"""The commands about study files: init, check and rm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say
from hpsearch.cli.options import DataOption, FileArgument, JsonOption, RunsOption, StorageOption, StudyArgument
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.report.blocks import Table, prose_column, text_column

if TYPE_CHECKING:
    from hpsearch.config.study_file import StudyFile

SCHEMA_NAME = "hpsearch.schema.json"


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("study.toml"),
    template: Annotated[str, typer.Option("--from", metavar="NAME", help="Which of the shipped studies to begin with.")] = "quickstart",
) -> None:
    """Write a commented study file, and a JSON Schema beside it for editors."""
    import json

    from hpsearch.config.study_file import json_schema, shipped_study_files
    from hpsearch.errors import UsageError, did_you_mean

    shipped = {path.stem: path for path in shipped_study_files()}
    if template not in shipped:
        raise UsageError(f"no shipped study '{template}'", hint=did_you_mean(template, shipped))
    schema = file.with_name(SCHEMA_NAME)
    if file.exists():
        raise UsageError(f"{file} exists already", hint="Name another file.")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", hint="Make it first.")
    needed = [source for source in shipped[template].parent.glob("*.py") if f'"{source.name}"' in shipped[template].read_text()]
    file.write_text(f"#:schema ./{SCHEMA_NAME}\n" + shipped[template].read_text(encoding="utf-8"), encoding="utf-8")
    for source in needed:
        shutil.copy(source, file.with_name(source.name))
    schema.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    say(f"Wrote {', '.join(str(path) for path in [file, *(file.with_name(source.name) for source in needed), schema])}.")
    say(f"Next: hpsearch check {file}    (what it says, in full)")
    say(f"      hpsearch run {file}")


def check(
    file: FileArgument,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure the cheapest and the dearest corner and estimate the search.")
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Validate a study file; print its space and defaults, and warn of unfair comparisons."""
    from hpsearch.config.distributions import Fixed
    from hpsearch.config.fairness import unfair_comparisons, unsearched_defaults
    from hpsearch.config.study_file import load_study_file
    from hpsearch.formatting import str_of

    study = load_study_file(file)
    warnings = unfair_comparisons(study.space)
    if json:
        cost = _estimate(study, data) if estimate else None
        print_json(
            {
                "study": study.name,
                "fingerprint": study.space.fingerprint,
                "space": study.space.to_plain(),
                "defaults": {owner: dict(values) for owner, values in unsearched_defaults(study.space).items()},
                "baselines": [dict(values) for values in study.baselines],
                "warnings": list(warnings),
                **({"estimate": cost} if cost else {}),
            }
        )
        return
    say(f"{study.name}: {study.description}" if study.description else study.name)
    say(
        f"{study.budget.trials} trials by {study.sampler.kind}, pruner {study.pruner.kind}, {study.data.dataset}, "
        f"{study.data.validation_images:,} validation images, seed {study.seed}"
    )
    say()
    rows = tuple(
        (
            parameter.name,
            "fixed" if isinstance(parameter.distribution, Fixed) else "searched",
            str(parameter.distribution),
            parameter.condition,
        )
        for parameter in study.space
    )
    print_blocks(Table(columns=(text_column("parameter"), text_column(""), prose_column("values"), prose_column("when")), rows=rows))
    say()
    for owner, values in unsearched_defaults(study.space).items():
        say(f"Not searched, {owner}: {', '.join(f'{name} = {str_of(value)}' for name, value in values.items())}")
    for number, values in enumerate(study.baselines, start=1):
        say(f"Baseline {number}: {', '.join(f'{name} = {str_of(value)}' for name, value in values.items())}")
    if study.finalists is not None:
        say(f"Finalists: the best {study.finalists.top} and the baseline again, with up to {study.finalists.seeds} seeds each")
    say(f"Fingerprint {study.space.fingerprint[:16]}")
    for warning in warnings:
        note(f"warning: {warning}", style="yellow")
    if estimate:
        _print_estimate(study, data)


def rm(
    study: StudyArgument,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a study: its trials in the storage and its folder of logs and checkpoints."""
    from hpsearch.errors import UsageError
    from hpsearch.report.dashboard.sync import delete_artifacts
    from hpsearch.search.claim import is_being_searched
    from hpsearch.storage.records import read_trials
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeat_study import follow_up_names
    from hpsearch.workflows.run import study_name

    workspace = Workspace(storage=storage, runs=runs)
    name = study_name(study)
    store = workspace.open()
    stored = store.load(name)
    follow_up = follow_up_names(name, store)
    if any(is_being_searched(store.load(each), workspace.locks) for each in (name, *follow_up)):
        raise UsageError(f"'{name}' is being searched right now", hint="Stop that first.")
    if not yes:
        along = "".join(f", and '{each}'" for each in follow_up)
        typer.confirm(f"Delete '{name}' with its {len(read_trials(stored))} trials{along}?", abort=True, err=True)
    for each in (*follow_up, name):
        delete_artifacts(store.load(each), store, workspace.paths.artifacts)
        store.delete(each)
    folder = workspace.paths.study(name).folder
    if folder.is_dir():
        shutil.rmtree(folder)
    say(f"Deleted '{name}' from {store}.")


def _estimate(study: StudyFile, data: Path | None) -> dict[str, float]:
    from hpsearch.workflows.estimate import estimate_search

    return estimate_search(study, data).to_dict()


def _print_estimate(study: StudyFile, data: Path | None) -> None:
    from hpsearch.formatting import show_duration
    from hpsearch.workflows.estimate import estimate_search

    note("Measuring one epoch of the cheapest and of the dearest corner …")
    found = estimate_search(study, data)
    for corner in (found.cheapest, found.dearest):
        say(
            f"{corner.label}: {corner.model}, {corner.epochs} epochs, batch {corner.batch_size}: "
            f"{show_duration(corner.epoch_seconds)} an epoch, {show_duration(corner.seconds)} a trial"
        )
    say(
        f"The search: {show_duration(found.low)} to {show_duration(found.high)} with {found.workers} workers, before pruning; half-way {show_duration(found.middle)}."
    )
