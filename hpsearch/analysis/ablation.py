"""The way from one configuration to another, one parameter changed at a time in the order that helps most.

An ablation path (Fawcett and Hoos, Journal of Heuristics 22, 2016): at each step every change that is
left is tried on one seed and the best is taken; then each step of the path is measured on fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpsearch.analysis.metrics import Estimate
from hpsearch.analysis.paired import Scores, TwoWayFit, mean_estimate
from hpsearch.config.components import Scalar
from hpsearch.config.space import Space
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError
from hpsearch.formatting import str_of

SELECTION_REPEAT = 1
"""The repeat on which the next change is chosen; those after it measure the path."""


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """A configuration between the two ends.

    Attributes:
        name: of its runs: what was changed, in alphabetical order, and the beginning of the configuration's digest.
        changed: the parameters changed so far, in order.
        values: of all parameters.
    """

    name: str
    changed: tuple[str, ...]
    values: Mapping[str, Scalar]


class AblationPath:
    """Two points of a space, and what lies between them.

    Args:
        start, goal: values of all parameters.
    """

    def __init__(self, space: Space, start: Mapping[str, Scalar], goal: Mapping[str, Scalar]) -> None:
        self._space = space
        self.goal = space.complete({}, start=goal)
        self.start = self._point((), space.complete({}, start=start))
        self._configs: dict[str, TrainConfig] = {self.start.name: self._config(self.start.values)}

    def config(self, name: str) -> TrainConfig:
        """The configuration of a point that was reached before."""
        return self._configs[name]

    def neighbours(self, point: PathPoint) -> list[PathPoint]:
        """One change nearer to the goal: for each parameter that differs, in the space's order."""
        found = {}
        for parameter in self._space.searched:
            name = parameter.name
            if name in self.goal and point.values.get(name) not in (None, self.goal[name]):
                # A parameter that comes into being with the change begins at its default.
                values = self._complete({name: self.goal[name]}, point.values)
                near = self._point((*point.changed, name), values)
                found[near.name] = near
                self._configs[near.name] = self._config(values)
        return list(found.values())

    def _complete(self, change: Mapping[str, Scalar], start: Mapping[str, Scalar]) -> dict[str, Scalar]:
        try:
            return self._space.complete(change, start=start)
        except ConfigError:
            # Its default is out of range: it begins at the goal's value.
            return self._space.complete(change, start={**self.goal, **start})

    def _point(self, changed: tuple[str, ...], values: Mapping[str, Scalar]) -> PathPoint:
        label = " + ".join(sorted(changed)) or "start"
        return PathPoint(name=f"{label} ({self._config(values).digest[:8]})", changed=changed, values=values)

    def _config(self, values: Mapping[str, Scalar]) -> TrainConfig:
        return self._space.config(values, seed=0)


@dataclass(frozen=True, kw_only=True)
class AblationRound:
    """The path as far as it is known.

    Attributes:
        path: its points, the start first.
        wanted, spare: runs to begin, as for `hpsearch.analysis.finalists.Round`.
        arrived: the path ends at the goal.
    """

    path: tuple[PathPoint, ...]
    required_runs: tuple[tuple[str, int], ...]
    optional_runs: tuple[tuple[str, int], ...]
    reached_target: bool


def next_round(ends: AblationPath, scores: Scores, *, seeds: int, failed: frozenset[str] = frozenset()) -> AblationRound:
    """The path that the scores so far decide, and which runs come next.

    Args:
        seeds: repeats that measure each point of the path.
        failed: points that cannot be trained; the path avoids them where it can.
    """
    path = [ends.start]
    while near := ends.neighbours(path[-1]):
        able = [point for point in near if point.name not in failed] or near
        missing = [point for point in able if SELECTION_REPEAT not in scores.get(point.name, {})]
        # A single way needs no choice.
        if missing and len(able) > 1:
            required_runs = tuple((point.name, SELECTION_REPEAT) for point in missing)
            return AblationRound(
                path=tuple(path), required_runs=required_runs, optional_runs=_measuring(path, scores, seeds, failed), reached_target=False
            )
        path.append(max(able, key=lambda point: scores[point.name][SELECTION_REPEAT]) if len(able) > 1 else able[0])
    return AblationRound(path=tuple(path), required_runs=_measuring(path, scores, seeds, failed), optional_runs=(), reached_target=True)


def _measuring(path: Sequence[PathPoint], scores: Scores, seeds: int, failed: frozenset[str]) -> tuple[tuple[str, int], ...]:
    repeats = range(SELECTION_REPEAT + 1, SELECTION_REPEAT + seeds + 1)
    names = [point.name for point in path if point.name not in failed]
    return tuple((name, repeat) for repeat in repeats for name in names if repeat not in scores.get(name, {}))


@dataclass(frozen=True, kw_only=True)
class AblationStep:
    """One point of the path, and what the change to it did.

    Attributes:
        parameter: what was changed; empty for the start.
        change: in words, `sgd → adam`.
        settings: what came into being with the change.
        mean: accuracy over the measuring repeats; None before there is one.
        gain: over the step before.
    """

    parameter: str
    change: str
    settings: Mapping[str, Scalar]
    mean: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What each change on the way did.

    Attributes:
        total: what the goal has over the start.
        is_over: no run is missing.
    """

    steps: tuple[AblationStep, ...]
    total: Estimate | None
    seeds: int
    is_over: bool

    @property
    def helped(self) -> tuple[AblationStep, ...]:
        """The steps whose gain is more than chance."""
        return tuple(step for step in self.steps if step.gain is not None and step.gain.interval[0] > 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

        def plain(estimate: Estimate | None) -> dict[str, Any] | None:
            return None if estimate is None else {"value": estimate.value, "interval": list(estimate.interval)}

        return {
            "seeds": self.seeds,
            "is_over": self.is_over,
            "total": plain(self.total),
            "steps": [
                {
                    "parameter": step.parameter,
                    "change": step.change,
                    "settings": dict(step.settings),
                    "accuracy": plain(step.mean),
                    "gain": plain(step.gain),
                }
                for step in self.steps
            ],
        }


def explain(
    ends: AblationPath, scores: Scores, *, seeds: int, n_images: int, pool: int, failed: frozenset[str] = frozenset()
) -> Explanation:
    """What the scores so far say of each change.

    Args:
        images, pool: as for `hpsearch.analysis.paired.TwoWayFit`.
    """
    ablation = next_round(ends, scores, seeds=seeds, failed=failed)
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
                mean=mean,
                gain=None if before is None else over(point, before),
            )
        )
    total = over(ablation.path[-1], ablation.path[0]) if ablation.reached_target and len(ablation.path) > 1 else None
    return Explanation(steps=tuple(steps), total=total, seeds=seeds, is_over=ablation.reached_target and not ablation.required_runs)
