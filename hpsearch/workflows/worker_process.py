"""The process of a worker. It loads the data, makes the trainer, and runs the worker loop of the package `search`."""

from __future__ import annotations

import faulthandler
import functools
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from hpsearch.config.components import Scalar
from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import DiskError, NotComparableError, WorkerDiedError
from hpsearch.search.budget import Clock
from hpsearch.search.claim import Claimer
from hpsearch.search.halving import Halving
from hpsearch.search.isolation import isolated
from hpsearch.search.pruner import Audit, make_pruner
from hpsearch.search.sampler import SpaceSampler
from hpsearch.search.trial_source import SampledTrials, TrialSource
from hpsearch.search.worker import Interrupted, StopRequest, Trainer, Worker
from hpsearch.search.worker_link import link_to_supervisor
from hpsearch.search.worker_order import WorkerOrder
from hpsearch.search.worker_pool import WorkerCount
from hpsearch.storage.records import read_study, write_split_hash
from hpsearch.storage.study_folder import claim_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.precision import slow_search
from hpsearch.workflows.repeat_study import is_follow_up, repeated_trials, write_images
from hpsearch.workflows.resume import require_comparable
from hpsearch.workflows.run import find_study_file
from hpsearch.workflows.supervisor import Search

STOP_POLL = 1.0
"""Seconds between two checks whether `hpsearch stop` was called."""


def run_worker(order: WorkerOrder, *, storage: str | None = None) -> int:
    """Train trials of a study in this process until nothing is left to do.

    Args:
        order: the study, the folders, the device and the limits of this worker.
        storage: URL of the database; None for `$OPTUNA_STORAGE`, or the SQLite file in the folder of runs.

    Returns:
        The number of trials that ended in this process.

    Raises:
        HpsearchError: the study cannot be trained.
        SystemExit: a signal stopped a worker without a supervisor.
    """
    sys.breakpointhook = _refuse_breakpoint
    with link_to_supervisor(order.supervisor):
        return _run_worker(order, storage)


def _refuse_breakpoint(*arguments: object, **options: object) -> None:
    raise RuntimeError(
        "breakpoint() needs a terminal, but a worker has none; `hpsearch export` and `hpsearch train` train one config in it"
    )


