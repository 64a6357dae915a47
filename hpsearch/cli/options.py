"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from hpsearch.search.ray_pool import RayEngine

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or a study file.", show_default=False)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A study file.", show_default=False)]
StorageOption = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="The storage. [default: $OPTUNA_STORAGE, or a SQLite file in the folder of runs]"),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of runs: logs, checkpoints, the default storage.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The folder of the data set. [default: $HPSEARCH_DATA, data/, Debian's package]"),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, max=1024, help="Processes. [default: what cores, memory and budget make sense of]")
]
EngineOption = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Where the workers run: on this machine, or on a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="The Ray cluster. [default: $RAY_ADDRESS, or one of this machine's own]"),
]
CpusOption = Annotated[float | None, typer.Option("--cpus-per-worker", min=0, help="CPUs that Ray sets aside for each. [default: 1]")]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-worker", min=0, help="GPUs that Ray sets aside for each; 0.25 is a quarter of one. [default: 0]")
]
PerOption = Annotated[Literal["model"] | None, typer.Option("--per", help="So many of each model.")]


def engine_of(engine: str, address: str | None, cpus: float | None, gpus: float | None) -> RayEngine | None:
    """The cluster that these options name; None for this machine.

    Raises:
        UsageError: an option of Ray's without `--engine ray`.
    """
    from hpsearch.errors import UsageError

    if engine == "ray":
        from hpsearch.search.ray_pool import RayEngine
        from hpsearch.workflows.ray_node import supervise_worker

        return RayEngine(task=supervise_worker, address=address, cpus=1.0 if cpus is None else cpus, gpus=gpus or 0.0)
    for name, value in (("--address", address), ("--cpus-per-worker", cpus), ("--gpus-per-worker", gpus)):
        if value is not None:
            raise UsageError(f"{name} says how Ray places workers, but the engine is {engine}", hint="Add --engine ray.")
    return None
