"""Train trials. A worker claims a trial, trains it, stores and reports its epochs, may prune it, and stores its end.

The caller passes the trainer as plain functions. So this module does not load torch, and tests can use a fake trainer.
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.analysis.leaderboard import rank
from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.paths import StudyPaths
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import CheckpointError, DiskError, LeaseLostError, WorkerDiedError
from hpsearch.search.claim import TIME_SPENT, TRIAL_TIME, Claim, Claimer, requeue
from hpsearch.search.failpoints import Failpoint, reached
from hpsearch.search.halving import Halving
from hpsearch.search.pruner import Audit
from hpsearch.search.trial_failure import TrialFailure
from hpsearch.storage.database import Store, database_error
from hpsearch.storage.optuna_internals import get_trial_id
from hpsearch.storage.records import (
    TrialKey,
    is_copy,
    is_own_trial,
    read_epochs,
    read_rungs,
    write_clean_exit,
    write_end,
    write_epochs,
    write_pause,
    write_run,
    write_rungs,
)

log = logging.getLogger("hpsearch")

MIN_TIMER = 0.001
"""Shortest time of a timer, in seconds. A timer of 0 would never fire."""

EXTRA_RANKS = 16
"""Number of ranks below the best `keep` trials at which a worker looks for checkpoints to delete.

