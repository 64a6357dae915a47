"""The options for the workspace, the budget and the engine. This module loads Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hpsearch.cli.options import DataOption, DeviceOption, Options
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.config.sections import parse_duration
from hpsearch.errors import UsageError
from hpsearch.search.ray_pool import RayEngine
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.ray_node import supervise_worker

StorageOption = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="Database of the studies. [default: $OPTUNA_STORAGE, or a SQLite file in --runs]"),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder for logs, checkpoints, reports and the default storage.")]


def _stored(*, storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS) -> Workspace:
    return Workspace(storage=storage, runs=runs)


def _with_data(*, storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS, data: DataOption = None) -> Workspace:
    return Workspace(storage=storage, runs=runs, data=data)


def _training(
    *, storage: StorageOption = None, runs: RunsOption = DEFAULT_RUNS, data: DataOption = None, device: DeviceOption = "auto"
) -> Workspace:
    return Workspace(storage=storage, runs=runs, data=data, device=device)


def _engine(
    *,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="Run the workers on this machine, or on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS", help="The Ray cluster. [default: $RAY_ADDRESS, or a new one on this machine]"),
    ] = None,
    cpus_per_worker: Annotated[
        float | None, typer.Option("--cpus-per-worker", metavar="N", min=0, help="CPUs that Ray reserves for each worker. [default: 1]")
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-worker", metavar="N", min=0, help="GPUs that Ray reserves for each worker, for example 0.25. [default: 0]"
        ),
    ] = None,
) -> RayEngine | None:
    if engine == "ray":
        cpus = 1.0 if cpus_per_worker is None else cpus_per_worker
        return RayEngine(task=supervise_worker, address=address, cpus=cpus, gpus=gpus_per_worker or 0.0)
    for name, value in (("--address", address), ("--cpus-per-worker", cpus_per_worker), ("--gpus-per-worker", gpus_per_worker)):
        if value is not None:
            raise UsageError(f"{name} is an option of the engine 'ray', but the engine is '{engine}'", hint="Add --engine ray.")
    return None


StoredWorkspace = Annotated[Workspace, Options(_stored)]
"""The options --storage and --runs, for commands that read studies."""
DataWorkspace = Annotated[Workspace, Options(_with_data)]
"""The options --storage, --runs and --data, for commands that read studies and a data set."""
TrainingWorkspace = Annotated[Workspace, Options(_training)]
"""The options --storage, --runs, --data and --device, for commands that train."""
EngineOptions = Annotated[RayEngine | None, Options(_engine)]
"""The option --engine and the options of Ray. The value is None if the workers run on this machine."""

TrialsOption = Annotated[int | None, typer.Option("--trials", metavar="N", min=1, help="Trials in total. [default: the study file's]")]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs of all trials together. [default: the study file's]")
]
TimeOption = Annotated[
    str | None,
    typer.Option("--time", metavar="TIME", help='Time for all runs of the study together: "2h", "10m". [default: the study file\'s]'),
]


def seconds_of(time: str | None) -> float | None:
    """Return the seconds of the option --time, or None if it was not given.

    Args:
        time: a duration such as "2h" or "10m".

    Raises:
        UsageError: the text is not a duration.
    """
    try:
        return None if time is None else parse_duration(time)
    except ValueError as error:
        raise UsageError(f"--time {error}, but got '{time}'") from error
