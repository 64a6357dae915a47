"""hpsearch tunes small image classifiers in PyTorch: search, compare, export and train.

`import hpsearch` is fast, because the module of a name is loaded when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "Epoch": "hpsearch.config.epoch",
    "TrainConfig": "hpsearch.config.train_config",
    "configure": "hpsearch.config.space_parser",
    "dataset": "hpsearch.config.registration",
    "load_model": "hpsearch.training.saved_model",
    "load_split": "hpsearch.training.data.split",
    "model": "hpsearch.config.registration",
    "optimizer": "hpsearch.config.registration",
    "option": "hpsearch.config.registration",
    "run_study": "hpsearch.workflows.run",
    "schedule": "hpsearch.config.registration",
    "train": "hpsearch.training.trainer",
    "trials": "hpsearch.workflows.notebook",
}
_MODULES = {"figures": "hpsearch.workflows.notebook"}
"""Modules that users import as a whole. The key is the name that users write, and the value is the module's own name."""

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
    from hpsearch.config.epoch import Epoch
    from hpsearch.config.registration import dataset, model, optimizer, option, schedule
    from hpsearch.config.space_parser import configure
    from hpsearch.config.train_config import TrainConfig
    from hpsearch.training.data.split import load_split
    from hpsearch.training.saved_model import load_model
    from hpsearch.training.trainer import train
    from hpsearch.workflows import notebook as figures
    from hpsearch.workflows.notebook import trials
    from hpsearch.workflows.run import run_study


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'hpsearch' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
