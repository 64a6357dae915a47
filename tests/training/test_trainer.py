"""The training loop: runs repeat, continue from a checkpoint, and report divergence."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import hpsearch
from hpsearch.analysis.metrics import most_confident_mistakes, read_mistakes, read_predictions
from hpsearch.config.components import BUILT_IN
from hpsearch.config.epoch import Epoch
from hpsearch.errors import ConfigError, TrainingError
from hpsearch.training import trainer
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.split import Split, make_split
from hpsearch.training.trainer import predictions_path, train

from .conftest import Configure


def measured(epochs: list[Epoch]) -> list[dict[str, Any]]:
    """All that must repeat: everything except the times."""
    return [{**epoch.to_dict(), "seconds": 0, "images_per_second": 0} for epoch in epochs]


def run(*arguments: Any, **named: Any) -> list[Epoch]:
    return list(train(*arguments, device="cpu", **named))


LIVELY: dict[str, Any] = {
    "model": "cnn", "optimizer": "sgd", "optimizer_momentum": 0.9, "schedule": "onecycle", "epochs": 4,
    "batch_size": 64, "model_dropout": 0.4, "model_batch_norm": True, "flip": True, "shift": 2, "label_smoothing": 0.1,
}  # fmt: skip
"""A run that uses everything that has a state or draws random numbers."""


def test_epochs_count_from_one_and_learn(small: Split, configure: Configure) -> None:
    epochs = run(configure(epochs=4), small)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].val_accuracy > 0.4
    assert all(epoch.seconds > 0 and epoch.images_per_second > 0 for epoch in epochs)


def test_runs_repeat_bit_for_bit(small: Split, configure: Configure) -> None:
    config = configure(**LIVELY)
    assert measured(run(config, small)) == measured(run(config, small))


def test_another_seed_gives_another_run(small: Split, configure: Configure) -> None:
    one, other = (run(configure(seed=seed, epochs=1), small)[0] for seed in (1, 2))
    assert one.weights_hash != other.weights_hash


def test_two_runs_that_take_turns_do_not_disturb_each_other(small: Split, configure: Configure) -> None:
    configs = [configure(**{**LIVELY, "epochs": 2}), configure(model="lenet5", model_dropout=0.3, epochs=2)]
    alone = [measured(run(config, small)) for config in configs]
    transaction = list(zip(*(train(config, small, device="cpu") for config in configs), strict=True))
    assert [measured(list(epochs)) for epochs in zip(*transaction, strict=True)] == alone


def test_the_callers_random_numbers_are_left_alone(small: Split, configure: Configure) -> None:
    def draws() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(numpy.random.rand())

    def seed() -> None:
        torch.manual_seed(1)
        random.seed(1)
        numpy.random.seed(1)

    seed()
    wanted = draws()
    seed()
    run(configure(epochs=1), small)
    assert draws() == wanted


def test_loss_over_indices_is_the_categorical_one_over_one_hot_labels() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(40, 10, generator=generator), torch.randint(0, 10, (40,), generator=generator)
    for smoothing in (0.0, 0.1, 0.7):
        targets = functional.one_hot(labels, 10).float() * (1 - smoothing) + smoothing / 10
        categorical = -(targets * torch.log_softmax(logits, 1)).sum(1).mean()
        torch.testing.assert_close(functional.cross_entropy(logits, labels, label_smoothing=smoothing), categorical)


@pytest.mark.parametrize("owner", ["optimizer", "schedule"])
def test_every_optimizer_and_schedule_trains(small: Split, configure: Configure, owner: Any) -> None:
    for name in BUILT_IN.names(owner):
        epochs = run(configure(model="lenet5", epochs=2, **{owner: name}), small)
        assert len(epochs) == 2, name
        assert not epochs[-1].diverged, name


@pytest.mark.parametrize(
    "values", [{"label_smoothing": 0.2}, {"flip": True}, {"shift": 3}, {"batch_size": 32}, {"schedule": "cosine"}, {"optimizer_lr": 0.002}]
)
def test_every_setting_makes_a_difference(small: Split, configure: Configure, values: dict[str, Any]) -> None:
    plain, changed = (run(configure(model="lenet5", epochs=2, **some), small)[-1] for some in ({}, values))
    assert plain.weights_hash != changed.weights_hash


def test_learning_rate_is_that_of_the_last_step(small: Split, configure: Configure) -> None:
    epochs = run(configure(model="lenet5", schedule="step", schedule_step_size=1, schedule_gamma=0.5, optimizer_lr=0.004, epochs=3), small)
    assert [epoch.learning_rate for epoch in epochs] == [0.004, 0.002, 0.001]


def test_train_figures_are_of_as_many_images_as_validate_and_without_dropout(small: Split, configure: Configure) -> None:
    @hpsearch.model("watching")
    class Watching(nn.Module):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.dense = nn.Linear(784, classes)

        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.training, len(images)))
            return self.dense(images.flatten(1))

    seen: list[tuple[bool, int]] = []
    run(configure(model="watching", epochs=1), small)
    assert sum(number for training, number in seen if training) == 500
    # Before training, the model is checked on two images.
    assert sum(number for training, number in seen if not training) == 2 + 200 + 200


@pytest.mark.parametrize("model", ["cnn", "lenet5"])
def test_divergence_is_an_epoch_and_the_last_one(small: Split, configure: Configure, tmp_path: Path, model: str) -> None:
    config = configure(model=model, optimizer="sgd", optimizer_lr=1e6, model_activation="relu", epochs=5, batch_size=8)
    epochs = run(config, small, checkpoint=tmp_path / "checkpoint")
    assert epochs[-1].diverged
    assert len(epochs) < 5
    assert not any(epoch.diverged for epoch in epochs[:-1])
    with numpy.load(predictions_path(tmp_path / "checkpoint")) as stored:
        assert numpy.isnan(stored["confidence"]).all()
    # torch names the first class for logits that are not numbers. No image counts as classified correctly.
    assert epochs[-1].val_accuracy == epochs[-1].train_accuracy == 0
    again = run(config, small, checkpoint=tmp_path / "checkpoint")
    assert [repr(epoch) for epoch in again] == [repr(epoch) for epoch in epochs]


def test_divergence_ends_the_epoch_within_a_bounded_number_of_steps(small: Split, configure: Configure) -> None:
    @hpsearch.model("to-nothing")
    class ToNothing(nn.Module):
        steps = 0

        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.dense = nn.Linear(784, classes)

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                ToNothing.steps += 1
            return self.dense(images.flatten(1)) * (math.nan if self.training else 1)

    (epoch,) = run(configure(model="to-nothing", batch_size=2, epochs=3), small)
    assert epoch.diverged
    assert ToNothing.steps == trainer.LOSS_CHECK_INTERVAL


def test_predictions_are_written_for_the_last_epoch(small: Split, configure: Configure, tmp_path: Path) -> None:
    epochs = run(configure(epochs=2), small, checkpoint=tmp_path / "checkpoint")
    with numpy.load(predictions_path(tmp_path / "checkpoint")) as stored:
        predicted, confidence, label = stored["predicted"], stored["confidence"], stored["label"]
    assert (predicted.dtype, confidence.dtype, label.dtype) == (numpy.uint8, numpy.float32, numpy.uint8)
    assert label.tolist() == small.validation_labels.tolist()
    assert (predicted == label).mean() == pytest.approx(epochs[-1].val_accuracy)
    assert ((confidence > 0.1 - 1e-6) & (confidence <= 1)).all()


def test_the_most_confident_mistakes_are_kept_as_images(small: Split, configure: Configure, tmp_path: Path) -> None:
    run(configure(epochs=1), small, checkpoint=tmp_path / "checkpoint")
    predictions = read_predictions(predictions_path(tmp_path / "checkpoint"))
    indices, images = read_mistakes(predictions_path(tmp_path / "checkpoint"))
    assert predictions.classes == small.classes
    assert indices == most_confident_mistakes(predictions, trainer.KEPT_MISTAKES)
    assert indices
    assert (images == small.validation_images[indices].numpy()).all()


def test_predictions_of_more_than_256_classes_are_whole(configure: Configure, tmp_path: Path) -> None:
    labels = torch.arange(300).repeat(2)
    data = Images(images=torch.zeros(600, 1, 28, 28, dtype=torch.uint8), labels=labels, classes=tuple(map(str, range(300))))
    run(configure(model="lenet5", epochs=1), make_split(data, validation_images=300, seed=1), checkpoint=tmp_path / "checkpoint")
    with numpy.load(predictions_path(tmp_path / "checkpoint")) as stored:
        assert stored["label"].dtype == numpy.int16
        assert sorted(stored["label"].tolist()) == list(range(300))


@pytest.mark.parametrize("batch_size", [499, 1, 65_536])
def test_any_batch_size_trains(small: Split, configure: Configure, batch_size: int) -> None:
    few = dataclasses.replace(small, train_images=small.train_images[:50], train_labels=small.train_labels[:50])
    assert len(run(configure(model="lenet5", epochs=1, batch_size=batch_size), few)) == 1


def test_a_single_image_left_over_does_not_break_batch_norm(small: Split, configure: Configure) -> None:
    config = configure(model="lenet5", model_batch_norm=True, epochs=1, batch_size=499)
    assert len(run(config, small)) == 1


def test_batch_norm_over_single_images_is_refused_by_name(small: Split, configure: Configure) -> None:
    with pytest.raises(ConfigError, match="normalises over the batch, but with batch_size 1"):
        run(configure(model="lenet5", model_batch_norm=True, epochs=1, batch_size=1), small)


@pytest.mark.parametrize(("output", "found"), [("images", r"\(2, 1, 28, 28\)"), ("images.flatten(1)", r"\(2, 784\)"), ("None", "NoneType")])
def test_a_model_that_makes_no_logits_is_refused(small: Split, configure: Configure, output: str, found: str) -> None:
    @hpsearch.model("no-logits")
    class NoLogits(nn.Linear):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__(2, 2)

        def forward(self, images: Tensor) -> Any:
            return eval(output)

    with pytest.raises(ConfigError, match=rf"must map 2 images to logits \(2, 10\), but returned {found}"):
        train(configure(model="no-logits"), small)


def test_out_of_memory_is_said_in_the_words_of_the_config(small: Split, configure: Configure) -> None:
    @hpsearch.model("greedy")
    class Greedy(nn.Linear):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__(784, classes)

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.flatten(1)) + torch.empty(2**60 if self.training else 1).sum() * 0

    with pytest.raises(TrainingError, match="out of memory on cpu with the model 'greedy' and batch_size 128"):
        run(configure(model="greedy", epochs=1), small)


def test_an_error_in_a_users_model_comes_as_it_is(small: Split, configure: Configure) -> None:
    @hpsearch.model("broken")
    def broken(*, input_shape: Any, classes: int) -> nn.Module:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        train(configure(model="broken"), small)


def test_a_users_model_with_lazy_layers_and_views_trains(small: Split, configure: Configure) -> None:
    @hpsearch.model("lazy", width=hpsearch.option(8))
    class Lazy(nn.Module):
        def __init__(self, *, input_shape: Any, classes: int, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.LazyLinear(classes))

        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images.view(len(images), -1))

    colourful = dataclasses.replace(
        small,
        train_images=small.train_images.expand(-1, 3, -1, -1).contiguous(),
        validation_images=small.validation_images.expand(-1, 3, -1, -1).contiguous(),
        mean=small.mean * 3,
        std=small.std * 3,
    )
    assert len(run(configure(model="lazy", epochs=2, flip=True, shift=2), colourful)) == 2


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "must be auto, cpu, cuda or cuda:N, but got 'tpu'"),
        ("cuda:x", "but got 'cuda:x'"),
        ("cuda:99", "'cuda:99' is not available"),
    ],
)
def test_a_device_that_is_not_there_is_refused(small: Split, configure: Configure, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(configure(), small, device=device)


@given(seed=st.integers(-(2**70), 2**70))
def test_every_seed_is_taken(seed: int) -> None:
    from hpsearch.config.seeds import derive_seed

    assert 0 <= derive_seed(seed, "epoch", 1, bits=63) < 2**63
    assert derive_seed(seed, "epoch", 1) != derive_seed(seed, "epoch", 11) != derive_seed(seed + 1, "epoch", 11)


def test_a_model_may_draw_from_python_and_numpy_and_still_repeat(small: Split, configure: Configure) -> None:
    @hpsearch.model("drawing")
    class Drawing(nn.Linear):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__(784, classes)

        def forward(self, images: Tensor) -> Tensor:
            noise = random.random() + float(numpy.random.rand()) if self.training else 1.0
            return super().forward(images.flatten(1) * noise)

    config = configure(model="drawing", epochs=2)
    assert measured(run(config, small)) == measured(run(config, small))
