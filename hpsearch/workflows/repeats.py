"""Run some configurations of a study again, as a linked study: its finalists, or the way to its winner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import optuna

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import Candidate, FinalistsResult
from hpsearch.analysis.leaderboard import rank
from hpsearch.config.paths import EXPLAIN, FINALISTS
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import UsageError
from hpsearch.search.claim import requeue_interrupted
from hpsearch.search.ray_pool import RayEngine
from hpsearch.storage.database import Store
from hpsearch.storage.locks import claim_lock
from hpsearch.storage.records import BASELINE, TrialRow, read_trial, read_trials, write_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.export import why_unusable
from hpsearch.workflows.repeat_study import ExplainPlan, FinalistsPlan, Plan, follow_up_file, read_explanation, read_verdict, write_plan
from hpsearch.workflows.resume import require_comparable
from hpsearch.workflows.run import check_workspace, count_workers
from hpsearch.workflows.supervisor import Search

FEWEST_SEEDS = 2
"""One to choose the winner, one to measure it."""


def prepare_finalists(
    file: StudyFile,
    workspace: Workspace,
    *,
    top: int,
    seeds: int,
    per_model: bool = False,
    workers: int | None = None,
    engine: RayEngine | None = None,
) -> Search:
    """Choose the finalists of a study and make their linked study ready, or continue it.

    Args:
        top: so many of the best configurations, and the baseline besides.
        seeds: runs of each, at most.
        per_model: so many of each model.
        workers: processes; by default as many as make sense.
        engine: the cluster that they run on; this machine by default.

    Raises:
        UsageError: no trial is complete, or fewer than two seeds.
        NotComparableError: the study file would train something else than the study's trials.
    """
    if seeds < FEWEST_SEEDS:
        raise UsageError(
            f"finalists need at least {FEWEST_SEEDS} seeds, but got {seeds}", hint="Half of them choose the winner, half measure it."
        )
    study = _searched(file, workspace)
    trials = read_trials(study)
    chosen = _best(trials, top=top, per_model=per_model)
    if not chosen:
        raise UsageError(f"no trial of '{file.name}' is complete yet", hint="`hpsearch run` trains some.")
    baseline = _baseline(trials)
    if baseline is not None and all(baseline.number != trial.number for trial in chosen):
        chosen = [*chosen, baseline]
    candidates = [
        Candidate(
            name=f"trial {trial.number}",
            trial=trial.number,
            value=trial.value if trial.state == "complete" else None,
            model=trial.model,
            n_parameters=trial.n_parameters,
            is_baseline=baseline is not None and trial.number == baseline.number,
        )
        for trial in chosen
    ]
    configs = {f"trial {trial.number}": replace(trial.config, seed=0) for trial in chosen if trial.config is not None}
    return _prepare(file, workspace, FinalistsPlan(seeds=seeds, candidates=tuple(candidates), configs=configs), workers, engine)


def prepare_explanation(
    file: StudyFile,
    workspace: Workspace,
    *,
    seeds: int,
    trial: int | None = None,
    workers: int | None = None,
    engine: RayEngine | None = None,
) -> Search:
    """Make the linked study ready that walks from the baseline to the winner, or continue it.

    Args:
        seeds: runs of each point on the way, besides the one that finds the way.
        trial: where the way leads; by default the finalists' winner, or the best of the search.

    Raises:
        UsageError: no trial is complete, or the winner is the baseline.
        NotComparableError: as for `prepare_finalists`.
    """
    study = _searched(file, workspace)
    trials = read_trials(study)
    number = find_winner(file.name, workspace) if trial is None else trial
    if number is None:
        raise UsageError(f"no trial of '{file.name}' is complete yet", hint="`hpsearch run` trains some.")
    goal = read_trial(study, number)
    if goal.config is None or goal.state == "fail":
        raise UsageError(f"trial {number} of '{file.name}' {why_unusable(goal)}")
    baseline = _baseline(trials)
    start = file.space.complete({}, start={} if baseline is None else baseline.params)
    plan = ExplainPlan(seeds=seeds, start=start, goal=file.space.complete({}, start=goal.params), goal_trial=number, space=file.space)
    if not plan.ablation_path.neighbours(plan.ablation_path.start):
        raise UsageError(
            f"trial {number} of '{file.name}' is the baseline", hint="There is nothing to explain; choose another with --trial."
        )
    return _prepare(file, workspace, plan, workers, engine)


def mean_seconds(study: str, store: Store) -> float:
    """How long a complete trial of a study took, on average; 0 if none is complete."""
    seconds = [trial.seconds for trial in read_trials(store.load(study)) if trial.state == "complete"]
    return sum(seconds) / len(seconds) if seconds else 0.0


def find_winner(name: str, workspace: Workspace) -> int | None:
    """The winner of a study: of its finalists where they are through, else the best of the search; None without a complete trial."""
    store = workspace.open()
    verdict = finished_verdict(name, store)
    if verdict is not None and verdict.winner is not None:
        return verdict.winner.candidate.trial
    best = _best(read_trials(store.load(name)), top=1, per_model=False)
    return best[0].number if best else None


def find_verdict(name: str, store: Store) -> FinalistsResult | None:
    """What the finalists of a study say so far; None where there are none."""
    follow_up = f"{name}.{FINALISTS}"
    return read_verdict(store.load(follow_up)) if follow_up in store.study_names() else None


def finished_verdict(name: str, store: Store) -> FinalistsResult | None:
    """What the finalists of a study say once all of them have run."""
    verdict = find_verdict(name, store)
    return verdict if verdict is not None and verdict.is_over else None


def find_explanation(file: StudyFile, store: Store) -> tuple[Explanation, int] | None:
    """What is known of the way to the winner, and which trial that is; None where nobody looked for it."""
    follow_up = f"{file.name}.{EXPLAIN}"
    return read_explanation(store.load(follow_up), file.space) if follow_up in store.study_names() else None


def _searched(file: StudyFile, workspace: Workspace) -> optuna.Study:
    """The stored study, if the study file still says what its trials were made with."""
    study = workspace.open().load(file.name)
    require_comparable(study, file)
    return study


def _best(trials: Sequence[TrialRow], *, top: int, per_model: bool) -> list[TrialRow]:
    """The best complete trials, each configuration once."""
    chosen: list[TrialRow] = []
    known = set()
    for trial in rank(trials):
        rivals = [each for each in chosen if not per_model or each.model == trial.model]
        digest = replace(trial.config, seed=0).digest if trial.config is not None else None
        if len(rivals) < top and digest is not None and digest not in known:
            chosen.append(trial)
            known.add(digest)
    return chosen


def _baseline(trials: Sequence[TrialRow]) -> TrialRow | None:
    """The best of the baselines; the first where none is complete."""
    baselines = [trial for trial in trials if trial.origin == BASELINE and trial.config is not None]
    return next(iter(rank(baselines) or baselines), None)


def _prepare(search: StudyFile, workspace: Workspace, plan: Plan, workers: int | None, engine: RayEngine | None) -> Search:
    check_workspace(search, workspace)
    count = count_workers(workspace, engine, workers, plan.most_runs)
    file = follow_up_file(search, plan)
    locks = workspace.locks
    with workspace.creation_lock():
        store = workspace.open()
        study = store.load(file.name) if file.name in store.study_names() else store.create(file.name)
        write_study(study, text=search.text, path=search.path, comparable=json.loads(json.dumps(search.comparable)))
        write_plan(study, plan)
    with locks.hold(claim_lock(store.storage.get_study_id_from_name(file.name))):
        requeued = requeue_interrupted(store, study, locks)
    return Search(
        file=file,
        workspace=workspace,
        store=store,
        study=study,
        budget=file.budget,
        workers=count,
        earlier=sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)),
        changed=(),
        requeued=tuple(requeued),
        retried=(),
        engine=engine,
    )
