"""Prepare the follow-up studies of a search, and read their results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import optuna

from hpsearch.analysis.ablation import Explanation
from hpsearch.analysis.finalists import Candidate, FinalistsResult
from hpsearch.analysis.leaderboard import rank
from hpsearch.config.paths import EXPLAIN, FINALISTS
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import StorageError, UsageError
from hpsearch.search.claim import requeue_interrupted
from hpsearch.search.ray_pool import RayEngine
from hpsearch.storage.database import Store
from hpsearch.storage.locks import claim_lock
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.records import (
    BASELINE,
    TrialRow,
    ensure_identity,
    read_identity,
    read_study,
    read_trial,
    read_trials,
    write_study,
)
from hpsearch.storage.study_folder import claim_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.export import why_unusable
from hpsearch.workflows.repeat_study import (
    ExplainPlan,
    FinalistsPlan,
    Plan,
    follow_up_file,
    is_follow_up,
    read_explanation,
    read_verdict,
    write_plan,
)
from hpsearch.workflows.resume import comparable, create_or_load, require_comparable
from hpsearch.workflows.run import check_workspace, count_workers
from hpsearch.workflows.supervisor import Search

log = logging.getLogger("hpsearch")

MIN_SEEDS = 2
"""Minimum number of seeds. One seed selects the winner, the other seed measures the winner."""


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
    """Choose the finalists of a study, and create or continue its finalists study.

    Args:
        file: the study file of the search.
        workspace: the database and the folders of the study.
        top: number of best configurations. The baseline is added to these configurations.
        seeds: maximum number of runs of each configuration.
        per_model: whether `top` counts for each model.
        workers: number of workers; None for the default.
        engine: the cluster of the workers; None for this machine.

    Returns:
        The search, ready to run.

    Raises:
        UsageError: no trial is complete, or there are fewer than MIN_SEEDS seeds.
        NotComparableError: runs of the study file could not be compared with the trials of the study.
    """
    if seeds < MIN_SEEDS:
        raise UsageError(
            f"finalists need at least {MIN_SEEDS} seeds, but got {seeds}", hint="Half of them choose the winner, half measure it."
        )
    study, file = _comparable_study(file, workspace)
    trials = read_trials(study)
    chosen = _best_trials(trials, top=top, per_model=per_model)
    if not chosen:
        raise _nothing_complete(file)
    baseline = _best_baseline(trials)
    if baseline is not None and baseline not in chosen:
        chosen.append(baseline)
    candidates = [
        Candidate(
            name=f"trial {trial.number}",
            trial=trial.number,
            value=trial.value if trial.state == "complete" else None,
            model=trial.model,
            n_parameters=trial.n_parameters,
            is_baseline=trial is baseline,
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
    """Create or continue the explain study, whose path leads from the baseline to the winner.

    Args:
        file: the study file of the search.
        workspace: the database and the folders of the study.
        seeds: number of runs that measure each point of the path. One more run of each possible change finds the path.
        trial: number of the trial where the path ends; None for the winner.
        workers: number of workers; None for the default.
        engine: the cluster of the workers; None for this machine.

    Returns:
        The search, ready to run.

    Raises:
        UsageError: no trial is complete, or the path would end at the baseline.
        NotComparableError: runs of the study file could not be compared with the trials of the study.
    """
    study, file = _comparable_study(file, workspace)
    number = _find_winner(file.name, workspace) if trial is None else trial
    if number is None:
        raise _nothing_complete(file)
    goal = read_trial(study, number)
    if goal.config is None or goal.state == "fail":
        raise UsageError(f"trial {number} of '{file.name}' {why_unusable(goal)}")
    baseline = _best_baseline(read_trials(study))
    start = file.space.complete({}, start={} if baseline is None else baseline.params)
    plan = ExplainPlan(seeds=seeds, start=start, goal=file.space.complete({}, start=goal.params), goal_trial=number, space=file.space)
    if not plan.path.neighbours(plan.path.start):
        raise UsageError(
            f"trial {number} of '{file.name}' is the baseline", hint="There is nothing to explain; choose another with --trial."
        )
    return _prepare(file, workspace, plan, workers, engine)


def mean_seconds(study: str, store: Store) -> float:
    """Return the mean training time of the complete trials of a study.

    Args:
        study: name of the study.
        store: the database.

    Returns:
        Seconds; 0 if no trial is complete.
    """
    seconds = [trial.seconds for trial in read_trials(store.load(study)) if trial.state == "complete"]
    return sum(seconds) / len(seconds) if seconds else 0.0


def find_verdict(name: str, store: Store) -> FinalistsResult | None:
    """Read the result of a study's finalists so far.

    Args:
        name: name of the study.
        store: the database.

    Returns:
        The verdict; None if the study has no finalists.

    Raises:
        StorageError: the records of the finalists are damaged.
    """
    study = _find_follow_up(f"{name}.{FINALISTS}", store)
    return None if study is None else read_verdict(study)


def intact_verdict(name: str, store: Store) -> FinalistsResult | None:
    """Read the result of a study's finalists so far, for a view that must not fail because of them.

    Args:
        name: name of the study.
        store: the database.

    Returns:
        The verdict; None if the study has no finalists, or if their records are damaged, which is logged.
    """
    try:
        return find_verdict(name, store)
    except StorageError as error:
        log.warning("the finalists are left out: %s", error.message)
        return None


def finished_verdict(name: str, store: Store) -> FinalistsResult | None:
    """Read the result of a study's finalists if all their runs are done.

    Args:
        name: name of the study.
        store: the database.

    Returns:
        The verdict; None if the study has no finalists, or not all runs are done.
    """
    verdict = find_verdict(name, store)
    return verdict if verdict is not None and verdict.is_over else None


def find_explanation(file: StudyFile, store: Store) -> tuple[Explanation, int] | None:
    """Read the explanation of a study's winner so far.

    Args:
        file: the study file of the search.
        store: the database.

    Returns:
        The explanation and the number of the explained trial; None if the study has no explanation.

    Raises:
        StorageError: the records of the explanation are damaged.
    """
    study = _find_follow_up(f"{file.name}.{EXPLAIN}", store)
    return None if study is None else read_explanation(study, file.space)


def _find_follow_up(name: str, store: Store) -> optuna.Study | None:
    """Return a follow-up study; None if there is none, or if the study of that name belongs to another program."""
    study = store.load(name) if name in store.study_names() else None
    return study if study is not None and is_follow_up(study) else None


def _comparable_study(file: StudyFile, workspace: Workspace) -> tuple[optuna.Study, StudyFile]:
    """Return the stored study, and the study file with the study's precision."""
    study = workspace.open(read_only=True).load(file.name)
    require_comparable(study, file)
    return study, file.with_precision(read_study(study).auto_precision)


