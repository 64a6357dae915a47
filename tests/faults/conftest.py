"""Real processes, forked from one that has everything loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.faults import REAL_STUDY
from tests.support.forkserver import Nursery


@pytest.fixture
def folder(folder: Path, any_storage: str) -> Path:
    """A folder with the study file whose studies lie in a database of each kind."""
    if not any_storage.startswith("sqlite"):
        (folder / "storage").write_text(any_storage)
    return folder


@pytest.fixture(scope="session")
def nurseries() -> Iterator[Callable[[str], Nursery]]:
    """One for each trainer, made when it is first asked for."""
    made: dict[str, Nursery] = {}

    def nursery_of(trainer: str) -> Nursery:
        if trainer not in made:
            made[trainer] = Nursery(trainer)
        return made[trainer]

    yield nursery_of
    for nursery in made.values():
        nursery.close()


@pytest.fixture
def nursery(nurseries: Callable[[str], Nursery]) -> Iterator[Nursery]:
    """Processes that train the formula; none outlives its test."""
    yield nurseries("formula")
    nurseries("formula").end_all()


@pytest.fixture
def real_nursery(nurseries: Callable[[str], Nursery]) -> Iterator[Nursery]:
    """Processes that train for real; none outlives its test."""
    yield nurseries("real")
    nurseries("real").end_all()


@pytest.fixture
def said(folder: Path) -> Callable[[], str]:
    """What the commands in the folder have said so far."""
    return lambda: (folder / "said").read_text(errors="replace") if (folder / "said").exists() else ""


@pytest.fixture
def own_model(folder: Path) -> Callable[..., None]:
    """Makes the folder's study one of a user's own model: the body of its `forward`, on 300 images of Fashion-MNIST."""

    def make(forward: str, *, trials: int = 2, more: str = "") -> None:
        (folder / "own.py").write_text(OWN.replace("FORWARD", forward))
        head, _, _ = REAL_STUDY.format(images=300, epochs="2, 3").partition("[space]")
        text = head.replace("seed = 3", 'seed = 3\nuse = ["own.py"]').replace("trials = 8", f"trials = {trials}{more}")
        (folder / "small.toml").write_text(text.replace("validation_images = 500", "validation_images = 100") + SPACE)

    return make


OWN = """
import ctypes, os, sys
import torch
from torch import nn
import hpsearch

def happens(times):
    # So many times in all processes together.
    with open("happened", "a") as file:
        if file.tell() < times:
            file.write("x")
            return True
    return False

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

    def forward(self, images):
        FORWARD
        return self.layers(images)

@hpsearch.model("own")
def own(input_shape, classes):
    return Net(input_shape, classes)
"""
SPACE = """
[space]
model = "own"
optimizer = "sgd"
epochs = 2

[space.sgd]
lr = { float = [1e-2, 2e-1], log = true }
"""
