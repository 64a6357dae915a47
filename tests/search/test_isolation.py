"""Rules of trainers that run in forked processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hpsearch.config.epoch import Epoch
from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import CheckpointError, WorkerDiedError
from hpsearch.search.isolation import isolated
from hpsearch.search.trial_failure import TrialFailure
from hpsearch.search.worker import Worker
from hpsearch.storage.records import read_trials
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import fake_epoch, make_fake_trainer

KEPT: list[str] = []
"""What a module of user code keeps from one trial to the next."""


@pytest.fixture
def config(study_file: Callable[..., StudyFile]) -> TrainConfig:
    space = study_file().space
    return space.config(space.complete({"epochs": 3, "optimizer": "sgd"}, start={}), seed=1)


def training(config: TrainConfig, run: Callable[[], None], checkpoint: Path) -> Iterator[Epoch]:
    def train(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        yield fake_epoch(config, 1)
        run()
        yield fake_epoch(config, 2)

    return isolated(make_fake_trainer(train)).train(config, checkpoint, "owner", ())


def fail() -> None:
    raise ValueError("a bug")


def test_a_trainer_changes_nothing_outside_of_its_process(config: TrainConfig, tmp_path: Path) -> None:
    def leak() -> None:
        KEPT.append("x")
        os.environ["LEAK"] = "x"
        os.chdir("/")

    folder = Path.cwd()
    for _ in range(2):
        assert list(training(config, leak, tmp_path)) == [fake_epoch(config, 1), fake_epoch(config, 2)]
    assert ([], None, folder) == (KEPT, os.environ.get("LEAK"), Path.cwd())


def test_the_search_is_the_same_as_in_one_process(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    trainer = isolated(make_fake_trainer())
    make_worker(search, replace(trainer)).work()
    forked = [(trial.params, [epoch.weights_hash for epoch in trial.epochs], trial.n_parameters) for trial in read_trials(search.study)]
    assert len(forked) == 8
    for params, hashes, n_parameters in forked:
        config = search.file.space.config(search.file.space.complete({}, start=params), seed=0)
        assert n_parameters == make_fake_trainer().cost(config)[0]
        assert len(hashes) == config.epochs


def test_an_error_arrives_with_its_traceback_and_its_place(config: TrainConfig, tmp_path: Path) -> None:
    epochs = training(config, fail, tmp_path)
    assert next(epochs) == fake_epoch(config, 1)
    with pytest.raises(TrialFailure) as caught:
        next(epochs)
    line = fail.__code__.co_firstlineno + 1
    assert caught.value.message == "ValueError: a bug"
    assert caught.value.place == f"ValueError in {__file__}, line {line}"
    assert "in fail" in caught.value.details


def test_an_error_of_a_checkpoint_stays_what_it_is(config: TrainConfig, tmp_path: Path) -> None:
    def damaged() -> None:
        raise CheckpointError("damaged", hint="begin again")

    with pytest.raises(CheckpointError) as caught:
        list(training(config, damaged, tmp_path))
    assert (caught.value.message, caught.value.hint) == ("damaged", "begin again")


@pytest.mark.parametrize(
    ("die", "cause"), [(lambda: os._exit(0), "exit code 0"), (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV")]
)
def test_a_process_that_dies_is_an_error_that_names_the_cause(
    config: TrainConfig, tmp_path: Path, die: Callable[[], None], cause: str
) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        list(training(config, die, tmp_path))
    assert caught.value.cause == cause


def test_the_process_ends_with_the_training(config: TrainConfig, tmp_path: Path) -> None:
    others = set(psutil.Process().children())  # for example the server of other tests
    epochs = training(config, lambda: time.sleep(300), tmp_path)
    next(epochs)
    (child,) = set(psutil.Process().children()) - others
    epochs.close()
    assert not child.is_running()
