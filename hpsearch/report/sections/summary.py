"""The head of a report: the answer in a few sentences, and whether several studies may be compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpsearch.analysis.leaderboard import RankedTrial, describe_settings, rank
from hpsearch.analysis.metrics import compare
from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Block, Bullets, Paragraph, Table, number_column, text_column
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import leaderboard_table, verdict_reading

LEADERS = 10
"""Rows of the leaderboard on the first screen."""


def answer(study: StudyResults) -> Iterator[Block]:
    """Who won, by how much, how sure; what is as good and cheaper; what the search cost."""
    board = study.board
    if board.best is None:
        yield Paragraph(text=no_answer(study), kind="warning")
        yield Paragraph(text=_cost(study))
        return
    verdict = study.verdict if study.verdict is not None and study.verdict.is_over and study.verdict.winner is not None else None
    if verdict is not None:
        lead, *evidence = verdict_reading(verdict)
        yield Paragraph(text=lead, kind="lead")
        chosen = next(
            (trial for trial in study.trials if verdict.winner and trial.number == verdict.winner.candidate.trial), board.best.trial
        )
        yield Paragraph(text=f"Its settings: {describe_settings(chosen)}.")
        yield from (Paragraph(text=line) for line in evidence)
        yield Paragraph(text=f"In the search alone: {winner(study, board.best)}", kind="aside")
        yield Paragraph(text=_cost(study))
    else:
        yield Paragraph(text=winner(study, board.best), kind="lead")
        yield Paragraph(text=f"Its settings: {describe_settings(board.best.trial)}.")
        yield Paragraph(text=rivals(study, board.best))
        yield Paragraph(text=_cost(study))
        yield Paragraph(text=_gain(study))
    if all(standing.trial.end.get("diverged") for standing in board.ranking):
        yield Paragraph(
            text="Every complete trial diverged: its loss was no finite number any more. Lower learning rates may help.", kind="warning"
        )
    if verdict is None and len(board.ranking) > 1:
        yield Paragraph(
            text=f"The best of {len(board.ranking)} single runs is partly luck: trained again, it will most likely score a little lower. "
            f"`hpsearch finalists {study.name}` measures how much.",
            kind="aside",
        )
    yield leaderboard_table(study.name, board, LEADERS)


def no_answer(study: StudyResults) -> str:
    """Why there is no winner."""
    counts, total = study.board.counts, study.board.total
    if total == 0:
        return f"{study.name} has no trials yet: `hpsearch run` trains some."
    if counts["fail"] == total:
        return f"All {total} trials of {study.name} failed: there is no answer. Their reasons stand below."
    if counts["pruned"] == total:
        return f"All {total} trials of {study.name} were pruned: none was trained to its end, so there is no answer. A milder pruner lets some through."
    unfinished = counts["running"] + counts["waiting"]
    return f"No trial of {study.name} is complete yet: {counts['pruned']} pruned, {counts['fail']} failed, {unfinished} not finished."


def winner(study: StudyResults, best: RankedTrial) -> str:
    """Who won, by how much, how sure."""
    low, high = best.interval
    head = (
        f"{best.trial.model} is the best: trial {best.trial.number} recognises {100 * best.val_accuracy:.2f} % of "
        f"{study.board.validation_images:,} validation images (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
    )
    others = [rank(study.trials, model)[0] for model in study.models if model != best.trial.model and rank(study.trials, model)]
    if others:
        rival = rank(others)[0]
        ahead = best.val_accuracy - (rival.value or 0.0)
        sure = "more than chance" if ahead > study.board.margin else "which may be chance"
        return f"{head}, {100 * ahead:.2f} points ahead of the best {rival.model}: {sure}."
    if len(study.board.ranking) > 1:
        second = study.board.ranking[1]
        return f"{head}, {100 * (best.val_accuracy - second.val_accuracy):.2f} points ahead of the next, trial {second.trial.number}."
    return f"{head}. It is the only trial that was trained to its end."


def rivals(study: StudyResults, best: RankedTrial) -> str:
    """What cannot be told from the winner, and what of it is cheaper."""
    board = study.board
    count = len(board.unresolved) - 1
    if not count:
        return (
            "No other trial comes near enough to be confused with it." if len(board.ranking) > 1 else "There is nothing to compare it with."
        )
    said = f"{many(count, 'other trial')} within {100 * board.margin:.2f} points cannot be told from it by this search"
    smallest = board.smallest
    if smallest is None or (smallest.trial.n_parameters or 0) >= (best.trial.n_parameters or 0):
        return f"{said}; none of them is smaller."
    fewer = (best.trial.n_parameters or 0) - (smallest.trial.n_parameters or 0)
    share = f"{100 * fewer / (best.trial.n_parameters or 1):.0f}"
    return (
        f"{said}; the smallest of them is trial {smallest.trial.number} ({smallest.trial.model}, {100 * smallest.val_accuracy:.2f} %) "
        f"with {smallest.trial.n_parameters or 0:,} parameters, {f'{fewer:,}' if share == '0' else f'{share} %'} fewer."
    )


def _cost(study: StudyResults) -> str:
    board = study.board
    said = f"The search took {many(board.total, 'trial')} and {show_duration(board.seconds)} of training"
    if study.row.seconds_spent:
        said += f", {show_duration(study.row.seconds_spent)} by the clock"
    if board.saved_seconds:
        share = board.saved_seconds / (board.saved_seconds + board.seconds)
        said += f"; pruning saved about {show_duration(board.saved_seconds)}, {100 * share:.0f} % of what all epochs would have taken"
    return f"{said}."


def _gain(study: StudyResults) -> str:
    gain = study.board.gain
    if gain is None:
        return "There is no complete baseline: what the search gained is not known."
    number = gain.baseline.trial.number
    if gain.baseline == study.board.best:
        return f"No gain over the baseline: the baseline, trial {number}, is the best itself."
    verdict = "" if gain.is_significant else ": no gain shown"
    return (
        f"Gain over the baseline, trial {number} ({gain.baseline.trial.model}, {100 * gain.baseline.val_accuracy:.2f} %): "
        f"{100 * gain.difference:+.2f} ± {100 * gain.margin:.2f} points{verdict}."
    )


def comparability(studies: Sequence[StudyResults]) -> Iterator[Block]:
    """The studies in a table, and why they may not be compared."""
    rows = []
    for study in studies:
        best = study.board.best
        gain = study.board.gain
        rows.append(
            (
                study.name,
                f"trial {best.trial.number}, {best.trial.model}" if best else "none",
                f"{100 * best.val_accuracy:.2f} %" if best else "",
                f"{100 * best.interval[0]:.2f} to {100 * best.interval[1]:.2f}" if best else "",
                f"{best.trial.n_parameters:,}" if best and best.trial.n_parameters is not None else "",
                f"{100 * gain.difference:+.2f} points" if gain else "",
                f"{study.board.total:,}",
                show_duration(study.board.seconds),
            )
        )
    columns = (
        text_column("study"),
        text_column("winner"),
        number_column("accuracy"),
        text_column("95 % interval"),
        *map(number_column, ("parameters", "gain over its baseline", "trials", "training")),
    )
    yield Table(caption="The winner of each study", columns=columns, rows=tuple(rows))
    notes = differences(studies)
    if notes:
        yield Paragraph(text="These studies differ in more than their question, so read their differences with care:", kind="warning")
        yield Bullets(items=tuple(notes))
    else:
        yield Paragraph(text="Same images, same split, same seed, same budget: these studies may be compared.")
    yield from _paired(studies)


def differences(studies: Sequence[StudyResults]) -> list[str]:
    """Sentences on all that makes studies incomparable."""
    facts: dict[str, Callable[[StudyResults], Any]] = {
        "data set": lambda study: study.data["dataset"],
        "number of validation images": lambda study: f"{study.data['validation_images']:,}",
        "number of training images": lambda study: f"{study.data['train_images']:,}" if study.data.get("train_images") else "all the rest",
        "split": lambda study: (study.row.split_hash or "none yet")[:12],
        "seed": lambda study: study.row.comparable["seed"],
        "number of trials": lambda study: study.board.total,
        "longest training": lambda study: f"{max((trial.config.epochs for trial in study.trials if trial.config), default=0)} epochs",
        "device": lambda study: ", ".join(sorted({str(trial.run["device"]) for trial in study.trials if "device" in trial.run})) or "none",
        "component files": lambda study: ", ".join(sorted(study.row.comparable["component files"])) or "none",
    }
    found = []
    for what, read in facts.items():
        values = [str(read(study)) for study in studies]
        if len(set(values)) > 1:
            found.append(f"Other {what}: {'; '.join(f'{study.name} has {value}' for study, value in zip(studies, values, strict=True))}.")
    return found


def _paired(studies: Sequence[StudyResults]) -> Iterator[Block]:
    """The winners of two studies on the same images."""
    if len({study.row.split_hash for study in studies}) != 1:
        return
    evaluated = [
        (study, study.evaluated[study.best.model]) for study in studies if study.best is not None and study.best.model in study.evaluated
    ]
    for (one, mine), (two, theirs) in itertools.pairwise(evaluated):
        found = compare(mine.predictions, theirs.predictions)
        low, high = found.interval
        yield Paragraph(
            text=f"On the same images the winner of {one.name} is {100 * found.difference:+.2f} points from that of {two.name}, 95 % interval "
            f"{100 * low:+.2f} to {100 * high:+.2f} (McNemar's exact test: p = {found.p_value:.2g})."
        )
