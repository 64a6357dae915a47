"""The room where the wings meet: load the split, bind the trainer, hand it to the worker loop."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from hpsearch.config.components import Scalar
from hpsearch.config.epoch import Epoch
from hpsearch.config.sections import Budget
from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import NotComparableError
from hpsearch.search.budget import Clock
from hpsearch.search.claim import Claimer
from hpsearch.search.deletion import report_deletion
from hpsearch.search.pruner import make_pruner
from hpsearch.search.sampler import SpaceSampler
from hpsearch.search.trial_source import RepeatedTrials, SampledTrials, TrialSource
from hpsearch.search.worker import Interrupted, StopRequest, Trainer, Worker
from hpsearch.storage.database import Store
from hpsearch.storage.records import read_study, write_split_hash
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeat_study import Plan, is_follow_up, read_plan, read_sizes, repeat_seed, write_images
from hpsearch.workflows.resume import require_comparable

ASK_SECONDS = 1.0
"""Between two looks whether the study's workers were asked to stop."""
GRACE_SECONDS = 3.0
"""Between the end of the supervisor and the end of its workers."""


def work(
    file: StudyFile,
    workspace: Workspace,
    budget: Budget,
    *,
    name: str,
    only: int | None,
    supervised: bool,
    run: str | None,
    run_started: float | None,
) -> int:
    """Train trials of a study in this process until there is nothing left to do; returns how many ended.

    Raises:
        SystemExit: it was stopped by a signal, and nobody supervises it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    faulthandler.enable()
    stop = StopRequest()
    stop.listen()
    if supervised:
        threading.Thread(target=_leave_with_supervisor, daemon=True).start()
    store = workspace.open(trimmed=True)
    workspace.retry_policy.stop_requested = lambda: stop.requested
    clock = Clock(run=run or uuid.uuid4().hex[:8], started=time.monotonic() if run_started is None else run_started)
    study = store.load(file.name)
    with report_deletion(study, store, workspace.paths.study(file.name)):
        ended = _search(file, workspace, budget, store, study, clock, stop, name=name, only=only)
    if stop.requested and not supervised:
        sys.exit(128 + stop.signal)
    return ended


def _search(
    file: StudyFile,
    workspace: Workspace,
    budget: Budget,
    store: Store,
    study: optuna.Study,
    clock: Clock,
    stop: StopRequest,
    *,
    name: str,
    only: int | None,
) -> int:
    require_comparable(study, file)
    plan = read_plan(study, file) if is_follow_up(study) else None
    try:
        with stop.breaks_in():
            trainer = load_trainer(file, workspace, repeats=plan is not None)
    except Interrupted:
        return 0

    def accept(values: Mapping[str, Scalar]) -> bool:
        limit = file.limits.parameters
        return limit is None or trainer.cost(file.space.config(values, seed=0))[0] <= limit

    study.sampler = SpaceSampler(file.space, file.sampler, budget, seed=file.seed, accept=accept)
    study.pruner = make_pruner(file.pruner, file.space)
    asked = _AskedToStop(study)
    with workspace.creation_lock():
        known = read_study(study).split_hash
        if known is None:
            write_split_hash(study, trainer.data_hash)
        elif known != trainer.data_hash:
            raise NotComparableError(
                f"the images of {file.data.dataset} here are not those that '{file.name}' was begun with",
                hint="Point --data at the same files, or begin another study.",
            )
    paths = workspace.paths.study(file.name)
    source: TrialSource = SampledTrials(study=study, space=file.space, budget=budget, clock=clock, seed=file.seed)
    if plan is not None:
        write_images(study, trainer.n_images)
        source = _repeated(study, file, plan)
    claimer = Claimer(
        store=store,
        study=study,
        locks=workspace.locks,
        source=source,
        run=clock.run,
        paths=paths,
        worker=name,
        only=only,
        stopping=lambda: stop.requested or asked(),
    )
    worker = Worker(
        keep=file.keep,
        store=store,
        study=study,
        claimer=claimer,
        trainer=trainer,
        paths=paths,
        trial_time=budget.trial_time,
        stop=stop,
    )
    return worker.work()


class _AskedToStop:
    """Whether `hpsearch stop` has been called since this was made; asked often, it looks once a second."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._before = self._now = read_study(study).stop_requests
        self._looked = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self._looked >= ASK_SECONDS:
            self._now = read_study(self._study).stop_requests
            self._looked = time.monotonic()
        return self._now > self._before


def _repeated(study: optuna.Study, file: StudyFile, plan: Plan) -> RepeatedTrials:
    """The runs of a linked study."""
    sizes = read_sizes(study)
    return RepeatedTrials(
        study=study,
        next_runs=lambda scores, failed: plan.next_runs(scores, failed, **sizes),
        config_of=plan.config,
        seed_of=lambda repeat: repeat_seed(file.seed, repeat),
    )


def load_trainer(file: StudyFile, workspace: Workspace, *, repeats: bool) -> Trainer:
    """The trainer on the study's split of its data, or on a split for each seed.

    Args:
        repeats: whether each run draws its split by its own seed, and validates on none of the search's validation images.

    Raises:
        DataError: the images are missing or damaged.
        ConfigError: there is no such device.
    """
    from hpsearch.training import checkpoint as checkpoints
    from hpsearch.training.data.samples import write_samples
    from hpsearch.training.data.split import Split, load_training_images, make_split, validation_indices
    from hpsearch.training.device import resolve_device
    from hpsearch.training.model_summary import summarize
    from hpsearch.training.run_info import environment
    from hpsearch.training.trainer import train

    device = resolve_device(workspace.device)
    data = load_training_images(file.data.dataset, folder=workspace.data)
    divided = partial(make_split, data, validation_images=file.data.validation_images, train_images=file.data.train_images)
    if repeats:
        searched_on = validation_indices(data, validation_images=file.data.validation_images, seed=file.seed)
        drawn: dict[int, Split] = {}

        def split_for(config: TrainConfig) -> Split:
            if config.seed not in drawn:
                drawn.clear()
                drawn[config.seed] = divided(seed=config.seed, exclude_from_validation=searched_on).to(device)
            return drawn[config.seed]

    else:
        split = divided(seed=file.seed).to(device)
        write_samples(split, workspace.paths.study(file.name).samples)

        def split_for(config: TrainConfig) -> Split:
            return split

    def run(config: TrainConfig, checkpoint: Path, owner: str) -> Iterator[Epoch]:
        return train(config, split_for(config), checkpoint=checkpoint, device=str(device), owner=owner)

    _, channels, height, width = data.images.shape

    def cost(config: TrainConfig) -> tuple[int, int]:
        summary = summarize(config, (channels, height, width), len(data.classes))
        return summary.trainable, summary.flops

    def facts(config: TrainConfig) -> dict[str, Any]:
        return {"fingerprint": file.space.fingerprint, **environment(split_for(config), device)}

    return Trainer(
        train=run,
        cost=cost,
        forget=checkpoints.remove,
        facts=facts,
        data_hash=data.hash if repeats else split.hash,
        n_images=len(data.labels),
    )


def _leave_with_supervisor() -> None:
    """Wait for the end of standard input, which is the end of the supervisor, and leave in good order or at once."""
    # Not by sys.stdin, whose lock a thread would still hold when the interpreter shuts down.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