def _run_worker(order: WorkerOrder, storage: str | None) -> int:
    workspace = Workspace(
        storage=storage,
        runs=order.runs,
        data=order.data,
        device=order.device,
        wait_for_server=True,
        component_folder=order.component_folder,
    )
    file = find_study_file(order.study, workspace)
    changes = {key: value for key, value in (("trials", order.trials), ("epochs", order.epochs), ("time", order.time)) if value is not None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    faulthandler.enable()
    stop = StopRequest()
    stop.listen()
    store = workspace.open(trimmed=True)
    workspace.retry_policy.stop_requested = lambda: stop.requested
    started = time.monotonic() if order.run_started is None else order.run_started
    study = store.load(file.name)
    search = Search(
        file=file.with_precision(read_study(study).auto_precision),
        workspace=workspace,
        store=store,
        study=study,
        identity=order.identity or workspace.identity_of(study),
        budget=file.budget.model_copy(update=changes),
        workers=WorkerCount(count=1, reason="this process"),
    )
    with search.loaded.report_deletion():
        claim_folder(file.name, workspace, store)
        if warning := slow_search(search):
            logging.warning(warning)
        ended = _train(search, order, Clock(run=order.run or uuid.uuid4().hex[:8], started=started), stop)
    if stop.requested and order.supervisor is None:
        sys.exit(128 + stop.signal)
    return ended


def _train(search: Search, order: WorkerOrder, clock: Clock, stop: StopRequest) -> int:
    search.loaded.require_exists()
    require_comparable(search.study, search.file)
    try:
        with stop.interruptible():
            trainer = load_trainer(search.file, search.workspace, repeats=is_follow_up(search.study))
    except Interrupted:
        return 0
    _require_same_images(search, trainer)
    return make_worker(search, trainer, clock=clock, stop=stop, name=order.worker, only_trial=order.only_trial).work()


def _require_same_images(search: Search, trainer: Trainer) -> None:
    """Record the images of a new study. Raise an error if the study was trained on other images before."""
    with search.workspace.creation_lock():
        known = read_study(search.study).split_hash
        if known is None:
            write_split_hash(search.study, trainer.data_hash)
        elif known != trainer.data_hash:
            raise NotComparableError(
                f"the images of {search.file.data.dataset} here differ from those of the first trials of '{search.file.name}'",
                hint="Point --data at the same files, or begin another study.",
            )
    if is_follow_up(search.study):
        write_images(search.study, trainer.n_images)


def make_worker(search: Search, trainer: Trainer, *, clock: Clock, stop: StopRequest, name: str, only_trial: int | None) -> Worker:
    """Make the worker loop of a search.

    Args:
        search: the search. Its study gets the sampler and the pruner of the study file.
        trainer: trains the configurations.
        clock: measures the time of the run.
        stop: the request to stop.
        name: name of the worker.
        only_trial: the only trial to train; None for all trials.

    Returns:
        The worker.
    """
    file, store, study = search.file, search.store, search.study

    def accept(values: Mapping[str, Scalar]) -> bool:
        limit = file.limits.parameters
        try:
            return limit is None or trainer.cost(file.space.config(values, seed=0))[0] <= limit
        except (DiskError, WorkerDiedError):
            raise
        except Exception:  # a user's model cannot be built, so the trial will fail with this error
            return True

    # A trial that the user asked for by its number is trained to its end.
    halving = Halving.of(file.pruner, file.space) if only_trial is None else None
    n_images = file.data.validation_images
    study.sampler = SpaceSampler(file.space, file.sampler, search.budget, seed=file.seed, n_images=n_images, accept=accept, halving=halving)
    audit = Audit(share=file.pruner.audit or 0.0, seed=file.seed)
    study.pruner = make_pruner(file.pruner, file.space)
    source: TrialSource
    if is_follow_up(study):
        source = repeated_trials(study, file)
    else:
        source = SampledTrials(
            study=study,
            space=file.space,
            budget=search.budget,
            clock=clock,
            seed=file.seed,
            n_images=n_images,
            halving=halving,
            audit=audit,
        )
    paths = search.workspace.paths.study(file.name)
    stop_called = _stop_called(study)
    claimer = Claimer(
        store=store,
        study=study,
        loaded=search.loaded,
        locks=search.workspace.locks,
        source=source,
        run=clock.run,
        paths=paths,
        worker=name,
        only_trial=only_trial,
        stop_requested=lambda: stop.requested or stop_called(),
        forget=trainer.forget,
    )
    return Worker(
        store=store,
        study=study,
        claimer=claimer,
        trainer=trainer,
        paths=paths,
        trial_time=search.budget.trial_time,
        stop=stop,
        keep=file.keep,
        halving=halving,
        audit=audit,
    )


def _stop_called(study: optuna.Study) -> Callable[[], bool]:
    """Return a function that says whether `hpsearch stop` was called after now. The function reads the database once a second."""
    before = now = read_study(study).stop_requests
    last_read = time.monotonic()

    def stop_called() -> bool:
        nonlocal now, last_read
        if time.monotonic() - last_read >= STOP_POLL:
            now = read_study(study).stop_requests
            last_read = time.monotonic()
        return now > before

    return stop_called


def load_trainer(file: StudyFile, workspace: Workspace, *, repeats: bool) -> Trainer:
    """Load the images and make the trainer, on the study's split or on a split for each seed.

    Args:
        file: the study file.
        workspace: the folder of the data, and the device.
        repeats: whether each run draws its own split by its seed. These splits do not validate on the search's validation images.

    Returns:
        The trainer.

    Raises:
        DataError: the images are missing or damaged.
        ConfigError: the device does not exist.
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
    draw_split = partial(make_split, data, validation_images=file.data.validation_images, train_images=file.data.train_images)
    if repeats:
        used_by_search = validation_indices(data, validation_images=file.data.validation_images, seed=file.seed)

        @functools.lru_cache(maxsize=1)  # keep one split in memory
        def split_of(seed: int) -> Split:
            return draw_split(seed=seed, exclude_from_validation=used_by_search).to(device)

    else:
        split = draw_split(seed=file.seed)
        write_samples(split, workspace.paths.study(file.name).samples)

        @functools.cache
        def split_of(seed: int) -> Split:
            return split.to(device)

    def split_for(config: TrainConfig) -> Split:
        # A forked process can only use CUDA if this process does not. So the images are moved to the device by the first trial.
        return split_of(config.seed if repeats else file.seed)

    def run(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch | Rung]:
        return train(config, split_for(config), checkpoint=checkpoint, device=str(device), owner=owner, rungs=tuple(rungs))

    _, channels, height, width = data.images.shape

    def cost(config: TrainConfig) -> tuple[int, int]:
        summary = summarize(config, (channels, height, width), len(data.classes))
        return summary.trainable, summary.flops

    def facts(config: TrainConfig) -> dict[str, Any]:
        return {"fingerprint": file.space.fingerprint, **environment(split_for(config), device)}

    trainer = Trainer(
        train=run,
        cost=cost,
        forget=checkpoints.remove,
        facts=facts,
        data_hash=data.hash if repeats else split.hash,
        n_images=len(data.labels),
    )
    if not file.component_files:
        return trainer
    # torch loads this part at the first step of an optimizer, which would take seconds in each forked process.
    import torch._dynamo  # noqa: F401  # imported for its effect

    return isolated(trainer)
