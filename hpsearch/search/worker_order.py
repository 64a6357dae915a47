"""What a supervisor tells a worker: the same typed order on this machine and on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel


class WorkerOrder(BaseModel, frozen=True):
    """What one worker process trains, and where.

    It travels as JSON on the command line, which every user of the machine can read: it holds no secret.

    Attributes:
        study: the name of a stored study, or a study file.
        worker: the worker's name in logs and in the database; no other worker has it.
        run: id of the run; None if no supervisor started the worker.
        run_started: `time.monotonic()` of this machine at the start of the run.
        runs: the folder of runs.
        data: the folder of the data set; None to look for it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trials: budget of trials; None for the study file's.
        time: budget of seconds over all runs; None for the study file's.
        only_trial: the only trial to train; None for all.
        component_folder: the folder of the component files; None for the folder of the study file.
    """

    study: str
    worker: str
    run: str | None = None
    run_started: float | None = None
    runs: Path
    data: Path | None = None
    device: str = "auto"
    trials: int | None = None
    time: float | None = None
    only_trial: int | None = None
    component_folder: Path | None = None

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor started the worker."""
        return self.run is not None


class NodeOrder(WorkerOrder, frozen=True):
    """What one node of a cluster does: it supervises one worker.

    It travels inside the cluster and on no command line.

    Attributes:
        run: id of the run; never None.
        storage: URL of the database, with its password if it has one.
        folder: the current folder of the run; relative paths begin there if the node has it.
        component_files: content of each component file, by its path relative to the study file.
        command: arguments of the Python interpreter that start a worker.
    """

    run: str
    storage: str
    folder: Path
    component_files: Mapping[str, bytes]
    command: tuple[str, ...]
