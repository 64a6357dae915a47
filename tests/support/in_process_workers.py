"""Workers that run the fake trainer in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hpsearch.search.budget import Clock
from hpsearch.search.worker import StopRequest, Trainer, Worker
from hpsearch.workflows import worker_process
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import make_fake_trainer


@pytest.fixture
def make_worker() -> Callable[..., Worker]:
    """Return a function that makes a worker of a prepared search; the worker trains in this process."""

    def make(
        search: Search,
        trainer: Trainer | None = None,
        *,
        name: str = "worker",
        run: str = "run",
        now: Callable[[], float] = lambda: 0.0,
        trimmed: bool = True,
        only_trial: int | None = None,
    ) -> Worker:
        store = search.workspace.open(trimmed=trimmed)
        own = replace(search, store=store, study=store.load(search.file.name))  # like another process
        clock = Clock(run=run, started=0.0, now=now)
        return worker_process.make_worker(
            own, trainer or make_fake_trainer(), clock=clock, stop=StopRequest(), name=name, only_trial=only_trial
        )

    return make
