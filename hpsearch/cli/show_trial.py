"""One trial in print: its curve, its whole config, and why it ended."""

from __future__ import annotations

from typing import Any

from hpsearch.cli.console import print_blocks, print_json, say
from hpsearch.formatting import str_of
from hpsearch.report.text import epochs_table
from hpsearch.storage.records import TrialRow


def print_trial(trial: TrialRow, *, as_json: bool) -> None:
    """Everything on record about a trial, on stdout."""
    if as_json:
        print_json(trial_data(trial))
        return
    value = "" if trial.value is None else f", validation accuracy {trial.value:.4f}"
    origin = f" ({trial.origin})" if trial.origin else ""
    say(f"Trial {trial.number}{origin}: {trial.state}{value}")
    reason = {"trial_time": "its time was spent", "pruner": "pruned by the pruner"}.get(
        trial.end.get("reason", ""), trial.end.get("reason", "")
    )
    if reason:
        say(f"Ended: {reason}")
    if trial.end.get("diverged"):
        say("Its loss was no finite number any more: training ended there.")
    if trial.config is not None:
        say()
        _print_config(trial)
    if trial.epochs:
        say()
        print_blocks(epochs_table(trial))
    if trial.end.get("traceback"):
        say()
        say(trial.end["traceback"].rstrip())


def trial_data(trial: TrialRow) -> dict[str, Any]:
    """A trial as plain data."""
    return {
        "trial": trial.number,
        "state": trial.state,
        "val_accuracy": trial.value,
        "origin": trial.origin,
        "params": dict(trial.params),
        "n_parameters": trial.n_parameters,
        "flops": trial.flops,
        "seconds": trial.seconds,
        "epochs": [epoch.to_dict() for epoch in trial.epochs],
        "run": dict(trial.run),
        "attempts": [dict(attempt) for attempt in trial.attempts],
        "end": dict(trial.end),
    }


def _print_config(trial: TrialRow) -> None:
    config = trial.config
    assert config is not None, "the caller looked"
    for kind in ("model", "optimizer", "schedule"):
        chosen = getattr(config, kind)
        options = "  ".join(f"{name}={str_of(value)}" for name, value in chosen.options.items())
        say(f"{kind:<10} {chosen.name}  {options}".rstrip())
    trainer = {"epochs": config.epochs, "batch_size": config.batch_size, "label_smoothing": config.label_smoothing}
    trainer |= {"flip": config.flip, "shift": config.shift, "seed": config.seed}
    say(f"{'trainer':<10} " + "  ".join(f"{name}={str_of(value)}" for name, value in trainer.items()))
    if trial.n_parameters is not None and trial.flops is not None:
        say(f"{'size':<10} {trial.n_parameters:,} parameters, {trial.flops / 1e6:.2f} MFLOPs an image")
    for file in config.component_files:
        say(f"{'file':<10} {file.path} (SHA-256 {file.sha256[:12]}…)")
    versions = ", ".join(f"{name} {number}" for name, number in trial.run.get("versions", {}).items())
    processor = f" ({trial.run['processor']})" if "processor" in trial.run else ""
    say(f"{'made with':<10} {versions}; device {trial.run.get('device', '')}{processor}; split {str(trial.run.get('split_hash'))[:12]}…")
