"""Workers that run the fake trainer in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hpsearch.search.budget import Clock
from hpsearch.search.claim import Claimer
from hpsearch.search.pruner import make_pruner
from hpsearch.search.sampler import SpaceSampler
from hpsearch.search.trial_source import SampledTrials
from hpsearch.search.worker import StopRequest, Trainer, Worker
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
        now: Any = None,
        trimmed: bool = True,
        **changes: Any,
    ) -> Worker:
        file, workspace = search.file, search.workspace
        trainer = trainer or make_fake_trainer()
        stop = StopRequest()
        limit = file.limits.parameters

        def accept(values: Any) -> bool:
            return limit is None or trainer.cost(file.space.config(values, seed=0))[0] <= limit

        store = workspace.open(trimmed=trimmed)
        study = store.load(file.name)
        study.sampler = SpaceSampler(file.space, file.sampler, search.budget, seed=file.seed, accept=accept)
        study.pruner = make_pruner(file.pruner, file.space)
        clock = Clock(run=run, started=0.0, now=now or (lambda: 0.0))
        paths = workspace.paths.study(file.name)
        claimer = Claimer(
            store=store,
            study=study,
            locks=workspace.locks,
            source=SampledTrials(study=study, space=file.space, budget=search.budget, clock=clock, seed=file.seed),
            run=run,
            paths=paths,
            worker=name,
            only=changes.pop("only", None),
            stopping=lambda: stop.requested,
        )
        return Worker(
            store=store,
            study=study,
            claimer=claimer,
            trainer=trainer,
            paths=paths,
            trial_time=search.budget.trial_time,
            stop=stop,
            keep=file.keep,
        )

    return make
