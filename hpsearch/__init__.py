"""hpsearch tunes small image classifiers in PyTorch: search, compare, export and train.

The names below load what they need when they are first used, so that `import hpsearch` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Epoch": "hpsearch.epoch",
    "TrainConfig": "hpsearch.config",
    "configure": "hpsearch.space_table",
    "dataset": "hpsearch.extensions",
    "load_model": "hpsearch.training.saved",
    "load_split": "hpsearch.training.data",
    "model": "hpsearch.extensions",
    "optimizer": "hpsearch.extensions",
    "option": "hpsearch.extensions",
    "run_study": "hpsearch.run",
    "schedule": "hpsearch.extensions",
    "train": "hpsearch.training.trainer",
    "trials": "hpsearch.frames",
}
_ROOMS = ("figures",)
"""Modules that are offered whole."""

__all__ = [
    "Epoch",
    "TrainConfig",
    "__version__",
    "configure",
    "dataset",
    "figures",
    "load_model",
    "load_split",
    "model",
    "optimizer",
    "option",
    "run_study",
    "schedule",
    "train",
    "trials",
]

if TYPE_CHECKING:
    from hpsearch import figures
    from hpsearch.config import TrainConfig
    from hpsearch.epoch import Epoch
    from hpsearch.extensions import dataset, model, optimizer, option, schedule
    from hpsearch.frames import trials
    from hpsearch.run import run_study
    from hpsearch.space_table import configure
    from hpsearch.training.data import load_split
    from hpsearch.training.saved import load_model
    from hpsearch.training.trainer import train


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"hpsearch.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hpsearch' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
