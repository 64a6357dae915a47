"""Trials as flat records: a row a trial, a column a fact or a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpsearch.analysis.leaderboard import last_train_accuracy
from hpsearch.storage.records import TrialRow


def records(trials: Sequence[TrialRow]) -> list[dict[str, Any]]:
    """One record a trial, all with the same keys; None where a trial has no such value."""
    names = sorted({name for trial in trials for name in trial.params})
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "val_accuracy": trial.value,
            "train_accuracy": last_train_accuracy(trial),
            "model": trial.model,
            "n_parameters": trial.n_parameters,
            "flops": trial.flops,
            "epochs_done": len(trial.epochs),
            "seconds": round(trial.seconds, 2),
            "origin": trial.origin,
            "reason": trial.end.get("reason", ""),
            **{f"params.{name}": trial.params.get(name) for name in names},
        }
        for trial in trials
    ]
