"""Claim, train, report, prune, tell: the one place where a trial meets a trainer.

The trainer is handed in as three functions, so that a formula serves in tests.
"""

from __future__ import annotations

import logging
import signal
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
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
from hpsearch.config.epoch import Epoch
from hpsearch.config.paths import StudyPaths
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import CheckpointError, DiskError, LeaseLostError
from hpsearch.search.claim import TIME_SPENT, TRIAL_TIME, Claim, Claimer, requeue
from hpsearch.search.deletion import study_deleted, study_exists
from hpsearch.storage.database import Store, database_error
from hpsearch.storage.locks import require_held
from hpsearch.storage.optuna_internals import get_trial_id
from hpsearch.storage.records import is_copy, read_epochs, write_clean_exit, write_end, write_epochs, write_run

log = logging.getLogger("hpsearch")

LEAST_TIME = 0.001
"""Seconds; a timer of 0 would never ring."""

PUSHED_OUT = 16
"""Places below the best that are looked at for checkpoints: as many trials may end at one time."""

Result = TypeVar("Result")
Cost = tuple[int, int]
"""Trainable parameters, and floating-point operations of one image forward."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a worker needs of a trainer.

    Attributes:
        train: yields one epoch after another; given a checkpoint that exists, the stored ones again first.
            The string says whose checkpoint it is.
        cost: of a configuration, without training it.
        forget: removes a checkpoint.
        facts: what else is needed to repeat a run: split hash, device, processor, versions.
        data_hash: a hash of what all trials of the study share of the images: the split, or all of them.
        n_images: training images of the data set.
    """

    train: Callable[[TrainConfig, Path, str], Iterator[Epoch]]
    cost: Callable[[TrainConfig], Cost]
    forget: Callable[[Path], None]
    facts: Callable[[TrainConfig], Mapping[str, Any]]
    data_hash: str
    n_images: int


class Interrupted(BaseException):
    """Training was stopped from outside; no Exception, so that no user's code swallows it."""


class TimeSpent(BaseException):
    """A trial's time is spent; no Exception either."""


