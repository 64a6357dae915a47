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
from hpsearch.errors import CheckpointError, ConfigError
from hpsearch.training import checkpoint as checkpoints
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


@pytest.mark.parametrize("share", [0.256, 0.3, 0.5])  # a rung at a step where the loss is checked, before one, and after some
@pytest.mark.parametrize("network", [{"model": "lenet5", "model_activation": "relu"}, {"model": "cnn", "model_batch_norm": True}])
def test_a_run_that_diverges_ends_at_the_same_step(small: Split, configure: Configure, share: float, network: dict[str, Any]) -> None:
    config = configure(**network, optimizer="sgd", optimizer_lr=1e6, schedule="onecycle", epochs=3, batch_size=4)
    whole = run(config, small)
    epochs = [each for each in train(config, small, device="cpu", rungs=(share,)) if isinstance(each, Epoch)]
    assert [epoch.diverged for epoch in whole] == [True]
    assert measured(epochs) == measured(whole)


@pytest.mark.parametrize("rungs", [(0.0,), (1.0,), (-0.5,), (0.3, 0.1), (0.3, 0.3), (float("nan"),)])
def test_shares_that_are_none_are_refused(small: Split, configure: Configure, rungs: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="rungs must be rising shares above 0 and below 1"):
        train(configure(epochs=1), small, device="cpu", rungs=rungs)


def test_other_rungs_go_on_from_a_checkpoint(small: Split, configure: Configure, tmp_path: Path) -> None:
    config = configure(model="lenet5", epochs=1, batch_size=50)
    begun = train(config, small, device="cpu", rungs=(0.1, 0.3), checkpoint=tmp_path / "checkpoint")
    assert [next(begun), next(begun)]
    rest = list(train(config, small, device="cpu", rungs=(0.2, 0.3, 0.5), checkpoint=tmp_path / "checkpoint"))
    assert [rung.share for rung in rest if isinstance(rung, Rung)] == [0.3, 0.5]
    assert measured([each for each in rest if isinstance(each, Epoch)]) == measured(run(config, small))


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"}, {"step": -1}, {"step": 0}, {"step": 99}, {"loss": "a"}, {"seconds": None}, {"generators": {}}, {"generators": None},
        {"augmentation": 3}, {"rungs": 3}, {"rungs": [{"share": 0.1}]}, {"more": 1}, None, [],
    ],
)  # fmt: skip
def test_a_damaged_rung_in_a_checkpoint_is_refused(small: Split, configure: Configure, tmp_path: Path, change: Any) -> None:
    config, path = configure(model="lenet5", epochs=1, batch_size=50), tmp_path / "checkpoint"
    begun = train(config, small, device="cpu", rungs=RUNGS, checkpoint=path)
    next(begun)
    begun.close()
    identity = checkpoints.RunIdentity(owner="", config=config.digest, split=small.hash)
    stored = checkpoints.load(path, identity)
    assert stored is not None
    stored["partial_epoch"] = {**stored["partial_epoch"], **change} if isinstance(change, dict) else change
    checkpoints.save(path, identity, stored)
    with pytest.raises(CheckpointError, match="does not fit the config"):
        train(config, small, device="cpu", rungs=RUNGS, checkpoint=path)


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
