"""Follow-up studies, which repeat configurations of a search.

The study `<study>.finalists` repeats the finalists. The study `<study>.explain` measures the effect of each change from the baseline
to the winner. Both are plain Optuna studies with one trial for each run. The plan of a follow-up study says which configurations
are repeated. It is stored in the database, where each worker reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna

from hpsearch.analysis import ablation, finalists
from hpsearch.analysis.ablation import AblationPath, AblationRound, Explanation, explain
from hpsearch.analysis.finalists import Candidate, FinalistsResult, FinalistsRound, evaluate_finalists
from hpsearch.analysis.paired import Scores
from hpsearch.config.components import Scalar
from hpsearch.config.paths import EXPLAIN, FINALISTS, check_study_name
from hpsearch.config.sections import Pruner, Sampler
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.config.study_file import StudyFile, parse_study_file
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import UsageError
from hpsearch.search.trial_source import RepeatedTrials
from hpsearch.storage.database import Store
from hpsearch.storage.records import StudyKey, candidate_scores, failed_candidates, read_study, readable

EARLIER_NAMES = {"parameters": "n_parameters"}
"""Keys that version 0.1 stored, and their present names."""


@dataclass(frozen=True, kw_only=True)
class FinalistsPlan:
    """The plan of a finalists study.

    Attributes:
        seeds: maximum number of runs of each candidate.
        configs: the configuration of each candidate, by its name.
    """

    seeds: int
    candidates: tuple[Candidate, ...]
    configs: Mapping[str, TrainConfig]

    kind = FINALISTS

    @property
    def max_runs(self) -> int:
        """The number of runs if no candidate is dropped."""
        return len(self.candidates) * self.seeds

    def next_runs(self, scores: Scores, failed: frozenset[str], *, n_images: int, pool: int) -> FinalistsRound:
        """Return the next runs.

        Args:
            scores: accuracy by candidate and repeat.
            failed: candidates that always fail.
            n_images: validation images in each split.
            pool: training images from which every split's validation images are drawn.

        Returns:
            The runs, and the candidates that can still win.
        """
        names = {candidate.name for candidate in self.candidates}
        return finalists.next_round(self.candidates, scores, seeds=self.seeds, n_images=n_images, pool=pool, failed=failed & names)

    def config(self, name: str) -> TrainConfig:
        """Return the configuration of a candidate.

        Args:
            name: name of the candidate.

        Returns:
            The configuration.
        """
        return self.configs[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for the database.

        Returns:
            A table that `from_dict` reads.
        """
        candidates = [{**asdict(candidate), "config": self.configs[candidate.name].to_dict()} for candidate in self.candidates]
        return {"seeds": self.seeds, "candidates": candidates}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FinalistsPlan:
        """Read a stored plan.

        Args:
            stored: the result of `to_dict`.

        Returns:
            The plan.
        """
        rows = [{EARLIER_NAMES.get(key, key): value for key, value in row.items()} for row in stored["candidates"]]
        configs = {row["name"]: TrainConfig.from_dict(row.pop("config")) for row in rows}
        return cls(seeds=stored["seeds"], candidates=tuple(Candidate(**row) for row in rows), configs=configs)


