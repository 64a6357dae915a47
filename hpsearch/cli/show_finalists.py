"""Finalists and explanations in print."""

from __future__ import annotations

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import Finalist, FinalistsResult
from hpsearch.cli.console import print_json, print_table, say
from hpsearch.config.paths import FINALISTS
from hpsearch.formatting import str_of
from hpsearch.report.text import explanation_reading, points, step_verdict, verdict_reading
from hpsearch.storage.database import Store
from hpsearch.workflows.repeat_study import read_explanation, read_verdict, stored_file


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


def print_verdict(name: str, verdict: FinalistsResult) -> None:
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
        rows.append(
            [
                str(number),
                step.parameter or "the baseline",
                step.change,
                "" if step.mean is None else f"{100 * step.mean.value:.2f}",
                "" if gain is None else points(gain),
                step_verdict(step),
                ", ".join(f"{key} = {str_of(value)}" for key, value in step.settings.items()),
            ]
        )
    print_table(columns, rows, title=f"{name}: from the baseline to trial {trial}, {explanation.seeds} seeds a step")
    say()
    for line in explanation_reading(explanation):
        say(line)


def _row(each: Finalist, verdict: FinalistsResult) -> list[str]:
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
        "" if each.behind is None else points(each.behind),
        "" if candidate.value is None else f"{100 * candidate.value:.2f}",
        "" if each.optimism is None else f"{100 * each.optimism:+.2f}",
        "" if candidate.n_parameters is None else f"{candidate.n_parameters:,}",
        str(len(each.scores)),
        ", ".join(each_note for each_note in notes if each_note),
    ]
