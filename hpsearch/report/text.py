"""What the finalists and the way to the winner come down to, in sentences."""

from __future__ import annotations

from hpsearch.analysis.ablation import AblationStep, Explanation
from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.analysis.paired import Estimate


def verdict_reading(verdict: FinalistsResult) -> list[str]:
    """What the finalists come down to, in sentences."""
    winner = verdict.winner
    if winner is None:
        return ["The winner is not chosen yet: the same command continues."]
    low, high = winner.mean.interval
    fresh = [repeat for repeat in winner.scores if repeat > verdict.selection_repeats]
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
        lines.append(f"Gain over the baseline ({baseline}): {points(verdict.gain)}{shown}.")
    if winner.optimism is not None:
        lines.append(
            f"The search's own score of it was {100 * abs(winner.optimism):.2f} points {'higher' if winner.optimism > 0 else 'lower'}."
        )
    if verdict.tied:
        names = ", ".join(each.candidate.name for each in verdict.tied)
        smaller = verdict.smaller
        note_smaller = (
            "none of them is smaller"
            if smaller is None
            else f"{smaller.candidate.name} is the smallest of them, {smaller.candidate.n_parameters:,} parameters against {winner.candidate.n_parameters:,}"
        )
        lines.append(f"Tied with it: {names}; {note_smaller}.")
    if verdict.failed:
        lines.append(f"Left out, since they failed again and again: {', '.join(verdict.failed)}.")
    if not verdict.is_over:
        lines.append("Not all runs are done: the same command continues.")
    return lines


def explanation_reading(explanation: Explanation) -> list[str]:
    """What the way to the winner comes down to, in sentences."""
    lines = []
    if explanation.total is not None:
        helped = ", ".join(f"{step.parameter} ({100 * step.gain.value:+.2f})" for step in explanation.helped if step.gain is not None)
        lines.append(
            f"The whole way: {points(explanation.total)}. What made the difference: {helped or 'no single change that these seeds can show'}."
        )
    if not explanation.is_over:
        lines.append("Not all runs are done: the same command continues.")
    return lines


def step_verdict(step: AblationStep) -> str:
    """Whether a change helped, in a word or three."""
    if step.gain is None:
        return ""
    return "helped" if step.gain.interval[0] > 0 else "hurt" if step.gain.interval[1] < 0 else "no difference shown"


def points(estimate: Estimate) -> str:
    """A difference of accuracies and its interval, in points."""
    low, high = estimate.interval
    return f"{100 * estimate.value:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"