def _nothing_complete(file: StudyFile) -> UsageError:
    return UsageError(f"no trial of '{file.name}' is complete yet", hint="`hpsearch run` trains some.")


def _find_winner(name: str, workspace: Workspace) -> int | None:
    """Return the trial number of the winner of the finalists. If they are not finished, return the number of the best trial.

    Return None if no trial is complete.
    """
    store = workspace.open(read_only=True)
    verdict = finished_verdict(name, store)
    if verdict is not None and verdict.winner is not None:
        return verdict.winner.candidate.trial
    best = _best_trials(read_trials(store.load(name)), top=1, per_model=False)
    return best[0].number if best else None


def _best_trials(trials: Sequence[TrialRow], *, top: int, per_model: bool) -> list[TrialRow]:
    """Return the best complete trials. No two of them have the same configuration."""
    chosen: list[TrialRow] = []
    digests = set()
    for trial in rank(trials):
        digest = replace(trial.config, seed=0).digest if trial.config is not None else None
        n_rivals = sum(not per_model or each.model == trial.model for each in chosen)
        if n_rivals < top and digest is not None and digest not in digests:
            chosen.append(trial)
            digests.add(digest)
    return chosen


def _best_baseline(trials: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best complete baseline, or the first one if none is complete."""
    baselines = [trial for trial in trials if trial.origin == BASELINE and trial.config is not None]
    return next(iter([*rank(baselines), *baselines]), None)


def _prepare(search: StudyFile, workspace: Workspace, plan: Plan, workers: int | None, engine: RayEngine | None) -> Search:
    check_workspace(search, workspace)
    count = count_workers(workspace, engine, workers, plan.max_runs)
    file = follow_up_file(search, plan)
    with workspace.creation_lock():
        store = workspace.open(create=True)
        ensure_identity(store.load(search.name))
        claim_folder(file.name, workspace, store)
        study = create_or_load(store, file.name)
        auto_precision = search.space.auto_precision
        write_study(study, text=search.text, path=search.path, comparable=comparable(search), auto_precision=auto_precision)
        write_plan(study, plan)
    with workspace.locks.hold(claim_lock(get_study_id(study))):
        requeued = requeue_interrupted(store, study, workspace.locks)
    return Search(
        file=file,
        workspace=workspace,
        store=store,
        study=study,
        identity=read_identity(study),
        budget=file.budget,
        workers=count,
        earlier=sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)),
        requeued=tuple(requeued),
        engine=engine,
    )
