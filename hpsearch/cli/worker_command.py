"""The command worker: one process that trains the trials of a study."""

from __future__ import annotations

import os
import platform
from typing import Annotated

import typer
from pydantic import ValidationError

from hpsearch.cli.console import note
from hpsearch.cli.options import DataOption, DeviceOption, StudyArgument
from hpsearch.cli.workspace_options import EpochsOption, RunsOption, StorageOption, TimeOption, TrialsOption, seconds_of
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.errors import UsageError
from hpsearch.formatting import many
from hpsearch.search.worker_order import WorkerOrder
from hpsearch.search.worker_pool import train_like_a_worker


def worker(
    study: StudyArgument,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Unique name in logs and in the database. [default: machine and process]"),
    ] = None,
    trials: TrialsOption = None,
    epochs: EpochsOption = None,
    time: TimeOption = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    only: Annotated[int | None, typer.Option("--only", metavar="N", min=0, help="Train trial N and no other.")] = None,
    order: Annotated[str | None, typer.Option("--order", help="A supervisor's order, as JSON.", hidden=True)] = None,
) -> None:
    """Start one more worker for a study: it trains trials until none is left.

    `hpsearch run` starts its workers itself. This command adds one from any shell, on any machine that reaches the storage.
    """
    if order is not None:
        try:
            worker_order = WorkerOrder.model_validate_json(order)
        except ValidationError as error:
            raise UsageError("--order is for the workers that `hpsearch run` starts; its text is not such an order") from error
    else:
        train_like_a_worker()  # a supervisor sets this environment for its own workers
        name = name or f"{platform.node() or 'worker'}-{os.getpid()}"
        worker_order = WorkerOrder(
            study=study,
            worker=name,
            runs=runs,
            data=data,
            device=device,
            trials=trials,
            epochs=epochs,
            time=seconds_of(time),
            only_trial=only,
        )
    from hpsearch.workflows.worker_process import run_worker  # loads torch, so the environment must be set before

    ended = run_worker(worker_order, storage=storage)
    note(f"{worker_order.worker} is done: it ended {many(ended, 'trial')}.")
