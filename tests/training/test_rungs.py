"""Rungs: early measurements inside the first epoch, which change nothing in the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hpsearch
from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.train_config import TrainConfig
from hpsearch.training.data.split import Split, stratified_order
from hpsearch.training.trainer import train

from .conftest import Configure
from .test_trainer import LIVELY, measured, run

RUNGS = (0.1, 0.3, 0.6)


def climb(config: TrainConfig, split: Split, **named: Any) -> tuple[list[Rung], list[Epoch]]:
    rungs: list[Rung] = []
    epochs: list[Epoch] = []
    for each in train(config, split, device="cpu", rungs=RUNGS, **named):
        rungs.append(each) if isinstance(each, Rung) else epochs.append(each)
    return rungs, epochs


def known(rungs: list[Rung]) -> list[tuple[float, int, float, int]]:
    """All that must repeat: everything except the times."""
    return [(rung.share, rung.images, rung.val_accuracy, rung.n_validated) for rung in rungs]


@pytest.fixture
def restless(configure: Configure) -> TrainConfig:
    """A run whose model draws from every generator, in evaluation too."""

    @hpsearch.model("restless")
    class Restless(torch.nn.Module):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(784, classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            noise = numpy.random.rand() + torch.rand(()).item()
            logits: torch.Tensor = self.dense(images.flatten(1) + noise / 10)
            return logits

    return configure(model="restless", epochs=2, batch_size=32, flip=True)


def test_rungs_change_nothing_in_the_training(small: Split, configure: Configure, restless: TrainConfig) -> None:
    for config in (configure(**{**LIVELY, "epochs": 2}), restless):
        rungs, epochs = climb(config, small)
        assert measured(epochs) == measured(run(config, small))
        assert len(rungs) == len(RUNGS)


def test_a_rung_counts_the_images_and_validates_the_same_share(small: Split, configure: Configure) -> None:
    config = configure(model="lenet5", epochs=1, batch_size=50)
    rungs, (epoch,) = climb(config, small)
    assert [(rung.images, rung.n_validated) for rung in rungs] == [(50, 20), (150, 60), (300, 120)]
    assert all(0 <= rung.val_accuracy <= 1 for rung in rungs)
    assert rungs[-1].val_accuracy > 0.3
    assert 0 < rungs[0].seconds < rungs[1].seconds < rungs[2].seconds < epoch.seconds


@pytest.mark.parametrize("stop", range(6))
def test_a_run_goes_on_from_every_rung_to_the_same_bits(
    small: Split, configure: Configure, restless: TrainConfig, tmp_path: Path, stop: int
) -> None:
    for number, config in enumerate((configure(**{**LIVELY, "epochs": 2}), restless)):
        checkpoint = tmp_path / f"checkpoint{number}"
        begun = train(config, small, device="cpu", rungs=RUNGS, checkpoint=checkpoint)
        for _ in range(stop):
            next(begun)
        begun.close()
        rungs, epochs = climb(config, small, checkpoint=checkpoint)
        whole = climb(config, small)
        assert measured(epochs) == measured(whole[1])
        # The rungs of an epoch that is done are not kept.
        assert known(rungs) == (known(whole[0]) if stop <= len(RUNGS) else [])


def test_a_run_that_was_left_at_a_rung_goes_on_without_rungs(small: Split, configure: Configure, tmp_path: Path) -> None:
    config = configure(**{**LIVELY, "epochs": 2})
    begun = train(config, small, device="cpu", rungs=RUNGS, checkpoint=tmp_path / "checkpoint")
    next(begun)
    begun.close()
    assert measured(run(config, small, checkpoint=tmp_path / "checkpoint")) == measured(run(config, small))


def test_a_run_that_diverges_before_a_rung_ends_as_without_rungs(small: Split, configure: Configure) -> None:
    config = configure(model="lenet5", optimizer="sgd", optimizer_lr=1e6, model_activation="relu", epochs=3, batch_size=4)
    rungs, epochs = climb(config, small)
    assert len(rungs) < len(RUNGS)
    assert [epoch.diverged for epoch in epochs] == [True]
    assert measured(epochs) == measured(run(config, small))


def test_an_epoch_of_one_step_has_rungs_too(small: Split, configure: Configure) -> None:
    config = configure(model="lenet5", epochs=1, batch_size=500)
    rungs, epochs = climb(config, small)
    assert [rung.images for rung in rungs] == [500, 500, 500]
    assert measured(epochs) == measured(run(config, small))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_every_beginning_of_the_order_is_stratified(labels: list[int], share: float) -> None:
    wanted = torch.tensor(labels)
    order = stratified_order(wanted, torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(len(labels)))
    # A beginning up to one place of the order holds the same share of each class, give or take an image.
    beginning = wanted[order[: int(share * len(labels))]]
    for label in set(labels):
        assert abs((beginning == label).sum().item() - share * labels.count(label)) <= 1 + len(set(labels))
