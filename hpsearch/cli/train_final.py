"""The last step of the command train: train the seeds, read the test split once, and tell the study of it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hpsearch.analysis.final_score import HeldOutReading
from hpsearch.cli.console import note
from hpsearch.cli.train_view import TrainingView
from hpsearch.config.best_config import BestConfig
from hpsearch.errors import StorageError, StudyNotFoundError, UsageError
from hpsearch.formatting import many
from hpsearch.storage.locks import FileLocks
from hpsearch.storage.records import read_trial, write_held_out_reading
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.final_folder import LOCK
from hpsearch.workflows.final_training import FinalTraining


@dataclass(frozen=True)
class StudyHeldOutLog:
    """Notes the readings of the test split in the study that a config comes from."""

    stored: optuna.Study

    @property
    def study(self) -> str:
        """The study's name."""
        return self.stored.study_name

    def add_reading(self, reading: HeldOutReading) -> int:
        """Put a reading on record, or what is known of it since; returns how many the study has."""
        return write_held_out_reading(self.stored, reading.to_dict())


def train_final(best: BestConfig, folder: Path, workspace: Workspace, *, seeds: int, force: bool, with_onnx: bool) -> Mapping[str, Any]:
    """What `metrics.json` holds in the end; on a signal, it says how far it came and exits."""
    training = FinalTraining(best, folder, seeds=seeds, data=workspace.data, device=workspace.device, force=force)
    if training.finished is None:
        _say_beginning(training, seeds)
    with _alone_in(folder):
        metrics = training.finished
        if metrics is not None:
            note(f"{folder} is finished: nothing was trained, and the test split was not read again. --force begins anew.")
            if with_onnx and training.write_onnx():
                note(f"Wrote {training.paths.onnx}.")
            return metrics
        log = _ledger(best, workspace)
        view = TrainingView(epochs=best.config.epochs, seeds=seeds)
        with _stopping_in_good_order(view):
            with view.on_screen():
                for number, epoch in training.train():
                    view.show(number, epoch)
            if with_onnx:
                training.write_onnx()
            note("All seeds are trained. Reading the test split …")
            return training.score(log)


def _say_beginning(training: FinalTraining, seeds: int) -> None:
    config = training.best.config
    goes_on = "goes on" if training.is_resumed else "begins"
    note(
        f"Final training of {config.model.name} {goes_on} in {training.paths.folder}: all training images of {training.best.data.dataset}, "
        f"{many(config.epochs, 'epoch')}, {many(seeds, 'seed')}, on {training.device}. Ctrl-C stops; the same command goes on."
    )


def _ledger(best: BestConfig, workspace: Workspace) -> StudyHeldOutLog | None:
    """The study that the config comes from, where it is in reach; where it should be and is not, that is said."""
    provenance = best.provenance
    if not {"study", "trial"} <= set(provenance):
        return None
    study, trial = provenance["study"], provenance["trial"]
    try:
        stored = workspace.open().load(str(study))
        fingerprint = read_trial(stored, int(trial)).run.get("fingerprint")
    except (StorageError, StudyNotFoundError, ValueError, TypeError) as error:
        reason = error.message if isinstance(error, UsageError) else str(error)
        note(
            f"The study '{study}' is out of reach, so the reading of the test split is noted in the folder alone: {reason}.", style="yellow"
        )
        return None
    if fingerprint != provenance.get("fingerprint"):
        note(f"The study '{study}' here is another one; the reading of the test split is noted in the folder alone.", style="yellow")
        return None
    return StudyHeldOutLog(stored)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second training out of the folder."""
    lease = FileLocks(folder).acquire(LOCK)
    if lease is None:
        raise UsageError(f"{folder} is being trained in right now", hint="Wait for that, or choose another folder with -o.")
    try:
        yield
    finally:
        lease.release()


@contextlib.contextmanager
def _stopping_in_good_order(view: TrainingView) -> Iterator[None]:
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        note(f"Stopped {view.where}. The same command goes on.", style="yellow")
        sys.exit(128 + (received or [signal.SIGINT])[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
