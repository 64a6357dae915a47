"""Run workers on a Ray cluster. Ray places the workers, restarts the workers of a lost node, and ends the workers.

Each worker is a Ray task. The task supervises one worker process on its node, in the same way as a run on one machine.
The caller passes the task as a function. So this module uses neither torch nor the database.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from typing import Any

from hpsearch.errors import HpsearchError, StudyStoppedError, UsageError
from hpsearch.search.worker_order import NodeOrder
from hpsearch.search.worker_pool import POLL_SECONDS, STOP_SECONDS, TRIALS_PER_WORKER, DeadWorker, WorkerCount

UNLIMITED = -1
"""Number of retries of a task whose node is lost; -1 means no limit. A task that fails by itself is not retried."""
HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d{1,5})")
CONNECT_TIMEOUT = 10.0
STOP_GRACE = 4.0
"""Seconds added to STOP_SECONDS, because messages to a node and back take time."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """A cluster, and the resources of the cluster that one worker takes.

    Attributes:
        task: function that supervises one worker on a node. It returns the number of worker processes that died.
        address: address of the cluster, such as `host:port`. None for the cluster that RAY_ADDRESS names, or for a new cluster on
            this machine.
        cpus: CPUs of one worker.
        gpus: GPUs of one worker. With a fraction, several workers share a GPU.
    """

    task: Callable[[NodeOrder], int]
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def connect(self, *, one_machine: bool) -> None:
        """Connect to the cluster, or start a cluster on this machine.

        Args:
            one_machine: whether to raise an error if the cluster has nodes on several machines.

        Raises:
            UsageError: Ray is not installed, no cluster answers, or `one_machine` does not hold.
        """
        ray = _ray()
        if not ray.is_initialized():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                _require_answer(self.address)
                with chdir("/"):  # Ray's processes look for modules in the folder in which it is connected, before Python's own
                    ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:  # Ray raises errors of many types, and even a plain Exception if a node does not start in time
                raise UsageError(
                    f"no Ray cluster answers: {_first_line(error)}",
                    hint="`ray start --head` starts one; --address names it; RAY_AUTH_MODE=token is needed if it asks for a token.",
                ) from error
            finally:
                for number, handler in handlers.items():  # Ray replaces the handler of SIGTERM
                    signal.signal(number, handler)
        if one_machine and len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1:
            raise UsageError(
                "workers on several machines cannot share a SQLite file",
                hint="Name a PostgreSQL database with --storage; see docs/postgres.md.",
            )

    def default_workers(self, trials: int) -> WorkerCount:
        """Choose the number of workers for the cluster.

        Args:
            trials: budget of trials.

        Returns:
            The smallest of three numbers: workers for the CPUs, workers for the GPUs, and a fifth of the trials.
        """
        ray = _ray()
        total = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        where = f"on {nodes} Ray node{'' if nodes == 1 else 's'}"
        shares = ((total.get("CPU", 0), self.cpus, "CPUs"), (total.get("GPU", 0), self.gpus, "GPUs"))
        return WorkerCount.smallest(
            *((int(count / share), f"{count:g} {unit} {where}") for count, share, unit in shares if share),
            (trials // TRIALS_PER_WORKER, f"a fifth of {trials} trials"),
        )


@dataclass
class RayWorkerPool:
    """The workers of one run on a cluster, with the methods of `WorkerPool`.

    Attributes:
        orders: one order for each worker.
        deaths: worker processes that died and were replaced on their nodes.
        dead: always empty, because each node stores by itself which of its workers died.
    """

    engine: RayEngine
    orders: Sequence[NodeOrder]
    deaths: int = 0
    dead: Sequence[DeadWorker] = ()
    _pending: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Submit all workers to Ray. Ray starts a worker as soon as the cluster has room."""
        remote = (
            _ray()
            .remote(self.engine.task)
            .options(
                num_cpus=self.engine.cpus,
                num_gpus=self.engine.gpus,
                max_retries=UNLIMITED,
                retry_exceptions=False,
                scheduling_strategy="SPREAD",
            )
        )
        self._pending = [remote.remote(order) for order in self.orders]

    def watch(self) -> Iterator[None]:
        """Wait until all workers have ended.

        Yields:
            Nothing, several times a second.

        Raises:
            HpsearchError: a worker ended with an error. The message is the message of the worker.
        """
        ray = _ray()
        while self._pending:
            ended, self._pending = ray.wait(self._pending, num_returns=1, timeout=POLL_SECONDS)
            self.deaths += sum(map(_result, ended))
            if self._pending:
                yield

    def stop(self) -> None:
        """Ask all workers to requeue their trials and end. Kill workers that do not end in time."""
        ray = _ray()
        try:
            for each in self._pending:
                ray.cancel(each)
            deadline = time.monotonic() + STOP_SECONDS + STOP_GRACE
            while self._pending and time.monotonic() < deadline:
                _, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=POLL_SECONDS)
        finally:  # also after a second Ctrl-C, which asks to stop at once
            for each in self._pending:
                with suppress(Exception):
                    ray.cancel(each, force=True)
            self._pending = []

    def kill_worker(self, name: str) -> bool:
        """Do nothing, because the supervisor on the node kills the worker.

        Args:
            name: name of the worker.

        Returns:
            False.
        """
        return False


def _result(task: Any) -> int:
    """Return the number of worker processes that died during an ended task. If the task failed, raise its error."""
    ray = _ray()
    try:
        deaths: int = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HpsearchError):
            raise cause from None
        raise StudyStoppedError(f"a worker's task on Ray failed: {type(cause).__name__}: {cause}", hint="See Ray's logs.") from error
    except ray.exceptions.RayError as error:
        raise StudyStoppedError(f"Ray lost a worker: {_first_line(error)}", hint="The same command continues.") from error
    return deaths


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_answer(address: str | None) -> None:
    """Connect to `host:port` and raise OSError if nothing answers. Ray itself would try for minutes."""
    found = HOST_AND_PORT.fullmatch(address or os.environ.get("RAY_ADDRESS", ""))
    if found:
        socket.create_connection((found["host"], int(found["port"])), timeout=CONNECT_TIMEOUT).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray, which is not installed", hint='pip install "hpsearch[ray]"') from error
    return ray
