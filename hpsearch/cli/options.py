"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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
PerOption = Annotated[Literal["model"] | None, typer.Option("--per", help="So many of each model.")]
