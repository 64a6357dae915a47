"""A trainer that is a formula: search is tested with it in milliseconds, and killed with it by the hundred.

Run as a script it is `hpsearch` with the formula in the trainer's place; no torch is loaded. With
`FORMULA_TRAINER=real` it is `hpsearch` as it is, but that its epochs are noted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpsearch.config.epoch import Epoch
from hpsearch.config.train_config import TrainConfig
from hpsearch.search.worker import Trainer

EPOCH_SECONDS = "FORMULA_EPOCH_SECONDS"
"""The environment variable that says how long an epoch of the formula lasts."""
EPOCH_NOTES = "FORMULA_EPOCH_NOTES"
"""The environment variable that names a file in which every epoch is noted as it begins: `<config> <epoch>`."""


def accuracy(config: TrainConfig, epoch: int) -> float:
    """Rises with the epochs, best at a learning rate near 0.03, and better for the cnn."""
    lr = float(config.optimizer.options["lr"])
    peak = 0.9 - 0.05 * abs(math.log10(lr / 0.03)) + (0.02 if config.model.name == "cnn" else 0.0)
    noise = int(hashlib.sha256(f"{config.digest}/{epoch}".encode()).hexdigest()[:4], 16) / 0xFFFF - 0.5
    return max(0.0, min(1.0, peak * (1 - 0.5**epoch) + 0.01 * noise))


def formula_epoch(config: TrainConfig, number: int, **changes: object) -> Epoch:
    """One epoch of the formula."""
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


def train(config: TrainConfig, checkpoint: Path, owner: str) -> Iterator[Epoch]:
    """Yields the formula's epochs; the checkpoint holds how many there were."""
    done = json.loads(checkpoint.read_text())["epochs"] if checkpoint.exists() else 0
    for number in range(1, config.epochs + 1):
        if number > done:
            note_epoch(config, number)
            time.sleep(float(os.environ.get(EPOCH_SECONDS, "0")))
            temporary = checkpoint.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"epochs": number, "owner": owner}))
            temporary.replace(checkpoint)
        yield formula_epoch(config, number)


def note_epoch(config: TrainConfig, number: int) -> None:
    """Note that an epoch begins, in one write that nothing can cut in two."""
    if path := os.environ.get(EPOCH_NOTES):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{config.digest} {number}\n".encode())
        os.close(descriptor)


def note_real_epochs() -> None:
    """Have the real trainer note its epochs too."""
    from hpsearch.training import trainer

    begin = trainer._Run.epoch

    def noted(run: trainer._Run, number: int) -> object:
        note_epoch(run.config, number)
        return begin(run, number)

    trainer._Run.epoch = noted  # type: ignore[assignment,method-assign]


def formula_trainer(train: Callable[[TrainConfig, Path, str], Iterator[Epoch]] = train) -> Trainer:
    """A trainer that a worker takes."""
    return Trainer(
        train=train,
        cost=lambda config: (1000 * int(config.model.options.get("filters1", 5)), 1_000_000),
        forget=lambda checkpoint: checkpoint.unlink(missing_ok=True),
        facts=lambda config: {"split_hash": "formula", "device": "none", "versions": {}},
        data_hash="formula",
        n_images=1000,
    )


if __name__ == "__main__":
    import hpsearch.workflows.supervisor
    import hpsearch.workflows.worker_process as room
    from hpsearch.cli.main import main

    if os.environ.get("FORMULA_TRAINER") != "real":
        room.load_trainer = lambda file, workspace, *, repeats: formula_trainer()
    elif "worker" in sys.argv:
        note_real_epochs()
    hpsearch.workflows.supervisor.WORKER_COMMAND = (sys.executable, "-m", "tests.support.fake_trainer", "worker")
    main()
