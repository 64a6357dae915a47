"""Rules of the worker: claim, train, report, prune, store the end."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpsearch.config.epoch import Epoch
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import CheckpointError, DiskError
from hpsearch.search.worker import Interrupted, StopRequest, Worker
from hpsearch.storage.records import TrialRow, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import fake_epoch, make_fake_trainer, train

Make = Callable[..., Worker]
Searched = Callable[..., Search]
ONE = ("trials = 8", "trials = 1")


def _only_trial(search: Search) -> TrialRow:
    (trial,) = read_trials(search.study)
    return trial


def test_a_complete_trial_stores_what_is_needed_to_repeat_it(searched: Searched, make_worker: Make) -> None:
    search = searched(ONE)
    make_worker(search).work()
    trial = _only_trial(search)
    assert trial.state == "complete"
    assert trial.config is not None
    assert trial.value == trial.epochs[-1].val_accuracy == fake_epoch(trial.config, 3).val_accuracy
    assert [epoch.number for epoch in trial.epochs] == [1, 2, 3]
    assert trial.run["digest"] == trial.config.digest
    assert trial.run["split_hash"] == "fake"
    assert trial.n_parameters == 5000
    attributes = search.study.trials[0].user_attrs
    assert {"parameters", "flops", "seconds", "train_accuracy", "gap", "epochs_done"} <= {
        name for name, value in attributes.items() if isinstance(value, int | float)
    }


def test_the_value_is_that_of_the_last_epoch_not_of_the_best(searched: Searched, make_worker: Make) -> None:
    def worsening(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for number in range(1, config.epochs + 1):
            yield fake_epoch(config, number, val_accuracy=0.9 - 0.1 * number)

    search = searched(ONE)
    make_worker(search, make_fake_trainer(worsening)).work()
    assert _only_trial(search).value == pytest.approx(0.6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.9", 10**400, True, 1.5, -0.1])
def test_a_value_that_is_no_accuracy_fails_its_trial_and_never_wins(searched: Searched, make_worker: Make, value: object) -> None:
    def yielding(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        yield fake_epoch(config, 1, val_accuracy=value)

    search = searched(ONE)
    make_worker(search, make_fake_trainer(yielding)).work()
    trial = _only_trial(search)
    assert trial.state == "fail"
    assert trial.value is None
    assert "validation accuracy must be a finite number from 0 to 1" in trial.end["reason"]


def test_a_diverged_trial_is_complete_at_the_measured_accuracy(searched: Searched, make_worker: Make) -> None:
    def diverging(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        yield fake_epoch(config, 1, val_accuracy=0.1, train_loss=math.nan, diverged=True)

    search = searched(ONE)
    make_worker(search, make_fake_trainer(diverging)).work()
    trial = _only_trial(search)
    assert (trial.state, trial.value, trial.end) == ("complete", 0.1, {"diverged": True})


def _raising(error: BaseException) -> Callable[..., Iterator[Epoch]]:
    def train(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        yield fake_epoch(config, 1)
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a bug\nsecond line"), "ValueError: a bug"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "out of memory: CUDA out of memory. Tried to allocate 20 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory: [enforce fail]"),
    ],
)
def test_an_error_in_training_fails_the_trial_with_its_reason(
    searched: Searched, make_worker: Make, error: BaseException, reason: str
) -> None:
    search = searched(ONE)
    make_worker(search, make_fake_trainer(_raising(error))).work()
    trial = _only_trial(search)
    assert trial.state == "fail"
    assert trial.end["reason"].startswith(reason)
    assert "Traceback" in trial.end["traceback"]
    assert len(trial.epochs) == 1


def test_the_study_goes_on_after_a_failure(searched: Searched, make_worker: Make) -> None:
    def fails_for_cnn(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        if config.model.name == "cnn":
            raise ValueError("only the cnn")
        yield from train(config, checkpoint, owner, rungs)

    search = searched()
    make_worker(search, make_fake_trainer(fails_for_cnn)).work()
    states = {trial.state for trial in read_trials(search.study)}
    assert states == {"complete", "fail"}
    assert len(read_trials(search.study)) == 8


def test_a_pruned_trial_keeps_its_epochs_and_its_last_value(searched: Searched, make_worker: Make) -> None:
    def falling(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        weak = "trials/00000" not in str(checkpoint) and "trials/00001" not in str(checkpoint)
        for number in range(1, config.epochs + 1):
            yield fake_epoch(config, number, val_accuracy=(0.3 if weak else 0.8) + 0.01 * number)

    search = searched(('kind = "none"', 'kind = "median"\nstartup_trials = 1\nwarmup_epochs = 1'))
    make_worker(search, make_fake_trainer(falling)).work()
    pruned = [trial for trial in read_trials(search.study) if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.end == {"reason": "pruner"}
        assert len(trial.epochs) == 2
        assert trial.value == trial.epochs[-1].val_accuracy


def test_no_trial_is_pruned_at_its_last_epoch(searched: Searched, make_worker: Make) -> None:
    def falling(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        number = int(checkpoint.parent.name)
        for epoch in range(1, config.epochs + 1):
            yield fake_epoch(config, epoch, val_accuracy=0.9 - 0.1 * number)

    # The last epoch of each trial is at most the fourth, and no trial is pruned before it.
    search = searched(('kind = "none"', 'kind = "median"\nstartup_trials = 1\nwarmup_epochs = 3'))
    make_worker(search, make_fake_trainer(falling)).work()
    assert [trial.state for trial in read_trials(search.study)] == ["complete"] * 8


def test_a_trial_over_its_time_is_pruned_at_its_last_epoch(searched: Searched, make_worker: Make) -> None:
    search = searched(("trials = 8", 'trials = 1\ntrial_time = "2s"'))
    make_worker(search).work()  # an epoch of the fake trainer reports one second
    trial = _only_trial(search)
    assert (trial.state, trial.end, len(trial.epochs)) == ("pruned", {"reason": "trial_time"}, 2)


def _interrupted_after(worker_of: Callable[[], Worker], epochs: int) -> Callable[..., Iterator[Epoch]]:
    def interrupting(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for epoch in train(config, checkpoint, owner, rungs):
            if epoch.number > epochs:
                worker_of().stop.requested = True
                raise Interrupted
            yield epoch

    return interrupting


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_an_interrupted_trial_goes_back_to_the_queue_with_its_whole_epochs(searched: Searched, make_worker: Make, epochs: int) -> None:
    search = searched(ONE)
    workers: list[Worker] = []
    workers.append(make_worker(search, make_fake_trainer(_interrupted_after(lambda: workers[0], epochs))))
    workers[0].work()
    trial = _only_trial(search)
    assert trial.state == "waiting"
    assert len(trial.epochs) == epochs
    make_worker(search, name="heir").work()
    done = _only_trial(search)
    assert done.state == "complete"
    assert done.params == trial.params
    assert [epoch.number for epoch in done.epochs] == [1, 2, 3]
    assert [attempt["worker"] for attempt in done.attempts] == ["worker", "heir"]
    assert search.study.trials[0].intermediate_values.keys() == {1, 2, 3}


def test_an_epoch_stored_but_not_reported_is_reported_once_more(searched: Searched, make_worker: Make) -> None:
    search = searched(ONE)
    worker = make_worker(search)
    claim = worker.claimer.claim()
    assert claim is not None
    from hpsearch.storage.records import write_epochs

    write_epochs(claim.trial, [fake_epoch(claim.config, 1)])
    claim.lease.release()
    make_worker(search, name="heir").work()
    assert search.study.trials[0].intermediate_values.keys() == {1, 2, 3}
    assert _only_trial(search).state == "complete"


def test_a_trial_ended_by_somebody_else_is_dropped(searched: Searched, make_worker: Make, workspace: Workspace) -> None:
    def ended_elsewhere(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for epoch in train(config, checkpoint, owner, rungs):
            if owner == "small/0" and epoch.number == 2:
                study = workspace.open().load("small")
                study.tell(0, state=TrialState.FAIL)
            yield epoch

    search = searched(("trials = 8", "trials = 3"))
    make_worker(search, make_fake_trainer(ended_elsewhere)).work()
    assert [trial.state for trial in read_trials(search.study)] == ["fail", "complete", "complete"]


def test_only_the_best_trials_keep_their_checkpoints(searched: Searched, make_worker: Make, workspace: Workspace) -> None:
    search = searched(("seed = 3", "seed = 3\nkeep = 2"))
    make_worker(search).work()
    trials = sorted(read_trials(search.study), key=lambda trial: -(trial.value or 0.0))
    kept = [trial.number for trial in trials if workspace.paths.study("small").trial(trial.number).checkpoint.exists()]
    assert kept == [trial.number for trial in trials[:2]]


def test_a_pruned_trial_leaves_no_checkpoint(searched: Searched, make_worker: Make, workspace: Workspace) -> None:
    search = searched(("trials = 8", 'trials = 1\ntrial_time = "2s"'))
    make_worker(search).work()
    assert not workspace.paths.study("small").trial(0).checkpoint.exists()


def test_a_checkpoint_of_another_run_is_moved_aside_and_the_trial_starts_again(
    searched: Searched, make_worker: Make, workspace: Workspace
) -> None:
    def refusing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        if checkpoint.exists():
            raise CheckpointError("this checkpoint belongs to another run")
        return train(config, checkpoint, owner, rungs)

    search = searched(ONE)
    checkpoint = workspace.paths.study("small").trial(0).checkpoint
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("another run's")
    make_worker(search, make_fake_trainer(refusing)).work()
    assert _only_trial(search).state == "complete"
    (aside,) = checkpoint.parent.parent.glob("*.aside/checkpoint")
    assert aside.read_text() == "another run's"


def test_a_full_disk_does_not_fail_the_trial(searched: Searched, make_worker: Make) -> None:
    def full(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        yield fake_epoch(config, 1)
        raise DiskError("the checkpoint cannot be written: No space left on device")

    search = searched(ONE)
    with pytest.raises(DiskError):
        make_worker(search, make_fake_trainer(full)).work()
    trial = _only_trial(search)
    assert (trial.state, len(trial.epochs)) == ("waiting", 1)
    make_worker(search, name="heir").work()
    assert _only_trial(search).state == "complete"


def test_a_trial_over_its_time_ends_within_an_epoch(searched: Searched, make_worker: Make) -> None:
    def endless(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        if owner == "small/1":
            yield fake_epoch(config, 1, seconds=0.1)
        while True:
            time.sleep(0.01)

    search = searched(("trials = 8", 'trials = 2\ntrial_time = "0.3s"'))
    worker = make_worker(search, make_fake_trainer(endless))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    worker.stop.listen()
    try:
        worker.work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    none, one = read_trials(search.study)
    assert (none.state, none.end["reason"]) == ("fail", "trial_time was spent before its first epoch")
    assert (one.state, one.end["reason"], len(one.epochs)) == ("pruned", "trial_time", 1)


def test_a_stop_request_interrupts_only_training() -> None:
    stop = StopRequest()
    stop._received(15, None)
    assert stop.requested
    with pytest.raises(Interrupted), stop.interruptible():
        raise AssertionError("not entered")
    stop = StopRequest()
    with pytest.raises(Interrupted), stop.interruptible():
        stop._received(15, None)