The best `keep` trials of a study keep their checkpoints. Each trial that enters them moves another trial to the rank below. The worker
deletes the checkpoint at that rank. Up to 16 ranks are checked, because several workers can end trials at the same time.
"""

Result = TypeVar("Result")
Cost = tuple[int, int]
"""Trainable parameters, and floating-point operations of the forward pass of one image."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """The functions of a trainer that a worker calls.

    Attributes:
        train: yields the epochs of a config, and its measurements at some shares of the first epoch, the rungs. What the checkpoint has
            comes first. The string names the owner of the checkpoint.
        cost: returns the cost of a config without training.
        forget: deletes a checkpoint.
        facts: returns the other facts needed to repeat a run: split hash, device, processor, versions.
        data_hash: hash of the images that all trials share. They are the images of the split, or of the whole data set.
        n_images: number of training images in the data set.
    """

    train: Callable[[TrainConfig, Path, str, Sequence[float]], Iterator[Epoch | Rung]]
    cost: Callable[[TrainConfig], Cost]
    forget: Callable[[Path], None]
    facts: Callable[[TrainConfig], Mapping[str, Any]]
    data_hash: str
    n_images: int


class Interrupted(BaseException):
    """A signal stopped the training. This is not an `Exception`, so that user code does not catch it."""


class _Paused(Exception):
    """The trial was paused."""


class TrialTimeout(BaseException):
    """The time of a trial is over. This is not an `Exception`, so that user code does not catch it."""


class StopRequest:
    """A request to stop by SIGTERM or SIGINT. It interrupts training at once, but no other work.

    Attributes:
        requested: whether a signal arrived.
        signal: number of the last signal; 0 before the first signal.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal = 0
        self._interruptible = False
        self._time_over = False

    def listen(self) -> None:
        """Handle SIGTERM, SIGINT and the timer of a trial in this process."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self._time_over = True
        else:
            self.requested, self.signal = True, number
        if self._interruptible:
            self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self.requested or self._time_over:
            self._interruptible = False
            raise Interrupted if self.requested else TrialTimeout

    @contextmanager
    def time_limit(self, seconds: float | None) -> Iterator[None]:
        """Limit the training time within a block. Without an earlier call of `listen` there is no limit.

        Args:
            seconds: the limit; None for no limit.

        Yields:
            Nothing.
        """
        if seconds is not None and signal.getsignal(signal.SIGALRM) == self._received:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, MIN_TIMER))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._time_over = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let signals interrupt a block.

        Yields:
            Nothing.

        Raises:
            Interrupted: a stop is or was requested.
            TrialTimeout: the time limit is over.
        """
        self._interruptible = True
        try:
            self._raise_if_due()
            yield
        finally:
            self._interruptible = False


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Trains trials of one study until nothing is left to do.

    Attributes:
        trial_time: time limit of one trial in seconds, over all its workers; None for no limit.
        keep: number of the best trials whose checkpoints are kept.
        halving: the rule that pauses trials; None if trials are not paused.
        audit: draws the trials that the pruner does not stop although it would.
    """

    store: Store
    study: optuna.Study
    claimer: Claimer
    trainer: Trainer
    paths: StudyPaths
    trial_time: float | None
    stop: StopRequest
    keep: int
    halving: Halving | None
    audit: Audit

    def work(self) -> int:
        """Train one trial after another.

        Returns:
            The number of trials that ended here.

        Raises:
            StudyStoppedError: the same failure occurred again and again, or no draw was within the limits.
            StudyNotFoundError: the study was deleted, or deleted and made again.
            KeyError, StorageInternalError: the study was deleted while this worker trained no trial.
            DiskError: a checkpoint or the database cannot be written.
            WorkerDiedError: the process of a trial died. The trial then counts as a trial of a dead worker.
        """
        ended = 0
        while not self.stop.requested and (claim := self.claimer.claim()) is not None:
            number = claim.trial.number
            try:
                ended += self._run(claim)
            except UpdateFinishedTrialError:
                log.warning("trial %d was ended from outside; this worker continues with the next trial", number)
            except LeaseLostError as error:
                log.warning("trial %d was released: %s; it continues from its checkpoint", number, error.message)
            except Interrupted:
                self._return_to_queue(claim)
                break
            except DiskError:
                # If the database lies on the same full disk, the next run requeues the trial.
                with suppress(Exception):
                    self._return_to_queue(claim)
                raise
            except (KeyError, StorageInternalError, SQLAlchemyError) as error:
                # A deleted study or trial causes a KeyError, or a write without a row to change.
                if self._is_deleted(claim):
                    raise self.claimer.loaded.deleted() from error
                if isinstance(error, KeyError):
                    raise
                raise database_error(error) from error
            finally:
                claim.lease.release()
        return ended

    def _is_deleted(self, claim: Claim) -> bool:
        try:
            self.store.rdb.get_trial(get_trial_id(claim.trial))  # not from the cache, which keeps finished trials
            # If the study was deleted and made again, a trial of the new study may have the same id.
            return not self.claimer.loaded.exists()
        except KeyError:
            return True
        except (StorageInternalError, SQLAlchemyError):  # the database does not answer
            return False

    def _return_to_queue(self, claim: Claim) -> None:
        self.claimer.require_own(claim.lease)
        write_clean_exit(claim.trial)
        requeue(self.store, get_trial_id(claim.trial))

    def _run(self, claim: Claim) -> bool:
        """Train a trial. Return whether it ended; if not, it is paused."""
        trial = claim.trial
        epochs = read_epochs(trial)
        try:
            n_parameters, flops = self._call_user_code(lambda: self.trainer.cost(claim.config))
            facts = self._call_user_code(lambda: self.trainer.facts(claim.config))
            self.claimer.require_own(claim.lease)
            reached(Failpoint.AFTER_DRAWS, trial.number)
            write_run(trial, claim.config, n_parameters=n_parameters, flops=flops, facts=facts)
            reason = self._train(claim, epochs)
        except _Paused:
            return False
        except TrialFailure as failure:
            state, values = TrialState.FAIL, None
            end: dict[str, Any] = {"reason": failure.message, "traceback": failure.details, "place": failure.place}
        else:
            # The value of a pruned trial is the last value that it reported.
            state, values = TrialState.PRUNED if reason else TrialState.COMPLETE, [epochs[-1].val_accuracy]
            end = {"reason": reason} if reason else {"diverged": True} if epochs[-1].diverged else {}
        self.claimer.require_own(claim.lease)
        reached(Failpoint.BETWEEN_EPOCHS_AND_END, trial.number)
        write_end(trial, epochs, end)
        reached(Failpoint.BETWEEN_END_AND_TELL, trial.number)
        # This does the same as `Study.tell`, without its extra reads and its call of the sampler.
        self.store.storage.set_trial_state_values(get_trial_id(trial), state, values)
        reached(Failpoint.AFTER_TELL, trial.number)
        if state != TrialState.FAIL:
            self._delete_checkpoints(trial.number, state)
        return True

    def _pause_if_weak(self, claim: Claim, position: float) -> None:
        """Pause a trial that stands at a rung and is not among the best there. Its checkpoint stays."""
        if self.halving is None or position not in self.halving.positions(claim.config.epochs):
            return
        trials = self.study.get_trials(deepcopy=False)
        trial = next(each for each in trials if each.number == claim.trial.number)
        reached(Failpoint.BETWEEN_RUNG_AND_DECISION, trial.number)
        if self.halving.must_pause(trial, trials):
            self.claimer.require_own(claim.lease)
            write_pause(claim.trial, position, at=time.time())
            reached(Failpoint.BETWEEN_PAUSE_AND_QUEUE, trial.number)
            requeue(self.store, get_trial_id(claim.trial))
            raise _Paused

    def _delete_checkpoints(self, number: int, state: TrialState) -> None:
        """Delete checkpoints after a trial finished. Only the best complete trials keep their checkpoints."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        ranked = [trial.number for trial in rank(trial for trial in trials if is_own_trial(trial) and not is_copy(trial))]
        deleted = set(ranked[self.keep : self.keep + EXTRA_RANKS])
        if state == TrialState.PRUNED or number not in ranked[: self.keep]:
            deleted.add(number)
        for each in deleted:
            self.trainer.forget(self.paths.trial(each).checkpoint)

    def _train(self, claim: Claim, epochs: list[Epoch]) -> str:
        """Train to the end and append the new epochs to `epochs`. Return the reason for pruning, or an empty string."""
        spent = sum(epoch.seconds for epoch in epochs) or sum(rung.seconds for rung in read_rungs(claim.trial)[-1:])
        try:
            with self.stop.time_limit(None if self.trial_time is None else self.trial_time - spent):
                return self._train_epochs(claim, epochs)
        except TrialTimeout:
            if not epochs:
                raise TrialFailure(TIME_SPENT) from None
            return TRIAL_TIME

    def _train_epochs(self, claim: Claim, epochs: list[Epoch]) -> str:
        trial = claim.trial
        n_stored, rungs = len(epochs), read_rungs(trial)
        reported = set(self.store.storage.get_trial(get_trial_id(trial)).intermediate_values) if n_stored else set()
        training = self._begin(claim, n_stored)
        try:
            while (measured := self._call_user_code(lambda: next(training, None))) is not None:
                value = _checked_accuracy(measured)
                self.claimer.require_own(claim.lease)
                if isinstance(measured, Rung):
                    if not n_stored:  # a trial that has an epoch has passed all its rungs inside the first
                        self._end_rung(claim, measured, rungs)
                    continue
                epoch = measured
                if epoch.number > len(epochs):
                    epochs.append(epoch)
                    reached(Failpoint.BETWEEN_CHECKPOINT_AND_STORE, trial.number)
                    with self.store.storage.transaction():
                        write_epochs(trial, epochs)
                        trial.report(value, epoch.number)
                    reached(Failpoint.AFTER_EPOCH, trial.number)
                elif epoch.number not in reported:
                    trial.report(value, epoch.number)
                # For stored epochs before the last stored epoch, an earlier worker has already decided about pruning.
                if epoch.number >= n_stored and not epoch.diverged and epoch.number < claim.config.epochs:
                    if reason := self._pruning_reason(trial, epochs):
                        return reason
                    self._pause_if_weak(claim, epoch.number)
                    if self.claimer.stop_requested():
                        raise Interrupted
        finally:
            close = getattr(training, "close", None)
            if close is not None:
                close()
        if not epochs:
            raise TrialFailure("the trainer yielded no epoch")
        return ""

    def _end_rung(self, claim: Claim, rung: Rung, rungs: list[Rung]) -> None:
        """Store a rung that is not in `rungs` yet. The last one decides whether the trial is paused."""
        if all(rung.share > stored.share for stored in rungs):
            rungs.append(rung)
            reached(Failpoint.BETWEEN_CHECKPOINT_AND_STORE, claim.trial.number)
            write_rungs(claim.trial, rungs)
        if rung.share == rungs[-1].share:
            self._pause_if_weak(claim, rung.share)
        if self.claimer.stop_requested():
            raise Interrupted

    def _pruning_reason(self, trial: optuna.Trial, epochs: list[Epoch]) -> str:
        if self.trial_time is not None and sum(each.seconds for each in epochs) >= self.trial_time:
            return TRIAL_TIME
        if isinstance(self.study.pruner, NopPruner) or TrialKey.AUDIT in trial.user_attrs or not trial.should_prune():
            return ""
        if not self.audit.draws(trial.number):
            return "pruner"
        trial.set_user_attr(TrialKey.AUDIT, len(epochs))
        return ""

    def _begin(self, claim: Claim, n_stored: int) -> Iterator[Epoch | Rung]:
        """Start the training from the checkpoint. A damaged checkpoint, or a checkpoint of another run, is moved aside and not deleted."""
        owner = f"{self.study.study_name}/{claim.trial.number}"
        checkpoint = self.paths.trial(claim.trial.number).checkpoint
        folder = checkpoint.parent
        rungs = () if self.halving is None else self.halving.partial_epochs(claim.config.epochs)
        if n_stored and not folder.exists():
            log.warning("%s: its checkpoint of %d epochs is not in %s; it starts from the first epoch", owner, n_stored, folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return self._call_user_code(lambda: self.trainer.train(claim.config, checkpoint, owner, rungs))
        except CheckpointError as error:
            aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.aside")
            log.warning("%s; it is moved to %s and the trial starts from the first epoch", error.message, aside)
            folder.rename(aside)
            folder.mkdir()
            return self._call_user_code(lambda: self.trainer.train(claim.config, checkpoint, owner, rungs))

    def _call_user_code(self, call: Callable[[], Result]) -> Result:
        """Call a function that may run a user's code. An error of the function fails the trial, and a signal interrupts the function."""
        try:
            with self.stop.interruptible():
                return call()
        except (DiskError, CheckpointError, WorkerDiedError, TrialFailure):
            raise
        except (Exception, SystemExit) as error:
            raise TrialFailure.from_error(error) from error


def _checked_accuracy(measured: Epoch | Rung) -> float:
    """Return the validation accuracy of an epoch or a rung. Fail the trial if the value is not a number from 0 to 1.

    Without this check, an infinite value would win in Optuna.
    """
    value = measured.val_accuracy
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        expected = "validation accuracy must be a finite number from 0 to 1"
        raise TrialFailure(f"{expected}, but is {value!r:.80}", place=expected)
    return float(value)
