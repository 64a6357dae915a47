"""Finalists and explanations in print."""

from __future__ import annotations

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import FinalistsResult
from hpsearch.cli.console import print_blocks, print_json
from hpsearch.config.paths import FINALISTS
from hpsearch.report.blocks import paragraphs
from hpsearch.report.text import explanation_reading, steps_table, verdict_blocks
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
        print_explanation(explanation, trial)


def print_verdict(name: str, verdict: FinalistsResult) -> None:
    """The finalists and their reading."""
    print_blocks(*verdict_blocks(name, verdict))


def print_explanation(explanation: Explanation, trial: int) -> None:
    """The way to the winner and its reading."""
    print_blocks(steps_table(explanation, trial), *paragraphs(explanation_reading(explanation)))
