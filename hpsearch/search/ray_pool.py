"""Workers on a Ray cluster: Ray places them, restarts them where a node is lost, and ends them; nothing else is its business.

Each worker is a Ray task: on its node it supervises one worker process, as a run on one machine
does. What the task is, is handed in; no torch and no storage is known here.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hpsearch.errors import HpsearchError, StudyStoppedError, UsageError
from hpsearch.formatting import many
from hpsearch.search.worker_pool import POLL_SECONDS, STOP_SECONDS, TRIALS_A_WORKER, WorkerCount

FOR_EVER = -1
"""Retries of a task whose node is lost; a task that fails by itself is not tried again."""
HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d{1,5})")
KNOCK_SECONDS = 10.0
STOP_GRACE = 4.0
"""Seconds on top of what a node gives its worker, for the way there and back."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """A cluster, and what of it one worker takes.

    Attributes:
        address: as `ray.init` takes it; by default the cluster that RAY_ADDRESS names, or one of this machine's own.
        task: what a node does for one worker: returns how many of its worker processes died.
        cpus, gpus: of one worker; parts of a GPU are shared.
    """

    task: Callable[[Mapping[str, Any]], int]
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def connect(self, *, one_machine: bool) -> None:
        """Connect to the cluster, or start one on this machine.

        Args:
            one_machine: refuse nodes on other machines.

        Raises:
            UsageError: Ray is not installed, there is no cluster at the address, or nodes that may not be used.
        """
        ray = _ray()
        if not ray.is_initialized():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                _require_answer(self.address)
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"no Ray cluster answers: {first}",
                    hint="`ray start --head` starts one; --address says where it is, RAY_AUTH_MODE=token that it wants a token.",
                ) from error
            finally:
                for number, handler in handlers.items():  # Ray takes over SIGTERM
                    signal.signal(number, handler)
        if one_machine and len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1:
            raise UsageError(
                "workers on several machines cannot share a SQLite file",
                hint="Name a PostgreSQL database with --storage; see docs/postgres.md.",
            )

    def default_workers(self, trials: int) -> WorkerCount:
        """The least of what the cluster has room for and a fifth of the trials."""
        ray = _ray()
        total = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        on = many(nodes, "Ray node")
        limits = [
            (int(total.get("CPU", 0) / self.cpus) if self.cpus else trials, f"{total.get('CPU', 0):g} CPUs on {on}"),
            (int(total.get("GPU", 0) / self.gpus) if self.gpus else trials, f"{total.get('GPU', 0):g} GPUs on {on}"),
            (trials // TRIALS_A_WORKER, f"a fifth of {trials} trials"),
        ]
        count, reason = min(limits, key=lambda limit: limit[0])
        return WorkerCount(count=max(1, count), reason=reason)


@dataclass
class RayWorkerPool:
    """The workers of one run on a cluster, as `launch.WorkerPool` is on one machine.

    Attributes:
        order: what the task is told; the number of the worker is added for each.
    """

    engine: RayEngine
    order: Mapping[str, Any]
    count: int
    deaths: int = 0
    _pending: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Hand all workers to Ray; those for which there is no room wait there."""
        ray = _ray()
        remote = ray.remote(self.engine.task).options(
            num_cpus=self.engine.cpus,
            num_gpus=self.engine.gpus,
            max_retries=FOR_EVER,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )
        self._pending = [remote.remote({**self.order, "worker": number}) for number in range(1, self.count + 1)]

    def watch(self) -> Iterator[None]:
        """Yields several times a second while any worker lives.

        Raises:
            HpsearchError: a worker gave up; with what it said.
        """
        ray = _ray()
        while self._pending:
            ended, self._pending = ray.wait(self._pending, num_returns=1, timeout=POLL_SECONDS)
            for each in ended:
                self.deaths += self._result(each)
            if self._pending:
                yield

    def stop(self) -> None:
        """Ask all workers to leave their trials in good order, and end those that do not."""
        ray = _ray()
        try:
            for each in self._pending:
                ray.cancel(each)
            deadline = time.monotonic() + STOP_SECONDS + STOP_GRACE
            while self._pending and time.monotonic() < deadline:
                _, self._pending = ray.wait(self._pending, num_returns=len(self._pending), timeout=POLL_SECONDS)
        finally:  # also when a second Ctrl-C says: at once
            for each in self._pending:
                with suppress(Exception):
                    ray.cancel(each, force=True)
            self._pending = []

    def kill_worker(self, name: str) -> bool:
        """Nothing: whoever supervises the worker on its node does it."""
        return False

    def _result(self, ended: Any) -> int:
        """How many worker processes died under a task that has ended.

        Raises:
            HpsearchError: it gave up.
        """
        ray = _ray()
        try:
            deaths: int = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, HpsearchError):
                raise cause from None
            raise StudyStoppedError(f"a worker's task on Ray failed: {type(cause).__name__}: {cause}", hint="See Ray's logs.") from error
        except ray.exceptions.RayError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StudyStoppedError(f"Ray lost a worker: {first}", hint="The same command continues.") from error
        return deaths


def _require_answer(address: str | None) -> None:
    """Knock at `host:port`: Ray itself tries for minutes.

    Raises:
        OSError: nobody is there.
    """
    found = HOST_AND_PORT.fullmatch(address or os.environ.get("RAY_ADDRESS", ""))
    if found:
        socket.create_connection((found["host"], int(found["port"])), timeout=KNOCK_SECONDS).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray, which is not installed", hint='pip install "hpsearch[ray]"') from error
    return ray
