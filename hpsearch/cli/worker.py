"""The room where the wings meet: load the split, bind the trainer, hand it to the worker loop."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpsearch.components import Scalar
from hpsearch.config import TrainConfig
from hpsearch.epoch import Epoch
from hpsearch.errors import NotComparableError
from hpsearch.run import Place
from hpsearch.search.budget import Clock
from hpsearch.search.claim import Claimer
from hpsearch.search.lease import CREATION_LOCK
from hpsearch.search.pruning import make_pruner
from hpsearch.search.sampling import SpaceSampler
from hpsearch.search.worker import Interrupted, StopRequest, Trainer, Worker
from hpsearch.sections import Budget
from hpsearch.storage import read_study, stop_requests, write_split
from hpsearch.study_file import StudyFile

GRACE_SECONDS = 3.0
"""Between the end of the supervisor and the end of its workers."""


def work(
    file: StudyFile,
    place: Place,
    budget: Budget,
    *,
    name: str,
    only: int | None,
    supervised: bool,
    run: str | None,
    run_started: float | None,
) -> int:
    """Train trials of a study in this process until there is nothing left to do; returns how many ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    faulthandler.enable()
    stop = StopRequest()
    stop.listen()
    if supervised:
        threading.Thread(target=_leave_with_supervisor, daemon=True).start()
    try:
        with stop.breaks_in():
            trainer = load_trainer(file, place)
    except Interrupted:
        return 0
    store = place.open()
    locks = place.locks

    def accept(values: Mapping[str, Scalar]) -> bool:
        limit = file.limits.parameters
        return limit is None or trainer.cost(file.space.config(values, seed=0))[0] <= limit

    sampler = SpaceSampler(file.space, file.sampler, budget, seed=file.seed, accept=accept)
    study = store.load(file.name, sampler=sampler, pruner=make_pruner(file.pruner, file.space))
    stops_before = stop_requests(study)
    split_hash = trainer.facts["split_hash"]
    with locks.hold(CREATION_LOCK):
        known = read_study(study).split_hash
        if known is None:
            write_split(study, split_hash)
        elif known != split_hash:
            raise NotComparableError(
                f"the images of {file.data.dataset} here are not those that '{file.name}' was begun with",
                hint="Point --data at the same files, or begin another study.",
            )
    paths = place.paths.study(file.name)
    claimer = Claimer(
        store=store,
        study=study,
        locks=locks,
        space=file.space,
        budget=budget,
        clock=Clock(run=run or uuid.uuid4().hex[:8], started=time.monotonic() if run_started is None else run_started),
        paths=paths,
        worker=name,
        only=only,
        stopping=lambda: stop.requested or stop_requests(study) > stops_before,
    )
    worker = Worker(
        keep=file.keep,
        store=store,
        study=study,
        claimer=claimer,
        trainer=trainer,
        paths=paths,
        seed=file.seed,
        trial_time=budget.trial_time,
        stop=stop,
    )
    return worker.work()


def load_trainer(file: StudyFile, place: Place) -> Trainer:
    """The trainer on the study's split of its data.

    Raises:
        DataError: the images are missing or damaged.
        ConfigError: there is no such device.
    """
    from hpsearch.training import checkpoint as checkpoints
    from hpsearch.training.conditions import conditions
    from hpsearch.training.data import load_split
    from hpsearch.training.device import resolve_device
    from hpsearch.training.picture import leave_samples
    from hpsearch.training.summary import summarize
    from hpsearch.training.trainer import train

    # Torch's optimizers import it at their first step, a second of work that fits between the reading and hashing of images.
    threading.Thread(target=importlib.import_module, args=("torch._dynamo",)).start()
    device = resolve_device(place.device)
    split = load_split(
        file.data.dataset,
        validation_images=file.data.validation_images,
        train_images=file.data.train_images,
        seed=file.seed,
        folder=place.data,
    ).to(device)
    leave_samples(split, place.paths.study(file.name).samples)

    def run(config: TrainConfig, checkpoint: Path, owner: str) -> Iterator[Epoch]:
        return train(config, split, checkpoint=checkpoint, device=str(device), owner=owner)

    def cost(config: TrainConfig) -> tuple[int, int]:
        summary = summarize(config, split.input_shape, len(split.classes))
        return summary.trainable, summary.flops

    facts = {"fingerprint": file.space.fingerprint, **conditions(split, device)}
    return Trainer(train=run, cost=cost, forget=checkpoints.remove, facts=facts)


def _leave_with_supervisor() -> None:
    """Wait for the end of standard input, which is the end of the supervisor, and leave in good order or at once."""
    # Not by sys.stdin, whose lock a thread would still hold when the interpreter shuts down.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
