"""A study in print: its leaderboard, and what it comes down to."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.analysis.leaderboard import Leaderboard, RankedTrial, records
from hpsearch.cli.console import print_blocks, say
from hpsearch.formatting import escape_cell, many, show_duration, times
from hpsearch.report.text import leaderboard_table, trial_counts
from hpsearch.storage.records import TrialRow

LONGEST_TABLE = 20
"""Rows; `--json` and `--csv` have all."""


def print_leaderboard(name: str, board: Leaderboard) -> None:
    """The leaderboard and its reading."""
    if board.best is None:
        say(f"{name}: no trial is complete yet, {trial_counts(board)}.")
        return
    print_blocks(leaderboard_table(name, board, LONGEST_TABLE))
    say()
    for line in reading(board):
        say(line)


def print_readings(readings: Sequence[Mapping[str, Any]]) -> None:
    """How often the test split was read for models of the study, and what each reading said."""
    if not readings:
        return
    say(f"Test split read {times(len(readings))}:")
    for each in readings:
        found = "cut off before its score was known" if each["accuracy"] is None else f"{100 * each['accuracy']:.2f} %"
        say(f"  {each['at']}  {each['folder']}, {many(each['seeds'], 'seed')}: {found}")


def reading(board: Leaderboard) -> list[str]:
    """What a leaderboard comes down to, in sentences."""
    best = board.best
    if best is None:
        return []
    lines = [
        f"Best: trial {best.trial.number}, {best.trial.model}, {100 * best.val_accuracy:.2f} % of {board.validation_images:,} validation images."
    ]
    others = len(board.unresolved) - 1
    if others:
        smallest = board.smallest
        assert smallest is not None, "the best is among the unresolved"
        lines.append(
            f"Unresolved: {others} more {'is' if others == 1 else 'are'} within {100 * board.margin:.2f} points of it, "
            f"which this search cannot tell apart; {_smaller(smallest, best)}."
        )
    if all(standing.trial.end.get("diverged") for standing in board.ranking):
        lines.append("Every complete trial diverged: its loss was no finite number any more. Lower learning rates may help.")
    if board.gain is not None:
        gain, margin = 100 * board.gain.difference, 100 * board.gain.margin
        verdict = "" if board.gain.is_significant else ": no gain shown"
        if board.gain.baseline == best:
            lines.append(f"Gain over the baseline: none, the baseline (trial {best.trial.number}) is the best.")
        else:
            lines.append(
                f"Gain over the baseline (trial {board.gain.baseline.trial.number}): {gain:+.2f} ± {margin:.2f} points{verdict} (± is the chance of the images, not that of the best of many)."
            )
    if board.saved_seconds:
        share = board.saved_seconds / (board.saved_seconds + board.seconds)
        lines.append(
            f"Pruning saved about {show_duration(board.saved_seconds)} of training, {100 * share:.0f} % of what all epochs would have taken."
        )
    return lines


def _smaller(smallest: RankedTrial, best: RankedTrial) -> str:
    if (smallest.trial.n_parameters or 0) >= (best.trial.n_parameters or 0):
        return "none of them is smaller"
    return (
        f"the smallest of them is trial {smallest.trial.number} ({smallest.trial.model}, {smallest.trial.n_parameters or 0:,} parameters)"
    )


def print_csv(trials: Sequence[TrialRow]) -> None:
    """All trials as CSV on stdout, a column for each parameter."""
    found = records(trials)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(found[0]) if found else ["trial"])
    writer.writeheader()
    for row in found:
        writer.writerow({name: escape_cell(value) for name, value in row.items()})
