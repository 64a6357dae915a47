"""Training in bfloat16: what stays float32, what repeats, and what the configs of version 0.1 mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hpsearch
from hpsearch.config.epoch import Epoch
from hpsearch.config.train_config import TrainConfig
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.data.split import Split, make_split
from hpsearch.training.trainer import train

from .conftest import Configure
from .test_trainer import LIVELY, measured, run

MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "cnn"},
    "lively cnn": LIVELY,
    "lenet5": {"model": "lenet5"},
    "lenet5 with average pooling and elu": {"model": "lenet5", "model_activation": "elu", "model_batch_norm": True, "model_dropout": 0.2},
}


@pytest.fixture(scope="module")
def tiny(fashion: Any) -> Split:
    """160 training and 64 validation images: without its instructions a processor computes bfloat16 ten times more slowly."""
    return make_split(fashion, validation_images=64, seed=5, train_images=160)


@pytest.fixture(params=MODELS)
def config(request: pytest.FixtureRequest, configure: Configure) -> TrainConfig:
    return configure(**{**MODELS[request.param], "epochs": 2, "batch_size": 32, "precision": "bfloat16"})


def test_only_the_layers_compute_in_bfloat16(config: TrainConfig, tiny: Split, tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    try:
        epochs = run(config, tiny, checkpoint=tmp_path / "checkpoint")
    finally:
        hook.remove()
    assert torch.bfloat16 in seen
    identity = checkpoints.RunIdentity(owner="", config=config.digest, split=tiny.hash)
    stored = checkpoints.load(tmp_path / "checkpoint", identity)
    assert stored is not None
    states = [*stored["model"].values(), *(value for state in stored["optimizer"]["state"].values() for value in state.values())]
    tensors = [tensor for tensor in states if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()]
    assert tensors
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not any(epoch.diverged for epoch in epochs)


def test_it_trains_as_in_float32_but_for_rounding(config: TrainConfig, tiny: Split) -> None:
    rounded, exact = run(config, tiny), run(TrainConfig.from_dict({**config.to_dict(), "precision": "float32"}), tiny)
    assert [epoch.weights_hash for epoch in rounded] != [epoch.weights_hash for epoch in exact]
    for one, other in zip(rounded, exact, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=0.1)


def test_runs_go_on_to_the_same_bits_after_every_epoch(config: TrainConfig, tiny: Split, tmp_path: Path) -> None:
    whole = run(config, tiny)
    resumed: list[Epoch] = []
    for number in range(1, config.epochs + 1):
        training = train(config, tiny, checkpoint=tmp_path / "checkpoint", device="cpu")
        resumed = [next(training) for _ in range(number)]
        training.close()
    assert measured(resumed) == measured(whole)


def test_a_users_model_computes_in_bfloat16_too(tiny: Split, configure: Configure) -> None:
    @hpsearch.model("rounded")
    class Rounded(torch.nn.Module):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(784, classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.dense(images.flatten(1))
            seen.append((images.dtype, logits.dtype))
            return logits

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    epochs = run(configure(model="rounded", epochs=1, precision="bfloat16"), tiny)
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert not epochs[0].diverged


def test_a_config_of_an_earlier_version_is_float32_and_keeps_its_digest(configure: Configure) -> None:
    config = configure(epochs=2)
    assert config.precision == "float32"
    earlier = {name: value for name, value in config.to_dict().items() if name != "precision"}
    assert TrainConfig.from_dict(earlier) == config
    # The digest that version 0.1 gave this config; its checkpoints hold it.
    assert config.digest == "9040a9966609950545a856b02633fbb22912f66a1b733737c5686138bea6c275"
    assert configure(epochs=2, precision="bfloat16").digest != config.digest
