"""A study that trains for real in seconds: stripes under noise, a good baseline, and trials too slow to keep up, which are pruned."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.small_study import ROOT

STRIPES = '''
import torch
import hpsearch

@hpsearch.dataset("stripes")
def stripes(root, *, train):
    """Horizontal and vertical stripes under noise."""
    draws = torch.Generator().manual_seed(1 if train else 2)
    labels = torch.arange(400) % 2
    images = torch.randint(0, 80, (400, 1, 28, 28), generator=draws)
    images[labels == 0, :, ::4, :] += 60
    images[labels == 1, :, :, ::4] += 60
    return images.to(torch.uint8), labels, ("across", "down")
'''

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


def write_study(folder: Path) -> None:
    """The study file and its data set."""
    (folder / "stripes.py").write_text(STRIPES)
    (folder / "stripes.toml").write_text(STUDY)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `hpsearch` in a folder as it is."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "hpsearch", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def change_record(folder: Path, table: str, key: str, change: Callable[[Any], Any], *, trial: int | None = None) -> None:
    """Change an attribute behind Optuna's back, which keeps finished trials as they are."""
    where = "key = ?" if trial is None else f"key = ? AND trial_id = (SELECT trial_id FROM trials WHERE number = {trial})"
    with sqlite3.connect(folder / "runs" / "hpsearch.db") as database:
        ((text,),) = database.execute(f"SELECT value_json FROM {table} WHERE {where}", [key]).fetchall()
        database.execute(f"UPDATE {table} SET value_json = ? WHERE {where}", [json.dumps(change(json.loads(text))), key])
    database.close()


def change_trial(folder: Path, trial: int, key: str, change: Callable[[Any], Any]) -> None:
    """Change what is kept as JSON text of a trial."""
    change_record(folder, "trial_user_attributes", key, lambda text: json.dumps(change(json.loads(text))), trial=trial)
