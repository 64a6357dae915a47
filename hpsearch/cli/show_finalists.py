"""Finalists and explanations in print."""

from __future__ import annotations

from hpsearch.ablation import Explanation
from hpsearch.cli.console import print_json, print_table, say
from hpsearch.database import Store
from hpsearch.domains import str_of
from hpsearch.finalists import Finalist, Verdict
from hpsearch.linked import read_explanation, read_verdict, stored_file
from hpsearch.paired import Estimate
from hpsearch.paths import FINALISTS


def print_linked(name: str, store: Store, *, as_json: bool) -> None:
    """A linked study: what it says of the study that it belongs to."""
    study = store.load(name)
    base = name.partition(".")[0]
    if name == f"{base}.{FINALISTS}":
        verdict = read_verdict(study)
        if as_json:
            print_json({"study": base, **verdict.to_dict()})
        else:
            print_verdict(base, verdict)
        return
    explanation, trial = read_explanation(study, stored_file(study).space)
    if as_json:
        print_json({"study": base, "trial": trial, **explanation.to_dict()})
    else:
        print_explanation(base, explanation, trial)


def print_verdict(name: str, verdict: Verdict) -> None:
    """The finalists and their reading."""
    if not verdict.finalists:
        say(f"{name}: no finalist has run yet.")
        return
    columns = {
        "finalist": "left",
        "model": "left",
        "accuracy": "right",
        "95 % interval": "left",
        "± seeds": "right",
        "best with": "right",
        "behind the winner": "left",
        "in the search": "right",
        "search − mean": "right",
        "parameters": "right",
        "runs": "right",
        "": "left",
    }
    print_table(columns, [_row(each, verdict) for each in verdict.finalists], title=f"{name}: finalists, up to {verdict.seeds} seeds each")
    say()
    for line in verdict_reading(verdict):
        say(line)


def verdict_reading(verdict: Verdict) -> list[str]:
    """What the finalists come down to, in sentences."""
    winner = verdict.winner
    if winner is None:
        return ["The winner is not chosen yet: the same command continues."]
    low, high = winner.mean.interval
    fresh = [repeat for repeat in winner.scores if repeat > verdict.choosing]
    source = f"{len(fresh)} seeds that did not choose it" if fresh else "the seeds that chose it, so rather too high"
    lines = [
        f"Winner: {winner.candidate.name}, {winner.candidate.model}, {100 * winner.mean.value:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} %, by {source}; "
        f"the best of the finalists with probability {winner.best:.2f}."
    ]
    if winner.candidate.is_baseline:
        lines.append("It is the baseline: the search found nothing better.")
    elif verdict.gain is not None:
        baseline = next(each.candidate.name for each in verdict.finalists if each.candidate.is_baseline)
        shown = "" if verdict.gain.interval[0] > 0 else ": no gain shown"
        lines.append(f"Gain over the baseline ({baseline}): {_points(verdict.gain)}{shown}.")
    if winner.flattery is not None:
        lines.append(
            f"The search's own score of it was {100 * abs(winner.flattery):.2f} points {'higher' if winner.flattery > 0 else 'lower'}."
        )
    if verdict.tied:
        names = ", ".join(each.candidate.name for each in verdict.tied)
        smaller = verdict.smaller
        note_smaller = (
            "none of them is smaller"
            if smaller is None
            else f"{smaller.candidate.name} is the smallest of them, {smaller.candidate.parameters:,} parameters against {winner.candidate.parameters:,}"
        )
        lines.append(f"Tied with it: {names}; {note_smaller}.")
    if verdict.failed:
        lines.append(f"Left out, since they failed again and again: {', '.join(verdict.failed)}.")
    if not verdict.is_over:
        lines.append("Not all runs are done: the same command continues.")
    return lines


def print_explanation(name: str, explanation: Explanation, trial: int) -> None:
    """The way to the winner and its reading."""
    columns = {
        "step": "right",
        "parameter": "left",
        "change": "left",
        "accuracy": "right",
        "gain": "left",
        "": "left",
        "brought along": "left",
    }
    rows = []
    for number, step in enumerate(explanation.steps):
        gain = step.gain
        word = "" if gain is None else "helped" if gain.interval[0] > 0 else "hurt" if gain.interval[1] < 0 else "no difference shown"
        rows.append(
            [
                str(number),
                step.parameter or "the baseline",
                step.change,
                "" if step.mean is None else f"{100 * step.mean.value:.2f}",
                "" if gain is None else _points(gain),
                word,
                ", ".join(f"{key} = {str_of(value)}" for key, value in step.settings.items()),
            ]
        )
    print_table(columns, rows, title=f"{name}: from the baseline to trial {trial}, {explanation.seeds} seeds a step")
    say()
    if explanation.total is not None:
        helped = ", ".join(f"{step.parameter} ({100 * step.gain.value:+.2f})" for step in explanation.helped if step.gain is not None)
        say(
            f"The whole way: {_points(explanation.total)}. What made the difference: {helped or 'no single change that these seeds can show'}."
        )
    if not explanation.is_over:
        say("Not all runs are done: the same command continues.")


def _row(each: Finalist, verdict: Verdict) -> list[str]:
    candidate = each.candidate
    low, high = each.mean.interval
    winner = verdict.winner is not None and candidate.name == verdict.winner.candidate.name
    notes = [
        "winner" if winner else "tied" if each.is_tied else "",
        "baseline" if candidate.is_baseline else "",
        "" if not each.dropped_after else f"clearly behind after {each.dropped_after}",
    ]
    return [
        candidate.name,
        candidate.model,
        f"{100 * each.mean.value:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        "" if each.deviation is None else f"{100 * each.deviation:.2f}",
        f"{each.best:.2f}",
        "" if each.behind is None else _points(each.behind),
        "" if candidate.value is None else f"{100 * candidate.value:.2f}",
        "" if each.flattery is None else f"{100 * each.flattery:+.2f}",
        "" if candidate.parameters is None else f"{candidate.parameters:,}",
        str(len(each.scores)),
        ", ".join(each_note for each_note in notes if each_note),
    ]


def _points(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{100 * estimate.value:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"
