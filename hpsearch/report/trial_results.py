"""The output about one trial. It has the result, the config, the learning curve and the error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpsearch.analysis.leaderboard import describe_progress
from hpsearch.formatting import many, str_of
from hpsearch.report.blocks import Block, Code, Paragraph, Table, paragraphs, prose_column, text_column
from hpsearch.report.text import epochs_table
from hpsearch.storage.records import TrialRow

TRAINER_SETTINGS = ("epochs", "batch_size", "label_smoothing", "flip", "shift", "precision", "seed")
"""The attributes of a config that belong to no component."""
REASONS = {"trial_time": "its time limit was reached", "pruner": "the pruner stopped it", "asha": "it was paused, and others were better"}
"""The text for each reason why a trial ended."""


def trial_blocks(trial: TrialRow) -> Iterator[Block]:
    """Yield everything that is stored about a trial.

    Args:
        trial: a trial in any state.

    Yields:
        Sentences, the config, the epochs and the traceback.
    """
    value = "" if trial.value is None else f", validation accuracy {100 * trial.value:.2f} %"
    origin = f" ({trial.origin})" if trial.origin else ""
    yield Paragraph(text=f"Trial {trial.number}{origin}: {trial.state}{value}", kind="lead")
    if trial.rungs and not trial.epochs:
        rung = trial.rungs[-1]
        yield Paragraph(
            text=f"Trained for {describe_progress(trial)}; it then classified {100 * rung.val_accuracy:.1f} % of "
            f"{many(rung.n_validated, 'validation image')} correctly."
        )
    if trial.state == "paused":
        yield Paragraph(
            text=f"Paused after {describe_progress(trial)}. It goes on if it turns out to be among the best of the trials that came as far."
        )
    if reason := trial.end.get("reason", ""):
        yield Paragraph(text=f"Ended: {REASONS.get(reason, reason)}")
    if trial.end.get("diverged"):
        yield from paragraphs(["Its loss was not finite: training ended there."])
    if trial.config is not None:
        yield _config_table(trial)
    if trial.epochs:
        yield epochs_table(trial)
    if trial.end.get("traceback"):
        yield Code(text=trial.end["traceback"].rstrip(), label="The traceback")


def trial_data(trial: TrialRow) -> dict[str, Any]:
    """Return a trial as plain data.

    Args:
        trial: a trial in any state.

    Returns:
        A dictionary of values that JSON can store.
    """
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


def _config_table(trial: TrialRow) -> Table:
    config = trial.config
    assert config is not None, "the caller looked"
    rows = []
    for kind in ("model", "optimizer", "schedule"):
        chosen = getattr(config, kind)
        rows.append((kind, " ".join([chosen.name, *(f"{name}={str_of(value)}" for name, value in chosen.options.items())])))
    rows.append(("trainer", " ".join(f"{name}={str_of(getattr(config, name))}" for name in TRAINER_SETTINGS)))
    if trial.n_parameters is not None and trial.flops is not None:
        rows.append(("size", f"{trial.n_parameters:,} parameters, {trial.flops / 1e6:.2f} MFLOPs an image"))
    rows += [("file", f"{file.path} (SHA-256 {file.sha256[:12]}…)") for file in config.component_files]
    versions = ", ".join(f"{name} {number}" for name, number in trial.run.get("versions", {}).items())
    processor = f" ({trial.run['processor']})" if "processor" in trial.run else ""
    device = f"device {trial.run.get('device', '')}{processor}"
    rows.append(("made with", f"{versions}; {device}; split {str(trial.run.get('split_hash'))[:12]}…"))
    return Table(columns=(text_column(""), prose_column("")), rows=tuple(rows))
