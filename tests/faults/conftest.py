"""Fixtures: fork servers, a folder with a study, and what its commands printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fault_experiments import REAL_STUDY
from tests.support.forkserver import ForkServer, shared_server


@pytest.fixture
def folder(folder: Path, any_storage: str) -> Path:
    """A folder with the study file, once for each kind of database."""
    if not any_storage.startswith("sqlite"):
        (folder / "storage").write_text(any_storage)
    return folder


@pytest.fixture
def forkserver() -> Iterator[ForkServer]:
    """Processes with the fake trainer; none outlives its test."""
    yield shared_server("fake")
    shared_server("fake").end_all()


@pytest.fixture
def real_forkserver() -> Iterator[ForkServer]:
    """Processes with the real trainer; none outlives its test."""
    yield shared_server("real")
    shared_server("real").end_all()


@pytest.fixture
def output(folder: Path) -> Callable[[], str]:
    """Return a function that reads the output of all commands in the folder so far."""
    return lambda: (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""


@pytest.fixture
def own_model(folder: Path) -> Callable[..., None]:
    """Return a function that gives the folder's study a custom model with the given `forward`, on 300 images."""

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
    # Return True for the first `times` calls of all processes together.
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
