"""The commands for study files: init and check."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say, warn
from hpsearch.cli.options import DataOption, FileArgument, JsonOption
from hpsearch.config.distributions import Fixed
from hpsearch.config.fairness import unfair_comparisons, unsearched_defaults, wasted_settings
from hpsearch.config.study_file import StudyFile, json_schema, load_study_file, shipped_study_files
from hpsearch.errors import UsageError, did_you_mean
from hpsearch.formatting import show_duration, str_of
from hpsearch.report.blocks import Table, prose_column, text_column
from hpsearch.workflows.precision import choose_precision, possible_precisions, show_precisions

SCHEMA_NAME = "hpsearch.schema.json"


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write.")] = Path("study.toml"),
    template: Annotated[str, typer.Option("--from", metavar="NAME", help="The shipped study to copy.")] = "quickstart",
) -> None:
    """Write a commented study file to start from, and a JSON Schema for editors beside it."""
    shipped = {path.stem: path for path in shipped_study_files()}
    if template not in shipped:
        raise UsageError(f"no shipped study '{template}'", hint=did_you_mean(template, shipped))
    schema = file.parent / SCHEMA_NAME
    if file.exists():
        raise UsageError(f"{file} exists already", hint="Give another file name.")
    if not file.parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist", hint="Create it first.")
    text = shipped[template].read_text(encoding="utf-8")
    sources = [source for source in shipped[template].parent.glob("*.py") if f'"{source.name}"' in text]
    file.write_text(f"#:schema ./{SCHEMA_NAME}\n{text}", encoding="utf-8")
    copies = [shutil.copy(source, file.parent / source.name) for source in sources]
    schema.write_text(dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    say(f"Wrote {', '.join(map(str, [file, *copies, schema]))}.")
    say(f"Next: hpsearch check {file}    (checks it and prints the search space)")
    say(f"      hpsearch run {file}")


def check(
    file: FileArgument,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure the cheapest and the most expensive configuration, and estimate the time.")
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check a study file, print its search space and defaults, and warn of settings that spoil the result."""
    study = load_study_file(file).with_precision(choose_precision("auto"))
    warnings = (*unfair_comparisons(study.space), *wasted_settings(study, study.budget))
    if not json:
        _print_study(study)
        for warning in warnings:
            warn(warning)
        if estimate:
            _print_estimate(study, data)
        return
    result = {
        "study": study.name,
        "fingerprint": study.space.fingerprint,
        "space": study.space.to_plain(),
        "defaults": {owner: dict(values) for owner, values in unsearched_defaults(study.space).items()},
        "precision": {model: list(formats) for model, formats in possible_precisions(study).items()},
        "baselines": [dict(values) for values in study.baselines],
        "warnings": list(warnings),
    }
    if estimate:
        from hpsearch.workflows.estimate import estimate_search  # loads torch

        result["estimate"] = asdict(estimate_search(study, data))
    print_json(result)


def _print_study(study: StudyFile) -> None:
    say(f"{study.name}: {study.description}" if study.description else study.name)
    say(
        f"{study.budget.amount} by {study.sampler.kind}, pruner {study.pruner.kind}, {study.data.dataset}, "
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
    say(f"Precision of a study that begins on this machine: {show_precisions(possible_precisions(study))}")
    for number, baseline in enumerate(study.baselines, start=1):
        say(f"Baseline {number}: {', '.join(f'{name} = {str_of(value)}' for name, value in baseline.items())}")
    if study.finalists is not None:
        say(f"Finalists: the best {study.finalists.top} and the baseline again, with up to {study.finalists.seeds} seeds each")
    say(f"Fingerprint {study.space.fingerprint[:16]}")


def _print_estimate(study: StudyFile, data: Path | None) -> None:
    from hpsearch.workflows.estimate import estimate_search  # loads torch

    note("Measuring one epoch of the cheapest and of the most expensive configuration …")
    estimate = estimate_search(study, data)
    for corner in (estimate.cheapest, estimate.dearest):
        say(
            f"{corner.label}: {corner.model}, {corner.epochs} epochs, batch {corner.batch_size}: "
            f"{show_duration(corner.epoch_seconds)} an epoch, {show_duration(corner.seconds)} a trial"
        )
    say(
        f"The search takes {show_duration(estimate.low)} to {show_duration(estimate.high)} with {estimate.workers} workers before pruning; "
        f"the middle is {show_duration(estimate.middle)}."
    )
