"""A small study for the fake trainer, and the command `hpsearch` with the fake trainer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.forkserver import shared_server

ROOT = Path(__file__).resolve().parents[2]

STUDY = """
name = "small"
seed = 3
use = ["no_images.py"]

[data]
dataset = "no_images"
validation_images = 100

[budget]
trials = 8
balance = "model"

[sampler]
startup_trials = 4

[pruner]
kind = "none"

[space]
model = { choices = ["cnn", "lenet5"] }
optimizer = { choices = ["sgd", "adam"] }
epochs = { int = [2, 4] }

[space.cnn]
filters1 = { int = [8, 64], step = 8 }

[space.sgd]
lr = { float = [1e-3, 1.0], log = true }

[space.adam]
lr = { float = [1e-4, 1e-1], log = true }

[[baseline]]
model = "lenet5"
optimizer = "sgd"
epochs = 3
"""

NO_IMAGES = """
import hpsearch

@hpsearch.dataset("no_images")
def no_images(root, *, train):
    raise AssertionError("the fake trainer needs no images")
"""


def hpsearch(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `hpsearch` with the fake trainer in a folder."""
    return shared_server("fake").run(folder, *arguments, **environment)