@dataclass(frozen=True, kw_only=True)
class ExplainPlan:
    """The plan of an explain study: the path from one configuration to another.

    Attributes:
        seeds: runs that measure each point of the path.
        start: values of all parameters where the path starts.
        goal: values of all parameters where the path ends.
        goal_trial: number of the trial that has the values of the goal.
    """

    seeds: int
    start: Mapping[str, Scalar]
    goal: Mapping[str, Scalar]
    goal_trial: int
    space: Space = field(repr=False, compare=False)
    path: AblationPath = field(init=False, repr=False, compare=False)

    kind = EXPLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", AblationPath(self.space, self.start, self.goal))

    @property
    def max_runs(self) -> int:
        """The number of runs if every step tries all remaining changes and every point of the path runs with all seeds."""
        steps = sum(self.start.get(name) != value for name, value in self.goal.items())
        return steps * (steps + 1) // 2 + (steps + 1) * self.seeds

    def next_runs(self, scores: Scores, failed: frozenset[str], *, n_images: int, pool: int) -> AblationRound:
        """Return the next runs.

        Args:
            scores: accuracy by point and repeat.
            failed: points that always fail.
            n_images: not used. Only a plan of finalists needs this number.
            pool: not used. Only a plan of finalists needs this number.

        Returns:
            The runs, and the path so far.
        """
        return ablation.next_round(self.path, scores, seeds=self.seeds, failed=failed)

    def config(self, name: str) -> TrainConfig:
        """Return the configuration of a point that `next_runs` has returned.

        Args:
            name: name of the point.

        Returns:
            The configuration.
        """
        return self.path.config(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for the database.

        Returns:
            A table that `from_dict` reads.
        """
        return {"seeds": self.seeds, "start": dict(self.start), "goal": dict(self.goal), "goal_trial": self.goal_trial}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], space: Space) -> ExplainPlan:
        """Read a stored plan.

        Args:
            stored: the result of `to_dict`.
            space: the search space of the study.

        Returns:
            The plan.
        """
        return cls(**{key: stored[key] for key in ("seeds", "start", "goal", "goal_trial")}, space=space)


Plan = FinalistsPlan | ExplainPlan


def follow_up_file(file: StudyFile, plan: Plan) -> StudyFile:
    """Return the study file of a follow-up study. Such a study needs no sampler and no pruner, and keeps no checkpoint.

    Args:
        file: the study file of the search.
        plan: the plan of the follow-up study.

    Returns:
        The study file.
    """
    return replace(
        file,
        name=f"{file.name}.{plan.kind}",
        budget=file.budget.model_copy(
            update={"trials": plan.max_runs, "epochs": None, "time": None, "trial_time": None, "balance": None, "stop": None}
        ),
        sampler=Sampler(kind="random"),
        pruner=Pruner(kind="none"),
        baselines=(),
        warm_start=(),
        keep=0,
    )


def follow_up_names(name: str, store: Store) -> list[str]:
    """Return the names of a study's follow-up studies.

    Args:
        name: name of the study.
        store: the database.

    Returns:
        The names of the follow-up studies that exist.
    """
    existing = store.study_names()
    return [follow_up for kind in (FINALISTS, EXPLAIN) if (follow_up := f"{name}.{kind}") in existing]


def is_follow_up(study: optuna.Study) -> bool:
    """Return whether a study repeats configurations of another study.

    Args:
        study: the study.

    Returns:
        True if it has a plan.
    """
    return StudyKey.PLAN in study.user_attrs


def write_plan(study: optuna.Study, plan: Plan) -> None:
    """Store the plan of a follow-up study.

    Args:
        study: the follow-up study.
        plan: its plan.
    """
    study.set_user_attr(StudyKey.PLAN, json.dumps({"kind": plan.kind, **plan.to_dict()}, separators=(",", ":")))


def read_plan(study: optuna.Study, file: StudyFile) -> Plan:
    """Read the plan of a follow-up study.

    Args:
        study: the follow-up study.
        file: the study file of the search.

    Returns:
        The plan.
    """
    stored = _stored_plan(study)
    return FinalistsPlan.from_dict(stored) if stored["kind"] == FINALISTS else ExplainPlan.from_dict(stored, file.space)


def stored_file(study: optuna.Study, component_folder: Path | None = None) -> StudyFile:
    """Return the study file with which a stored study was last run. For a follow-up study, return the study file of the search.

    The study file gets the name of the stored study, because Optuna can copy a study under another name.

    Args:
        study: the stored study.
        component_folder: the folder of the component files; None for the folder of the study file.

    Returns:
        The study file.

    Raises:
        StudyNotFoundError: the study was not made by hpsearch.
        UsageError: hpsearch cannot run a study of this name.
        StudyFileError, ComponentError: a component file is missing or broken.
    """
    row = read_study(study)
    name, ending = study.study_name, f".{_stored_plan(study)['kind']}" if is_follow_up(study) else ""
    if not name.endswith(ending):
        raise UsageError(f"'{name}' is a copy of a follow-up study", hint=f"Copy it under a name that ends in '{ending}'.")
    file = parse_study_file(row.text, path=row.path if component_folder is None else component_folder / row.path.name)
    return replace(file.with_precision(row.auto_precision), name=check_study_name(name.removesuffix(ending)))


def repeated_trials(study: optuna.Study, file: StudyFile) -> RepeatedTrials:
    """Return the source of a follow-up study's trials.

    Args:
        study: the follow-up study.
        file: its study file.

    Returns:
        The source. A repeat has the same seed and split for all configurations.
    """
    plan, sizes = read_plan(study, file), _sizes(study)
    return RepeatedTrials(
        study=study,
        next_runs=lambda scores, failed: plan.next_runs(scores, failed, **sizes),
        config_of=plan.config,
        seed_of=lambda repeat: derive_seed(file.seed, "repeat", repeat),
    )


def write_images(study: optuna.Study, n_images: int) -> None:
    """Store the number of training images of the data set.

    Args:
        study: the follow-up study.
        n_images: number of training images.
    """
    if study.user_attrs.get(StudyKey.N_IMAGES) != n_images:
        study.set_user_attr(StudyKey.N_IMAGES, n_images)


def read_verdict(study: optuna.Study) -> FinalistsResult:
    """Return the result of the finalists' runs so far.

    Args:
        study: the finalists study.

    Returns:
        The verdict.

    Raises:
        StorageError: the plan is damaged.
    """
    with readable(f"the study '{study.study_name}'"):
        plan = FinalistsPlan.from_dict(_stored_plan(study))
        names = {candidate.name for candidate in plan.candidates}
        trials = study.get_trials(deepcopy=False)
        # Leave out trials that were finalists only before the search continued.
        scores = {name: row for name, row in candidate_scores(trials).items() if name in names}
        failed, sizes = failed_candidates(trials) & names, _sizes(study)
    return evaluate_finalists(plan.candidates, scores, seeds=plan.seeds, failed=failed, **sizes)


def read_explanation(study: optuna.Study, space: Space) -> tuple[Explanation, int]:
    """Return the effect of each change on the path so far.

    Args:
        study: the explain study.
        space: the search space.

    Returns:
        The explanation, and the number of the trial where the path ends.

    Raises:
        StorageError: the plan is damaged.
    """
    with readable(f"the study '{study.study_name}'"):
        plan = ExplainPlan.from_dict(_stored_plan(study), space)
        trials = study.get_trials(deepcopy=False)
        scores, failed, sizes = candidate_scores(trials), failed_candidates(trials), _sizes(study)
    found = explain(plan.path, scores, seeds=plan.seeds, failed=failed, **sizes)
    return found, plan.goal_trial


def _sizes(study: optuna.Study) -> dict[str, int]:
    """Return `n_images`, the validation images in each split, and `pool`, the images from which every split draws them.

    The pool has no validation images of the search.
    """
    n_images = int(read_study(study).comparable["data"]["validation_images"])
    # Before the first run the number of training images is unknown. Then any value serves, because there are no scores.
    return {"n_images": n_images, "pool": int(study.user_attrs.get(StudyKey.N_IMAGES, 3 * n_images)) - n_images}


def _stored_plan(study: optuna.Study) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(study.user_attrs[StudyKey.PLAN])
    return stored
