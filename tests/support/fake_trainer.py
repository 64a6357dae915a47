"""A fake trainer: it computes the accuracy by a formula, so that a search takes milliseconds.

Run as a script, this module is the command `hpsearch` with the fake trainer, and loads no torch. With
`FAKE_TRAINER=real` it is `hpsearch` with the real trainer, which then logs its epochs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.train_config import TrainConfig
from hpsearch.search.worker import Trainer

EPOCH_SECONDS = "FAKE_EPOCH_SECONDS"
"""Environment variable: the seconds that an epoch of the fake trainer lasts."""
EPOCH_LOG = "FAKE_EPOCH_LOG"
"""Environment variable: a file that gains a line `<config digest> <epoch>` when an epoch begins."""


def accuracy(config: TrainConfig, epoch: float) -> float:
    """Return an accuracy that rises with the epochs, peaks at a learning rate of 0.03, and is higher for the CNN."""
    lr = float(config.optimizer.options["lr"])
    peak = 0.9 - 0.05 * abs(math.log10(lr / 0.03)) + (0.02 if config.model.name == "cnn" else 0.0)
    noise = int(hashlib.sha256(f"{config.digest}/{epoch}".encode()).hexdigest()[:4], 16) / 0xFFFF - 0.5
    return max(0.0, min(1.0, peak * (1 - 0.5**epoch) + 0.01 * noise))


def fake_epoch(config: TrainConfig, number: int, **changes: object) -> Epoch:
    """Return one epoch of the fake trainer."""
    value = accuracy(config, number)
    fields = {
        "number": number,
        "train_loss": 1 - value,
        "train_accuracy": min(1.0, value + 0.02),
        "val_loss": 1.1 - value,
        "val_accuracy": value,
        "learning_rate": float(config.optimizer.options["lr"]),
        "seconds": 1.0,
        "images_per_second": 1000.0,
        "weights_hash": hashlib.sha256(f"{config.digest}/{number}".encode()).hexdigest(),
    }
    return Epoch(**{**fields, **changes})  # type: ignore[arg-type]


def train(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float] = ()) -> Iterator[Epoch | Rung]:
    """Yield the rungs and the epochs of a training; the checkpoint holds how many epochs are done, or which share of the first."""
    done = json.loads(checkpoint.read_text())["epochs"] if checkpoint.exists() else 0
    for before, position in itertools.pairwise((0, *rungs, *range(1, config.epochs + 1))):
        if position > done:
            log_epoch(config, position)
            time.sleep(float(os.environ.get(EPOCH_SECONDS, "0")) * (position - before))
            temporary = checkpoint.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"epochs": position, "owner": owner}))
            temporary.replace(checkpoint)
        yield fake_epoch(config, int(position)) if position >= 1 else fake_rung(config, position)


def fake_rung(config: TrainConfig, share: float) -> Rung:
    """Return one rung of the fake trainer."""
    return Rung(share=share, images=100, val_accuracy=accuracy(config, share), n_validated=100, seconds=share)


def log_epoch(config: TrainConfig, number: float) -> None:
    """Log that an epoch begins, or the part of an epoch up to a rung, in one write that no kill can cut in two."""
    if path := os.environ.get(EPOCH_LOG):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{config.digest} {number}\n".encode())
        os.close(descriptor)


def log_real_epochs() -> None:
    """Make the real trainer log its epochs too."""
    from hpsearch.training import trainer

    begin = trainer._Run.epoch

    def logged(run: trainer._Run, number: int) -> object:
        log_epoch(run.config, number)
        return begin(run, number)

    trainer._Run.epoch = logged  # type: ignore[assignment,method-assign]


def make_fake_trainer(train: Callable[..., Iterator[Epoch | Rung]] = train) -> Trainer:
    """Return a fake trainer for `Worker`."""
    return Trainer(
        train=train,
        cost=lambda config: (1000 * int(config.model.options.get("filters1", 5)), 1_000_000),
        forget=lambda checkpoint: checkpoint.unlink(missing_ok=True),
        facts=lambda config: {"split_hash": "fake", "device": "none", "versions": {}},
        data_hash="fake",
        n_images=1000,
    )


if __name__ == "__main__":
    import hpsearch.workflows.supervisor
    import hpsearch.workflows.worker_process as worker_process
    from hpsearch.cli.main import main

    if os.environ.get("FAKE_TRAINER") != "real":
        worker_process.load_trainer = lambda file, workspace, *, repeats: make_fake_trainer()
    elif "worker" in sys.argv:
        log_real_epochs()
    hpsearch.workflows.supervisor.WORKER_COMMAND = (sys.executable, "-P", "-m", "tests.support.fake_trainer", "worker")
    main()
