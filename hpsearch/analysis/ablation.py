"""The ablation path from one configuration to another. Each step changes one parameter, and the most helpful change comes first.

Fawcett and Hoos (Journal of Heuristics 22, 2016) describe this method. At each step every remaining change runs with one seed,
and the best change is taken. Then every configuration of the path is measured on further seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpsearch.analysis.metrics import Estimate
from hpsearch.analysis.paired import Scores, TwoWayFit, mean_estimate
from hpsearch.config.components import Scalar
from hpsearch.config.space import Space
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError
from hpsearch.formatting import str_of

SELECTION_REPEAT = 1
"""The repeat whose scores select the next change. The later repeats measure the path."""


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """A configuration of the path.

    Attributes:
        name: the changed parameters in alphabetical order, and the first digits of the configuration's digest.
        changed: the changed parameters, in the order of the changes.
        values: values of all parameters.
    """

    name: str
    changed: tuple[str, ...]
    values: Mapping[str, Scalar]


class AblationPath:
    """The configurations between a start and a goal.

    Args:
        space: the search space of the start and the goal.
        start: values of all parameters at the start.
        goal: values of all parameters at the goal.
    """

    def __init__(self, space: Space, start: Mapping[str, Scalar], goal: Mapping[str, Scalar]) -> None:
        self._space = space
        self.goal = space.complete({}, start=goal)
        self.start = self._point((), space.complete({}, start=start))
        self._configs: dict[str, TrainConfig] = {self.start.name: self._config(self.start.values)}

    def config(self, name: str) -> TrainConfig:
        """Return the configuration of a point by its name.

        Args:
            name: name of the start, or of a point that `neighbours` has returned.

        Returns:
            The configuration.

        Raises:
            KeyError: `neighbours` has not returned a point of this name.
        """
        return self._configs[name]

    def neighbours(self, point: PathPoint) -> list[PathPoint]:
        """Return the points that are one change nearer to the goal, in the order of the space's parameters.

        Args:
            point: a point of the path.

        Returns:
            One point for each parameter whose value differs from the goal; none at the goal.
        """
        found = {}
        for parameter in self._space.searched:
            name = parameter.name
            if name in self.goal and point.values.get(name) not in (None, self.goal[name]):
                # If the change brings new parameters, they start at their defaults.
                values = self._complete({name: self.goal[name]}, point.values)
                near = self._point((*point.changed, name), values)
                found[near.name] = near
                self._configs[near.name] = self._config(values)
        return list(found.values())

    def _complete(self, change: Mapping[str, Scalar], start: Mapping[str, Scalar]) -> dict[str, Scalar]:
        try:
            return self._space.complete(change, start=start)
        except ConfigError:
            # The default of a new parameter is out of range, so the parameter starts at its value in the goal.
            return self._space.complete(change, start={**self.goal, **start})

    def _point(self, changed: tuple[str, ...], values: Mapping[str, Scalar]) -> PathPoint:
        label = " + ".join(sorted(changed)) or "start"
        return PathPoint(name=f"{label} ({self._config(values).digest[:8]})", changed=changed, values=values)

    def _config(self, values: Mapping[str, Scalar]) -> TrainConfig:
        return self._space.config(values, seed=0)


@dataclass(frozen=True, kw_only=True)
class AblationRound:
    """The known part of the path, and the next runs as pairs of name and repeat.

    Attributes:
        path: points of the path, the start first.
        required_runs: runs that the next decision needs.
        optional_runs: runs that will be required later. Idle workers may do them now.
        reached_goal: whether the path ends at the goal.
    """

    path: tuple[PathPoint, ...]
    required_runs: tuple[tuple[str, int], ...]
    optional_runs: tuple[tuple[str, int], ...]
    reached_goal: bool


def next_round(ablation_path: AblationPath, scores: Scores, *, seeds: int, failed: frozenset[str] = frozenset()) -> AblationRound:
    """Decide from the scores so far how the path continues and which runs come next.

    Args:
        ablation_path: start and goal.
        scores: accuracy of each finished run.
        seeds: number of repeats that measure each point of the path.
        failed: names of points that cannot be trained. The path avoids these points if possible.

    Returns:
        The known path and the next runs.
    """
    path = [ablation_path.start]
    while near := ablation_path.neighbours(path[-1]):
        able = [point for point in near if point.name not in failed] or near
        missing = [point for point in able if SELECTION_REPEAT not in scores.get(point.name, {})]
        # A single possible change needs no selection.
        if missing and len(able) > 1:
            required_runs = tuple((point.name, SELECTION_REPEAT) for point in missing)
            return AblationRound(
                path=tuple(path), required_runs=required_runs, optional_runs=_measuring(path, scores, seeds, failed), reached_goal=False
            )
        path.append(max(able, key=lambda point: scores[point.name][SELECTION_REPEAT]) if len(able) > 1 else able[0])
    return AblationRound(path=tuple(path), required_runs=_measuring(path, scores, seeds, failed), optional_runs=(), reached_goal=True)


def _measuring(path: Sequence[PathPoint], scores: Scores, seeds: int, failed: frozenset[str]) -> tuple[tuple[str, int], ...]:
    repeats = range(SELECTION_REPEAT + 1, SELECTION_REPEAT + seeds + 1)
    names = [point.name for point in path if point.name not in failed]
    return tuple((name, repeat) for repeat in repeats for name in names if repeat not in scores.get(name, {}))


@dataclass(frozen=True, kw_only=True)
class AblationStep:
    """One point of the path and the effect of its change.

    Attributes:
        parameter: the changed parameter; empty for the start.
        change: old and new value, `sgd → adam`.
        settings: values of the parameters that exist only after the change.
        accuracy: mean over the repeats that measure; None if none of these repeats has run.
        gain: accuracy of this point minus accuracy of the previous point; None for the start or without runs.
    """

    parameter: str
    change: str
    settings: Mapping[str, Scalar]
    accuracy: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The effect of each change on the path.

    Attributes:
        seeds: number of repeats that measure each point.
        is_over: whether all runs are done.
        total: accuracy of the goal minus accuracy of the start; None if the path is not complete.
    """

    seeds: int
    is_over: bool
    total: Estimate | None
    steps: tuple[AblationStep, ...]

    @property
    def helped(self) -> tuple[AblationStep, ...]:
        """The steps whose gain has an interval entirely above zero."""
        return tuple(step for step in self.steps if step.gain is not None and step.gain.interval[0] > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation for JSON.

        Returns:
            All attributes.
        """
        return asdict(self)


def explain(
    ablation_path: AblationPath, scores: Scores, *, seeds: int, n_images: int, pool: int, failed: frozenset[str] = frozenset()
) -> Explanation:
    """Compute the effect of each change from the scores so far.

    Args:
        ablation_path: start and goal.
        scores: accuracy of each finished run.
        seeds: number of repeats that measure each point of the path.
        n_images: validation images in each split.
        pool: training images from which every split's validation images are drawn.
        failed: names of points that cannot be trained.

    Returns:
        The explanation.
    """
    ablation = next_round(ablation_path, scores, seeds=seeds, failed=failed)
    measured = {
        point.name: fresh
        for point in ablation.path
        if (fresh := {repeat: value for repeat, value in scores.get(point.name, {}).items() if repeat > SELECTION_REPEAT})
    }
    fit = TwoWayFit(measured, n_images=n_images, pool=pool) if measured else None

    def over(after: PathPoint, before: PathPoint) -> Estimate | None:
        return fit.difference(after.name, before.name) if fit is not None and {after.name, before.name} <= set(measured) else None

    steps = []
    for before, point in zip((None, *ablation.path), ablation.path, strict=False):
        mean = mean_estimate(list(measured[point.name].values()), n_images=n_images, pool=pool) if point.name in measured else None
        parameter = point.changed[-1] if point.changed else ""
        old = before.values if before is not None else {}
        steps.append(
            AblationStep(
                parameter=parameter,
                change=f"{str_of(old[parameter])} → {str_of(point.values[parameter])}" if parameter else "",
                settings={name: value for name, value in point.values.items() if before is not None and name not in old},
                accuracy=mean,
                gain=None if before is None else over(point, before),
            )
        )
    total = over(ablation.path[-1], ablation.path[0]) if ablation.reached_goal and len(ablation.path) > 1 else None
    return Explanation(steps=tuple(steps), total=total, seeds=seeds, is_over=ablation.reached_goal and not ablation.required_runs)
