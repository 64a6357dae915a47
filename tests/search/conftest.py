"""A small study in a real SQLite file, and workers of it that train a formula in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.run import Place, Search, prepare_search
from hpsearch.search.budget import Clock
from hpsearch.search.claim import Claimer
from hpsearch.search.pruning import make_pruner
from hpsearch.search.sampling import SpaceSampler
from hpsearch.search.worker import StopRequest, Trainer, Worker
from hpsearch.study_file import StudyFile, parse_study_file
from tests.formula import formula_trainer

STUDY = """
name = "small"
seed = 3
use = ["no_images.py"]

[data]
dataset = "no_images"
validation_images = 100

[budget]
trials = 8
balance = "model"

[sampler]
startup_trials = 4

[pruner]
kind = "none"

[space]
model = { choices = ["cnn", "lenet5"] }
optimizer = { choices = ["sgd", "adam"] }
epochs = { int = [2, 4] }

[space.cnn]
filters1 = { int = [8, 64], step = 8 }

[space.sgd]
lr = { float = [1e-3, 1.0], log = true }

[space.adam]
lr = { float = [1e-4, 1e-1], log = true }

[[baseline]]
model = "lenet5"
optimizer = "sgd"
epochs = 3
"""

NO_IMAGES = """
import hpsearch

@hpsearch.dataset("no_images")
def no_images(root, *, train):
    raise AssertionError("a formula needs no images")
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(runs=tmp_path / "runs", storage=f"sqlite:///{tmp_path / 'study.db'}")


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., StudyFile]:
    """Makes a study file from STUDY with some of its text replaced."""
    (tmp_path / "no_images.py").write_text(NO_IMAGES)

    def make(*changes: tuple[str, str], more: str = "") -> StudyFile:
        text = STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "small.toml"
        path.write_text(text + more)
        return parse_study_file(text + more, path=path)

    return make


@pytest.fixture
def make_worker(place: Place) -> Callable[..., Worker]:
    """Makes a worker of a prepared search that trains in this process."""

    def make(
        search: Search, trainer: Trainer | None = None, *, name: str = "worker", run: str = "run", now: Any = None, **changes: Any
    ) -> Worker:
        file = search.file
        trainer = trainer or formula_trainer()
        stop = StopRequest()
        limit = file.limits.parameters

        def accept(values: Any) -> bool:
            return limit is None or trainer.cost(file.space.config(values, seed=0))[0] <= limit

        sampler = SpaceSampler(file.space, file.sampler, search.budget, seed=file.seed, accept=accept)
        store = place.open()
        study = store.load(file.name, sampler=sampler, pruner=make_pruner(file.pruner, file.space))
        clock = Clock(run=run, started=0.0, now=now or (lambda: 0.0))
        paths = place.paths.study(file.name)
        claimer = Claimer(
            store=store,
            study=study,
            locks=place.locks,
            space=file.space,
            budget=search.budget,
            clock=clock,
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
            seed=file.seed,
            trial_time=search.budget.trial_time,
            stop=stop,
        )

    return make


@pytest.fixture
def searched(place: Place, study_file: Callable[..., StudyFile]) -> Callable[..., Search]:
    """Makes a prepared search of a study file with some of its text replaced."""

    def make(*changes: tuple[str, str], more: str = "", **options: Any) -> Search:
        return prepare_search(study_file(*changes, more=more), place, **options)

    return make