class StopRequest:
    """Set by SIGTERM or SIGINT. It breaks into training at any time, and into nothing else.

    Attributes:
        requested: whether it was set.
        signal: the number of the signal; 0 before.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal = 0
        self._training = False
        self._time_spent = False

    def listen(self) -> None:
        """Take over the two signals in this process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)
        signal.signal(signal.SIGALRM, self._rang)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.signal = True, number
        if self._training:
            self._training = False
            raise Interrupted

    def _rang(self, number: int, frame: FrameType | None) -> None:
        self._time_spent = True
        if self._training:
            self._training = False
            raise TimeSpent

    @contextmanager
    def time_limit(self, seconds: float | None) -> Iterator[None]:
        """Let training in this block end with TimeSpent after so many seconds."""
        if seconds is not None and signal.getsignal(signal.SIGALRM) == self._rang:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, LEAST_TIME))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._time_spent = False

    @contextmanager
    def breaks_in(self) -> Iterator[None]:
        """While in this block, a request raises Interrupted at once.

        Raises:
            Interrupted: also when it was requested before.
            TimeSpent: also when the time was spent before.
        """
        self._training = True
        try:
            if self.requested:
                raise Interrupted
            if self._time_spent:
                raise TimeSpent
            yield
        finally:
            self._training = False


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Trains trials of one study until there is nothing left to do.

    Attributes:
        trial_time: seconds of one trial over all continuations; None for no limit.
        keep: so many of the best trials keep their last checkpoint.
    """

    store: Store
    study: optuna.Study
    claimer: Claimer
    trainer: Trainer
    paths: StudyPaths
    trial_time: float | None
    stop: StopRequest
    keep: int

    def work(self) -> int:
        """Trains trial after trial; returns how many it ended.

        Raises:
            StudyStoppedError: as `Claimer.claim`.
            StudyNotFoundError: the study was deleted, and perhaps made anew.
            KeyError, StorageInternalError: it was deleted while no trial of it was trained here.
            DiskError: a checkpoint or the database cannot be written.
        """
        ended = 0
        while not self.stop.requested:
            claim = self.claimer.claim()
            if claim is None:
                break
            try:
                self._run(claim)
                ended += 1
            except UpdateFinishedTrialError:
                log.warning("trial %d was ended by somebody else; its worker goes on with the next", claim.trial.number)
            except LeaseLostError:
                log.warning("trial %d was let go: the connection that held it was lost; it goes on from its checkpoint", claim.trial.number)
            except Interrupted:
                self._leave(claim)
                break
            except DiskError:
                # The database may lie on the same full disk; then the next run puts the trial back.
                with suppress(Exception):
                    self._leave(claim)
                raise
            except (KeyError, StorageInternalError, SQLAlchemyError) as error:
                # A study or trial that is no more is a KeyError, or a write that finds nothing to write to.
                if self._is_gone(claim):
                    raise study_deleted(self.study.study_name, self.store, self.paths) from error
                if isinstance(error, KeyError):
                    raise
                raise database_error(error) from error
            finally:
                claim.lease.release()
        return ended

    def _is_gone(self, claim: Claim) -> bool:
        try:
            self.store.rdb.get_trial(get_trial_id(claim.trial))  # not from the cache, which keeps what is over
            # A trial that was just being made when the study went has nobody, and may have got the number of this one.
            return not study_exists(self.study, self.store)
        except KeyError:
            return True
        except (StorageInternalError, SQLAlchemyError):  # the database says nothing at all
            return False

    def _leave(self, claim: Claim) -> None:
        require_held(claim.lease)
        write_clean_exit(claim.trial)
        requeue(self.store, get_trial_id(claim.trial))

    def _run(self, claim: Claim) -> None:
        trial = claim.trial
        checkpoint = self.paths.trial(trial.number).checkpoint
        epochs = read_epochs(trial)
        try:
            config = claim.config
            n_parameters, flops = self._guarded(lambda: self.trainer.cost(config))
            facts = self._guarded(lambda: self.trainer.facts(config))
            require_held(claim.lease)
            write_run(trial, config, n_parameters=n_parameters, flops=flops, facts=facts)
            if not epochs:
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
            pruned = self._train(claim, checkpoint, epochs)
        except _Failure as failure:
            require_held(claim.lease)
            write_end(trial, epochs, {"reason": failure.reason, "traceback": failure.details})
            self._tell(trial, TrialState.FAIL, None)
            return
        require_held(claim.lease)
        end = {"reason": pruned} if pruned else {"diverged": True} if epochs[-1].diverged else {}
        write_end(trial, epochs, end)
        # A pruned trial's value is its last report.
        self._tell(trial, TrialState.PRUNED if pruned else TrialState.COMPLETE, [epochs[-1].val_accuracy])
        self._forget_all_but_the_best(trial.number, pruned=bool(pruned))

    def _forget_all_but_the_best(self, number: int, *, pruned: bool) -> None:
        """Remove the checkpoint of a trial that is over, or of the one that it pushed out of the best."""
        complete = [trial for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if not is_copy(trial)]
        ranked = [trial.number for trial in rank(complete)]
        fallen = {number} if pruned or number not in ranked[: self.keep] else set()
        for each in fallen | set(ranked[self.keep : self.keep + PUSHED_OUT]):
            self.trainer.forget(self.paths.trial(each).checkpoint)

    def _train(self, claim: Claim, checkpoint: Path, epochs: list[Epoch]) -> str:
        """Train to the end, adding to `epochs`; returns why it was pruned, or nothing."""
        spent = sum(epoch.seconds for epoch in epochs)
        try:
            with self.stop.time_limit(None if self.trial_time is None else self.trial_time - spent):
                return self._train_epochs(claim, checkpoint, epochs)
        except TimeSpent:
            if not epochs:
                raise _Failure(TIME_SPENT, "") from None
            return TRIAL_TIME

    def _train_epochs(self, claim: Claim, checkpoint: Path, epochs: list[Epoch]) -> str:
        trial, config = claim.trial, claim.config
        known = len(epochs)
        reported = set(self.store.storage.get_trial(get_trial_id(trial)).intermediate_values) if known else set()
        prunes = not isinstance(self.study.pruner, NopPruner)
        training = self._begin(config, checkpoint, f"{self.study.study_name}/{trial.number}", known)
        try:
            while (epoch := self._guarded(lambda: next(training, None))) is not None:
                value = _checked(epoch)
                require_held(claim.lease)
                if epoch.number > len(epochs):
                    epochs.append(epoch)
                    with self.store.storage.transaction():
                        write_epochs(trial, epochs)
                        trial.report(value, epoch.number)
                elif epoch.number not in reported:
                    trial.report(value, epoch.number)
                # What was decided before the last stored epoch is decided.
                if epoch.number >= known and not epoch.diverged and epoch.number < config.epochs:
                    if self.trial_time is not None and sum(each.seconds for each in epochs) >= self.trial_time:
                        return TRIAL_TIME
                    if prunes and trial.should_prune():
                        return "pruner"
                    if self.claimer.stopping():
                        raise Interrupted
        finally:
            close = getattr(training, "close", None)
            if close is not None:
                close()
        if not epochs:
            raise _Failure("the trainer yielded no epoch", "")
        return ""

    def _begin(self, config: TrainConfig, checkpoint: Path, owner: str, known: int) -> Iterator[Epoch]:
        """The epochs from the checkpoint on; one that belongs to another run is set aside, not trusted and not lost."""
        if known and not checkpoint.parent.exists():
            log.warning("%s: the checkpoint of its %d epochs is not in %s; it starts from its beginning", owner, known, checkpoint.parent)
            checkpoint.parent.mkdir(parents=True)
        try:
            return self._guarded(lambda: self.trainer.train(config, checkpoint, owner))
        except CheckpointError as error:
            aside = checkpoint.parent.with_name(f"{checkpoint.parent.name}.{uuid.uuid4().hex[:8]}.aside")
            log.warning("%s; it is set aside in %s and the trial starts from its beginning", error.message, aside)
            checkpoint.parent.rename(aside)
            checkpoint.parent.mkdir()
            return self._guarded(lambda: self.trainer.train(config, checkpoint, owner))

    def _guarded(self, call: Callable[[], Result]) -> Result:
        """Call what may run a user's code: what goes wrong in it is the trial's failure."""
        try:
            with self.stop.breaks_in():
                return call()
        except (DiskError, CheckpointError):
            raise
        except (Exception, SystemExit) as error:
            raise _Failure(_reason(error), traceback.format_exc()) from error

    def _tell(self, trial: optuna.Trial, state: TrialState, values: list[float] | None) -> None:
        """As `Study.tell`, which reads the trial twice for it, and asks the sampler, which wants to know nothing."""
        self.store.storage.set_trial_state_values(get_trial_id(trial), state, values)


class _Failure(Exception):
    """A trial that failed, with a reason in one line."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "out of memory" in first.lower() or "can't allocate memory" in first.lower():
        return f"out of memory: {first[:200]}" if first else "out of memory"
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def _checked(epoch: Epoch) -> float:
    """The epoch's objective value.

    Raises:
        _Failure: it is no finite number between 0 and 1: Optuna would let an infinite one win.
    """
    value = epoch.val_accuracy
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _Failure(f"validation accuracy must be a finite number from 0 to 1, but is {value!r:.80}", "")
    return float(value)
