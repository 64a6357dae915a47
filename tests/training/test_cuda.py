"""The training loop on a GPU: runs repeat and continue, also on another device, and reach the accuracy of a CPU."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsearch
from hpsearch.config.epoch import Epoch
from hpsearch.errors import TrainingError
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.split import Split, make_split
from hpsearch.training.trainer import predictions_path, train

from .conftest import Configure
from .test_trainer import LIVELY, measured

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")

LIVELY_LENET: dict[str, Any] = {
    **{key: value for key, value in LIVELY.items() if not key.startswith("optimizer")},
    "model": "lenet5", "model_pooling": "max", "optimizer": "adam",
}  # fmt: skip
LENET_OF_THE_PAPER: dict[str, Any] = {"model": "lenet5", "model_dropout": 0.2, "epochs": 3, "batch_size": 64, "shift": 1}
AS_ON_A_CPU = 0.02
"""Difference in validation accuracy: two devices round differently, and training amplifies it. An error would cost more."""

configurations = pytest.mark.parametrize("values", [LIVELY, LIVELY_LENET, LENET_OF_THE_PAPER], ids=["cnn", "lenet5", "lenet5 of the paper"])


def run(*arguments: Any, device: str = "cuda", **named: Any) -> list[Epoch]:
    return list(train(*arguments, device=device, **named))


@pytest.fixture
def memory_limit() -> Iterator[int]:
    """Limit the GPU memory of this process; the card has much more."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = 1_000_000_000
    torch.cuda.set_per_process_memory_fraction(limit / total)
    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@configurations
def test_runs_repeat_bit_for_bit(small: Split, configure: Configure, values: dict[str, Any]) -> None:
    config = configure(**values)
    assert measured(run(config, small)) == measured(run(config, small))


@configurations
@pytest.mark.parametrize("stop", [1, 2])
def test_a_stopped_run_goes_on_bit_for_bit(small: Split, configure: Configure, tmp_path: Path, values: dict[str, Any], stop: int) -> None:
    config = configure(**values)
    stopped = train(config, small, checkpoint=tmp_path / "checkpoint", device="cuda")
    first = [next(stopped) for _ in range(stop)]
    stopped.close()
    again = run(config, small, checkpoint=tmp_path / "checkpoint")
    assert again[:stop] == first
    assert measured(again) == measured(run(config, small))
    assert predictions_path(tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "nadam"])
@pytest.mark.parametrize(("before", "after"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_checkpoint_goes_on_on_another_device(
    small: Split, configure: Configure, tmp_path: Path, optimizer: str, before: str, after: str
) -> None:
    config = configure(model="lenet5", model_batch_norm=True, optimizer=optimizer, schedule="onecycle", epochs=3)
    stopped = train(config, small, checkpoint=tmp_path / "checkpoint", device=before)
    first = next(stopped)
    stopped.close()
    epochs = run(config, small, checkpoint=tmp_path / "checkpoint", device=after)
    assert epochs[0] == first
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert not epochs[-1].diverged
    assert epochs[-1].train_loss < first.train_loss


@pytest.mark.parametrize("model", ["cnn", "lenet5"])
def test_a_gpu_learns_what_a_cpu_learns(fashion: Images, configure: Configure, model: str) -> None:
    split = make_split(fashion, validation_images=2_000, seed=5, train_images=4_000)
    config = configure(model=model, model_dropout=0.0, epochs=2, batch_size=64, flip=True, shift=1)
    here, there = run(config, split), run(config, split, device="cpu")
    for on_gpu, on_cpu in zip(here, there, strict=True):
        assert on_gpu.learning_rate == on_cpu.learning_rate
        assert on_gpu.val_accuracy == pytest.approx(on_cpu.val_accuracy, abs=AS_ON_A_CPU)
        assert on_gpu.val_loss == pytest.approx(on_cpu.val_loss, rel=0.05)


def test_two_runs_that_take_turns_do_not_disturb_each_other(small: Split, configure: Configure) -> None:
    configs = [configure(**{**LIVELY, "epochs": 2}), configure(**{**LIVELY_LENET, "epochs": 2})]
    alone = [measured(run(config, small)) for config in configs]
    transaction = list(zip(*(train(config, small, device="cuda") for config in configs), strict=True))
    assert [measured(list(epochs)) for epochs in zip(*transaction, strict=True)] == alone


def test_the_callers_random_numbers_on_the_gpu_are_left_alone(small: Split, configure: Configure) -> None:
    def draw() -> float:
        return torch.rand((), device="cuda").item()

    torch.manual_seed(1)
    wanted = draw()
    torch.manual_seed(1)
    run(configure(**{**LIVELY, "epochs": 1}), small)
    assert draw() == wanted


def test_out_of_memory_is_said_and_the_next_run_is_as_if_it_had_not_been(small: Split, configure: Configure, memory_limit: int) -> None:
    @hpsearch.model("greedy")
    class Greedy(nn.Linear):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__(784, classes)

        def forward(self, images: Tensor) -> Tensor:
            rows = 2 * memory_limit if self.training else 1
            return super().forward(images.flatten(1)) + torch.empty(rows, dtype=torch.uint8, device=images.device).sum() * 0

    modest = configure(**{**LIVELY, "epochs": 1})
    before = measured(run(modest, small))
    with pytest.raises(TrainingError, match="out of memory on cuda:0 with the model 'greedy' and batch_size 128") as raised:
        run(configure(model="greedy", epochs=1), small)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    del raised
    assert measured(run(modest, small)) == before
    gc.collect()
    assert torch.cuda.memory_allocated() < memory_limit / 10
