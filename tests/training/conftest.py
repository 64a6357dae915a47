"""Fashion-MNIST and configs of small runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpsearch.config import registration as extensions
from hpsearch.config.components import Scalar
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.training.data import files
from hpsearch.training.data.datasets import Images, read_images
from hpsearch.training.data.split import Split, make_split

Configure = Callable[..., TrainConfig]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    return files.prepare("fashion-mnist").absolute()


@pytest.fixture(scope="session")
def fashion(data_root: Path) -> Images:
    return read_images("fashion-mnist", train=True, folder=data_root)


@pytest.fixture(scope="session")
def small(fashion: Images) -> Split:
    """A split with 500 images for training and 200 for validation."""
    return make_split(fashion, validation_images=200, seed=5, train_images=500)


@pytest.fixture
def configure() -> Configure:
    """Make a config from keywords: `configure(model="lenet5", model_dropout=0.1, optimizer_lr=0.2, epochs=2)`."""

    def make(*, seed: int = 3, **values: Scalar) -> TrainConfig:
        settings: dict[tuple[str, str], Scalar] = {}
        for key, value in values.items():
            owner, _, name = key.partition("_")
            inner = owner in ("model", "optimizer", "schedule") and name
            settings[(owner, name) if inner else ("trainer", key)] = value
        return resolve(settings, catalog=extensions.current_catalog(), seed=seed)  # type: ignore[arg-type]

    return make
