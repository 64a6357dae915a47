"""Studies that belong to another: its finalists, and the explanation of what helped.

A linked study, `<study>.finalists` or `<study>.explain`, is plain Optuna with one trial a run. Its
plan says which configurations run again and again; whoever works on it reads the plan from the storage.
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
from hpsearch.config.paths import EXPLAIN, FINALISTS
from hpsearch.config.sections import Pruner, Sampler
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.config.study_file import StudyFile, parse_study_file
from hpsearch.config.train_config import TrainConfig
from hpsearch.storage.database import Store
from hpsearch.storage.records import StudyKey, candidate_scores, failed_candidates, read_study

EARLIER_NAMES = {"parameters": "n_parameters"}
"""Names that version 0.1 stored, by the names of today."""


@dataclass(frozen=True, kw_only=True)
class FinalistsPlan:
    """Who the finalists are.

    Attributes:
        configs: by a candidate's name.
    """

    seeds: int
    candidates: tuple[Candidate, ...]
    configs: Mapping[str, TrainConfig]

    kind = FINALISTS

    @property
    def most_runs(self) -> int:
        """Where nobody is dropped."""
        return len(self.candidates) * self.seeds

    def next_runs(self, scores: Scores, failed: frozenset[str], *, n_images: int, pool: int) -> FinalistsRound:
        """Which runs come next."""
        return finalists.next_round(self.candidates, scores, seeds=self.seeds, n_images=n_images, pool=pool, failed=failed)

    def config(self, name: str) -> TrainConfig:
        """The configuration of a candidate."""
        return self.configs[name]

    def to_dict(self) -> dict[str, Any]:
        """For the storage."""
        candidates = [{**asdict(candidate), "config": self.configs[candidate.name].to_dict()} for candidate in self.candidates]
        return {"seeds": self.seeds, "candidates": candidates}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FinalistsPlan:
        """The plan that `to_dict` wrote."""
        configs = {each["name"]: TrainConfig.from_dict(each["config"]) for each in stored["candidates"]}
        candidates = [
            Candidate(**{EARLIER_NAMES.get(key, key): value for key, value in each.items() if key != "config"})
            for each in stored["candidates"]
        ]
        return cls(seeds=stored["seeds"], candidates=tuple(candidates), configs=configs)


@dataclass(frozen=True, kw_only=True)
class ExplainPlan:
    """Between which two configurations the way is looked for.

    Attributes:
        start, goal: values of all parameters.
        goal_trial: number of the trial that the goal is.
    """

    seeds: int
    start: Mapping[str, Scalar]
    goal: Mapping[str, Scalar]
    goal_trial: int
    space: Space = field(repr=False, compare=False)

    kind = EXPLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ablation_path", AblationPath(self.space, self.start, self.goal))

    @property
    def ablation_path(self) -> AblationPath:
        """The ablation path from `start` to `goal`."""
        found: AblationPath = self._ablation_path  # type: ignore[attr-defined]  # set once, above
        return found

    @property
    def most_runs(self) -> int:
        """At most: every change that is left at every step, and each point of the path as often as there are seeds."""
        steps = sum(self.start.get(name) != value for name, value in self.goal.items())
        return steps * (steps + 1) // 2 + (steps + 1) * self.seeds

    def next_runs(self, scores: Scores, failed: frozenset[str], *, n_images: int, pool: int) -> AblationRound:
        """Which runs come next."""
        return ablation.next_round(self.ablation_path, scores, seeds=self.seeds, failed=failed)

    def config(self, name: str) -> TrainConfig:
        """The configuration of a point; `next_runs` comes first."""
        return self.ablation_path.config(name)

    def to_dict(self) -> dict[str, Any]:
        """For the storage."""
        return {"seeds": self.seeds, "start": dict(self.start), "goal": dict(self.goal), "goal_trial": self.goal_trial}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], space: Space) -> ExplainPlan:
        """The plan that `to_dict` wrote."""
        return cls(**{key: stored[key] for key in ("seeds", "start", "goal", "goal_trial")}, space=space)


Plan = FinalistsPlan | ExplainPlan


def follow_up_file(file: StudyFile, plan: Plan) -> StudyFile:
    """The study file of a study's linked one: no sampler, no pruner, and no checkpoint is kept."""
    return replace(
        file,
        name=f"{file.name}.{plan.kind}",
        budget=file.budget.model_copy(update={"trials": plan.most_runs, "time": None, "trial_time": None, "balance": None}),
        sampler=Sampler(kind="random"),
        pruner=Pruner(kind="none"),
        baselines=(),
        warm_start=(),
        keep=0,
    )


