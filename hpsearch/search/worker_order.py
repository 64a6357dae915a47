"""The order that a supervisor gives to a worker. Its form is the same on this machine and on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel


class WorkerOrder(BaseModel, frozen=True):
    """An order that tells one worker process what to train, and where.

    The order is passed as JSON on the command line. All users of the machine can read it there, so it contains no secret.

    Attributes:
        study: the name of a stored study, or a study file.
        identity: the identity of the study that the supervisor runs; None if no supervisor started the worker.
        worker: name of the worker in logs and in the database. No other worker has the same name.
        run: id of the run; None if no supervisor started the worker.
        run_started: `time.monotonic()` of this machine at the start of the run.
        runs: the folder of runs.
        data: the folder of the data set; None to search for the folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trials: budget of trials; None for the budget in the study file.
        time: budget of seconds over all runs; None for the budget in the study file.
        only_trial: number of the only trial to train; None for all trials.
        component_folder: the folder of the component files; None for the folder of the study file.
        supervisor: file descriptor of the connection to the supervisor; None if no supervisor started the worker.
    """

    study: str
    identity: str | None = None
    worker: str
    run: str | None = None
    run_started: float | None = None
    runs: Path
    data: Path | None = None
    device: str = "auto"
    trials: int | None = None
    epochs: int | None = None
    time: float | None = None
    only_trial: int | None = None
    component_folder: Path | None = None
    supervisor: int | None = None


class NodeOrder(WorkerOrder, frozen=True):
    """An order that tells one node of a cluster to supervise one worker.

    The order is sent inside the cluster and never appears on a command line.

    Attributes:
        identity: the identity of the study; never None.
        run: id of the run; never None.
        storage: URL of the database, with the password if there is one.
        folder: the current folder of the run. Relative paths begin there if this folder exists on the node.
        component_files: content of each component file, by its path relative to the study file.
        command: arguments of the Python interpreter that start a worker.
    """

    identity: str
    run: str
    storage: str
    folder: Path
    component_files: Mapping[str, bytes]
    command: tuple[str, ...]
