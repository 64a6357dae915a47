"""A data set of stripes under noise, with a best config and a study that use it: both train for real within seconds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpsearch.config.trusted_files import remember
from tests.support.forkserver import shared_server

_COMPONENT = '''
import torch
import hpsearch

@hpsearch.dataset("stripes")
def stripes(root, *, train):
    """Horizontal and vertical stripes under noise."""
    draws = torch.Generator().manual_seed(1 if train else 2)
    labels = torch.arange({n_images}) % 2
    images = torch.randint(0, 80, ({n_images}, 1, 28, 28), generator=draws)
    images[labels == 0, :, ::4, :] += {contrast}
    images[labels == 1, :, :, ::4] += {contrast}
    return images.to(torch.uint8), labels, ("across", "down")
'''

STRIPES = _COMPONENT.format(n_images=200, contrast=120)
"""A component file with a data set that a model learns in a second."""

FAINT_STRIPES = _COMPONENT.format(n_images=400, contrast=60)
"""The same with more images and fainter stripes: a model with a bad learning rate falls behind and is pruned."""

CONFIG = """
format = 1

[model]
name = "lenet5"

[optimizer]
name = "adam"
lr = 0.003

[schedule]
name = "constant"

[trainer]
epochs = 2
batch_size = 32
seed = 3

[data]
dataset = "stripes"
validation_images = 50
split_seed = 1

[provenance]

[[component_files]]
path = "stripes.py"
sha256 = "{sha256}"
"""


STUDY = """
name = "stripes"
seed = 3
use = ["stripes.py"]

[data]
dataset = "stripes"
validation_images = 100

[budget]
trials = 8

[sampler]
kind = "random"

[pruner]
kind = "median"
startup_trials = 1
warmup_epochs = 1
min_trials = 1

[space]
model = "lenet5"
optimizer = { choices = ["sgd", "adam"] }
batch_size = 32
epochs = { int = [3, 4] }

[space.sgd]
lr = { float = [1e-6, 0.1], log = true }

[space.adam]
lr = { float = [1e-6, 0.01], log = true }

[[baseline]]
model = "lenet5"
optimizer = "adam"
epochs = 3
adam.lr = 0.003
"""


TINY_STUDY = """
name = "stripes"
seed = 3
use = ["stripes.py"]

[data]
dataset = "stripes"
validation_images = 50

[budget]
trials = 3

[sampler]
kind = "random"

[pruner]
kind = "none"

[space]
model = "lenet5"
optimizer = { choices = ["sgd", "adam"] }
epochs = { int = [1, 2] }

[space.sgd]
lr = { float = [1e-3, 0.1], log = true }

[space.adam]
lr = { float = [1e-4, 0.01], log = true }

[[baseline]]
model = "lenet5"
optimizer = "sgd"
epochs = 1
"""


def write_best_config(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write `best.toml` and its component file, as if this user had run it, and return the path of `best.toml`.

    Args:
        folder: where to write both files.
        changes: pairs of a text in the config and its replacement.
    """
    (folder / "stripes.py").write_text(STRIPES)
    text = CONFIG.replace("{sha256}", hashlib.sha256(STRIPES.encode()).hexdigest())
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "best.toml").write_text(text)
    remember(hashlib.sha256(STRIPES.encode()).hexdigest(), folder / "stripes.py")
    return folder / "best.toml"


def write_study(folder: Path) -> None:
    """Write the study file, whose slow trials are pruned, and its component file."""
    (folder / "stripes.py").write_text(FAINT_STRIPES)
    (folder / "stripes.toml").write_text(STUDY)


def write_tiny_study(folder: Path) -> None:
    """Write a study file of three trials that take seconds, with its component file."""
    (folder / "stripes.py").write_text(STRIPES)
    (folder / "stripes.toml").write_text(TINY_STUDY)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `hpsearch` in a folder with its real trainer."""
    return shared_server("real").run(folder, *arguments)


def change_record(folder: Path, table: str, key: str, change: Callable[[Any], Any], *, trial: int | None = None) -> None:
    """Change a stored attribute in the database itself: Optuna does not change finished trials."""
    where = "key = ?" if trial is None else f"key = ? AND trial_id = (SELECT trial_id FROM trials WHERE number = {trial})"
    with sqlite3.connect(folder / "runs" / "hpsearch.db") as database:
        ((text,),) = database.execute(f"SELECT value_json FROM {table} WHERE {where}", [key]).fetchall()
        database.execute(f"UPDATE {table} SET value_json = ? WHERE {where}", [json.dumps(change(json.loads(text))), key])
    database.close()


def change_trial(folder: Path, trial: int, key: str, change: Callable[[Any], Any]) -> None:
    """Change an attribute of a trial that is stored as JSON text."""
    change_record(folder, "trial_user_attributes", key, lambda text: json.dumps(change(json.loads(text))), trial=trial)