def follow_up_names(name: str, store: Store) -> list[str]:
    """The names of the studies that belong to one, as far as there are any."""
    there = store.study_names()
    return [follow_up for kind in (FINALISTS, EXPLAIN) if (follow_up := f"{name}.{kind}") in there]


def is_follow_up(study: optuna.Study) -> bool:
    """Whether a study belongs to another."""
    return StudyKey.PLAN in study.user_attrs


def write_plan(study: optuna.Study, plan: Plan) -> None:
    """Note what a linked study is to repeat."""
    study.set_user_attr(StudyKey.PLAN, json.dumps({"kind": plan.kind, **plan.to_dict()}, separators=(",", ":")))


def read_plan(study: optuna.Study, file: StudyFile) -> Plan:
    """What a linked study repeats.

    Args:
        file: the study file of the search that it belongs to.
    """
    stored = json.loads(study.user_attrs[StudyKey.PLAN])
    return FinalistsPlan.from_dict(stored) if stored["kind"] == FINALISTS else ExplainPlan.from_dict(stored, file.space)


def stored_file(study: optuna.Study, beside: Path | None = None) -> StudyFile:
    """The study file that a stored study was last run with; of a linked one, that of the study it belongs to.

    Args:
        beside: the folder of its component files; by default where the study file was.

    Raises:
        StudyNotFoundError: the study was not made by hpsearch.
        StudyFileError, ComponentError: a component file is gone or broken.
    """
    row = read_study(study)
    return parse_study_file(row.text, path=row.path if beside is None else beside / row.path.name)


def repeat_seed(seed: int, repeat: int) -> int:
    """The seed of a repeat's training and of its split, for all configurations alike."""
    return derive_seed(seed, "repeat", repeat)


def write_images(study: optuna.Study, n_images: int) -> None:
    """Note how many training images the data set has."""
    if study.user_attrs.get(StudyKey.N_IMAGES) != n_images:
        study.set_user_attr(StudyKey.N_IMAGES, n_images)


def read_verdict(study: optuna.Study) -> FinalistsResult:
    """What the finalists' runs come down to, so far.

    Args:
        study: the linked one.
    """
    plan = FinalistsPlan.from_dict(json.loads(study.user_attrs[StudyKey.PLAN]))
    names = {candidate.name for candidate in plan.candidates}
    trials = study.get_trials(deepcopy=False)
    # Those that were finalists once, before the search went on, are not any more.
    scores = {name: row for name, row in candidate_scores(trials).items() if name in names}
    return evaluate_finalists(plan.candidates, scores, seeds=plan.seeds, failed=failed_candidates(trials) & names, **read_sizes(study))


def read_explanation(study: optuna.Study, space: Space) -> tuple[Explanation, int]:
    """What the runs on the way say of each change, so far, and the number of the trial that it leads to."""
    plan = ExplainPlan.from_dict(json.loads(study.user_attrs[StudyKey.PLAN]), space)
    trials = study.get_trials(deepcopy=False)
    found = explain(plan.ablation_path, candidate_scores(trials), seeds=plan.seeds, failed=failed_candidates(trials), **read_sizes(study))
    return found, plan.goal_trial


def read_sizes(study: optuna.Study) -> dict[str, int]:
    """Validation images of a run, and how many all of them are drawn out of: none of those that the search was validated on."""
    n_images = int(read_study(study).comparable["data"]["validation_images"])
    # Before the first run there is no score that the number would bear on.
    return {"n_images": n_images, "pool": int(study.user_attrs.get(StudyKey.N_IMAGES, 3 * n_images)) - n_images}
