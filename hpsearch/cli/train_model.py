"""Train a configuration and show the progress on screen.

A configuration is trained on its training split, or as the final model. The final model reads the test split once.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from hpsearch.analysis.final_score import HeldOutReading, weakest_sentence
from hpsearch.analysis.metrics import measure, overfitting, read_predictions
from hpsearch.cli.console import note
from hpsearch.cli.progress_view import TrainingView
from hpsearch.cli.signals import collect_signals
from hpsearch.config.best_config import BestConfig
from hpsearch.errors import HpsearchError, StorageError, StudyNotFoundError, UsageError
from hpsearch.formatting import many
from hpsearch.storage.locks import FileLocks
from hpsearch.storage.records import read_trial, require_own, write_held_out_reading
from hpsearch.storage.workspace import Workspace
from hpsearch.training.data.split import load_split
from hpsearch.training.onnx_export import require_onnx
from hpsearch.training.trainer import predictions_path, train
from hpsearch.workflows.final_folder import LOCK
from hpsearch.workflows.final_training import FinalTraining


def train_on_split(best: BestConfig, *, data: Path | None, device: str) -> dict[str, Any]:
    """Train a configuration on its training split and measure it on its validation split.

    Args:
        best: the configuration, with its data set and split.
        data: folder of the data set; None searches the usual places.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The dictionary that `hpsearch train --json` prints.

    Raises:
        TrainingError: the loss diverged.
    """
    split = load_split(**best.data.model_dump(), seed=best.split_seed, folder=data)
    epochs = []
    with tempfile.TemporaryDirectory(prefix="hpsearch-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        with TrainingView(epochs=best.config.epochs) as view:
            for epoch in train(best.config, split, checkpoint=checkpoint, device=device):
                epochs.append(epoch)
                view.show(epoch)
                epoch.require_finite(best.config.model.name)
        metrics = measure(read_predictions(predictions_path(checkpoint)))
    last = epochs[-1]
    # The training accuracy of an epoch is measured on as many images as the validation accuracy.
    n_images = min(len(split.train_labels), metrics.n_images), metrics.n_images
    return {
        "train_accuracy": last.train_accuracy,
        "train_loss": last.train_loss,
        "val_loss": last.val_loss,
        "validation": asdict(metrics),
        "overfitting": overfitting([last.train_accuracy], [last.val_accuracy], n_images=n_images, name="validation"),
        "weakest": weakest_sentence(metrics),
        **_against_trial(best, last.val_accuracy),
        "epochs": [epoch.to_dict() for epoch in epochs],
    }


def _against_trial(best: BestConfig, accuracy: float) -> dict[str, Any]:
    stored = best.provenance.get("val_accuracy")
    if not isinstance(stored, float):
        return {"trial_val_accuracy": None, "against_trial": None}
    off = f"{100 * (accuracy - stored):+.2f} points off: other versions, device, images or settings"
    return {"trial_val_accuracy": stored, "against_trial": "the same" if stored == accuracy else off}


def train_final(best: BestConfig, folder: Path, workspace: Workspace, *, seeds: int, force: bool, with_onnx: bool) -> Mapping[str, Any]:
    """Train the final model in a folder.

    A signal stops the training. The function then prints the last epoch that has ended, and exits.

    Args:
        best: the configuration to train.
        folder: where the model and its results are written.
        workspace: the folder of the data, the device, and the storage of the configuration's study.
        seeds: number of models, each with another seed.
        force: start again even if another final training or other files are in the folder.
        with_onnx: also write the model as ONNX.

    Returns:
        The content of `metrics.json`.

    Raises:
        UsageError: another process trains in the folder, or an option cannot be used.
        SystemExit: a signal stopped the training.
    """
    if with_onnx:
        require_onnx()  # the error must come before the training, not after it
    training = FinalTraining(best, folder, seeds=seeds, data=workspace.data, device=workspace.device, force=force)
    if training.finished is None:
        config = best.config
        note(
            f"Final training of {config.model.name} {'goes on' if training.is_resumed else 'begins'} in {training.paths.folder}: "
            f"all training images of {best.data.dataset}, {many(config.epochs, 'epoch')}, {many(seeds, 'seed')}, "
            f"on {training.device}. Ctrl-C stops; the same command continues."
        )
    lease = FileLocks(folder).acquire(LOCK)
    if lease is None:
        raise UsageError(f"another process is training in {folder}", hint="Wait for it, or choose another folder with -o.")
    try:
        metrics = training.finished
        if metrics is not None:
            note(f"{folder} is finished: nothing was trained, and the test split was not read again. --force starts again.")
            if with_onnx and training.write_onnx():
                note(f"Wrote {training.paths.onnx}.")
            return metrics
        log = _held_out_log(best, workspace)
        view = TrainingView(epochs=best.config.epochs, seeds=seeds)
        with collect_signals() as received:
            try:
                with view:
                    for seed, epoch in training.train():
                        view.show(epoch, seed=seed)
                if with_onnx:
                    training.write_onnx()
                note("All seeds are trained. Reading the test split …")
                return training.score(log)
            except KeyboardInterrupt:
                note(f"Stopped {view.position}. The same command continues.", style="yellow")
                sys.exit(128 + received[0])
    finally:
        lease.release()


@dataclass(frozen=True)
class _StudyLog:
    """Counts the readings of the test split in the study that a configuration comes from."""

    stored: optuna.Study

    @property
    def study(self) -> str:
        """The study's name."""
        return self.stored.study_name

    def add_reading(self, reading: HeldOutReading) -> int:
        """Record a reading or its result. Return the number of readings in the study."""
        return write_held_out_reading(self.stored, asdict(reading))


def _held_out_log(best: BestConfig, workspace: Workspace) -> _StudyLog | None:
    """Return the log in the study that the configuration comes from.

    Return None if the configuration has no study. If the study cannot be read, print a warning and return None.
    """
    provenance = best.provenance
    if not {"study", "trial"} <= set(provenance):
        return None
    study, trial = provenance["study"], provenance["trial"]
    try:
        stored = workspace.open().load(str(study))
        require_own(stored, hint="")
        fingerprint = read_trial(stored, int(trial)).run.get("fingerprint")
    except (StorageError, StudyNotFoundError, ValueError, TypeError) as error:
        reason = error.message if isinstance(error, HpsearchError) else str(error)
        note(
            f"The study '{study}' is out of reach: {reason}. The reading of the test split is recorded in the folder only.", style="yellow"
        )
        return None
    if fingerprint != provenance.get("fingerprint"):
        note(f"The study '{study}' here is another one. The reading of the test split is recorded in the folder only.", style="yellow")
        return None
    return _StudyLog(stored)
