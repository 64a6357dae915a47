"""Estimate how long a search takes. One epoch of the cheapest and one epoch of the most expensive configuration are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from optuna.samplers import RandomSampler
from optuna.study import create_study

from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.search.worker_pool import default_workers
from hpsearch.training.data.split import Split, load_training_images, make_split
from hpsearch.training.model_summary import summarize
from hpsearch.training.trainer import train
from hpsearch.workflows.precision import choose_precision

DRAWS = 200
"""Number of random configurations. The cheapest and the most expensive of these configurations are measured."""
MEASURED_IMAGES = 10_000
"""Maximum number of training images in the measured epoch. The time for more images is extrapolated."""
WARM_UP_IMAGES = 1_000

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class MeasuredConfig:
    """A configuration and its measured training time.

    Attributes:
        label: `cheapest` or `dearest`.
        epoch_seconds: time of one epoch, in seconds.
        seconds: time of the whole trial, in seconds.
    """

    label: str
    model: str
    epochs: int
    batch_size: int
    epoch_seconds: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchEstimate:
    """The estimated duration of a search.

    Attributes:
        low: seconds if all trials cost as much as the cheapest.
        middle: the mean of `low` and `high`.
        high: seconds if all trials cost as much as the most expensive.
    """

    cheapest: MeasuredConfig
    dearest: MeasuredConfig
    workers: int
    low: float
    middle: float
    high: float


def estimate_search(study: StudyFile, data: Path | None) -> SearchEstimate:
    """Measure two configurations and estimate the duration of a search.

    Args:
        study: the study file.
        data: folder of the data set; None for the default places.

    Returns:
        The estimate.

    Raises:
        DataError: the images are missing or damaged.
    """
    study = study.with_precision(choose_precision("cpu"))
    images = load_training_images(study.data.dataset, folder=data)

    def of_size(train_images: int | None) -> Split:
        return make_split(images, validation_images=study.data.validation_images, seed=study.seed, train_images=train_images)

    full = of_size(study.data.train_images)
    count = len(full.train_labels)
    split, warm_up = of_size(min(MEASURED_IMAGES, count)), of_size(min(WARM_UP_IMAGES, count))
    scale = count / len(split.train_labels)
    torch.set_num_threads(1)  # a worker has one thread, too

    def cost(config: TrainConfig) -> float:
        # Each step has a fixed cost, about that of 16 images. So small batches cost more for each image.
        return summarize(config, split.input_shape, len(split.classes)).flops * config.epochs * (1 + 16 / config.batch_size)

    points = create_study(sampler=RandomSampler(seed=study.seed))
    configs = [study.space.config(study.space.sample(points.ask()), seed=0) for _ in range(DRAWS)]
    ordered = sorted(configs, key=cost)

    def measure(label: str, config: TrainConfig) -> MeasuredConfig:
        once = replace(config, epochs=1)
        next(train(once, warm_up, device="cpu"))
        epoch = next(train(once, split, device="cpu"))
        steps = len(split.train_labels) / epoch.images_per_second
        seconds = steps * scale + (epoch.seconds - steps)
        return MeasuredConfig(
            label=label,
            model=config.model.name,
            epochs=config.epochs,
            batch_size=config.batch_size,
            epoch_seconds=seconds,
            seconds=seconds * config.epochs,
        )

    cheapest, dearest = measure("cheapest", ordered[0]), measure("dearest", ordered[-1])
    workers = default_workers(study.budget.min_trials(study.space.max_epochs)).count

    def seconds(measured: MeasuredConfig) -> float:
        """Return the time of a search in which all trials cost as much as this one."""
        amounts = ((study.budget.trials, measured.seconds), (study.budget.epochs, measured.epoch_seconds))
        return min(amount * cost for amount, cost in amounts if amount is not None) / workers

    low, high = seconds(cheapest), seconds(dearest)
    return SearchEstimate(
        cheapest=cheapest,
        dearest=dearest,
        workers=workers,
        low=low,
        middle=(low + high) / 2,
        high=high,
    )
