"""How soon does a search name a good configuration? Searches are replayed on recorded learning curves (benchmarks/curves.py).

    python benchmarks/replay.py --replays 200            # all methods, both spaces: a table for each
    python benchmarks/replay.py --only asha --space cnn  # some of them

A replay trains nothing. It draws configurations of the table, and reads what each training measured and how long it took. A sampler
that learns draws any point of the space; the nearest point of the table that is not taken yet stands for it. When all are taken, the
table begins again. The clock is simulated, with any number of workers. A search names its best complete trial. What counts is the true
mean of that configuration over the recorded seeds, compared with the best true mean of the table.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import multiprocessing
import os
import random
import statistics
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

sys.path.insert(0, str(Path(__file__).resolve().parent))
import curves

from hpsearch.config.epoch import Rung
from hpsearch.config.sections import Budget, Pruner, Sampler
from hpsearch.search.halving import Halving
from hpsearch.search.pruner import make_pruner
from hpsearch.search.sampler import SpaceSampler
from hpsearch.storage.records import TrialKey

MAX_EPOCHS = 300
"""A replay that has not found a good configuration after this number of epochs counts as "never"."""
WITHIN = (0.002, 0.001)
AFTER = (50, 100, 200)
"""Epochs after which the table says how far the named configuration is behind the best."""
CHANCE = 0.1
"""Accuracy before the first step. Between two measurements, accuracy and time are interpolated."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A configuration of the table with its runs. Each run is a list of (epochs, accuracy, seconds)."""

    params: dict[str, Any]
    runs: list[list[tuple[float, float, float]]]

    @property
    def epochs(self) -> int:
        return int(self.params["epochs"])

    @property
    def truth(self) -> float:
        return statistics.mean(run[-1][1] for run in self.runs)


@cache
def table(space: str) -> list[Point]:
    by_point: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for run in curves.recorded(space):
        by_point[run["point"]].append(run)
    return [Point(params=runs[0]["params"], runs=[_curve(run) for run in runs]) for _, runs in sorted(by_point.items())]


@cache
def distributions(space: str) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return Optuna's distribution of each searched parameter."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        curves.space_of(space).sample(study.ask())
    return {name: each for trial in study.trials for name, each in trial.distributions.items()}


def _curve(run: dict[str, Any]) -> list[tuple[float, float, float]]:
    curve = [(0.0, CHANCE, 0.0), *(tuple(rung) for rung in run["rungs"])]
    seconds = 0.0
    for number, (accuracy, lasted) in enumerate(run["epochs"], start=1):
        seconds += lasted
        curve.append((float(number), accuracy, seconds))
    epochs = int(run["params"]["epochs"])
    if curve[-1][0] < epochs:  # it diverged, and costs nothing more
        curve.append((float(epochs), curve[-1][1], seconds))
    return curve


def measured(curve: list[tuple[float, float, float]], position: float) -> tuple[float, float]:
    """Return accuracy and seconds of a run at a position in epochs."""
    after = next(each for each in curve if each[0] >= position)
    before = next((each for each in reversed(curve) if each[0] < position), after)
    part = 0.0 if after is before else (position - before[0]) / (after[0] - before[0])
    return before[1] + part * (after[1] - before[1]), before[2] + part * (after[2] - before[2])


class Study:
    """A study in memory whose trials are points of the table."""

    def __init__(
        self, space: str, sampler: optuna.samplers.BaseSampler | None, pruner: optuna.pruners.BasePruner, draw: random.Random
    ) -> None:
        self._name, self.space, self.points, self._draw = space, curves.space_of(space), table(space), draw
        self.optuna = optuna.create_study(direction="maximize", sampler=sampler or optuna.samplers.RandomSampler(), pruner=pruner)
        self._learns = sampler is not None
        self._free = list(range(len(self.points)))
        draw.shuffle(self._free)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def begin(self) -> Job:
        """Begin a trial of a point that no other trial has. When the table is at its end, it begins again."""
        if not self._free:
            self._free = list(range(len(self.points)))
            self._draw.shuffle(self._free)
        # `Study.ask` would take a paused trial.
        started = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={TrialKey.ATTEMPTS: []})
        trial = optuna.Trial(self.optuna, self.optuna._storage.create_new_trial(self.optuna._study_id, started))
        index = self._free[-1]
        if self._learns:
            wanted = self.space.sample(trial)
            index = min(self._free, key=lambda each: self._distance(self.points[each].params, wanted))
        self._free.remove(index)
        point = self.points[index]
        stored = self.optuna._storage._get_trial(trial._trial_id)  # the point of the table takes the place of the one drawn
        stored.params = dict(point.params)
        stored.distributions = {name: distributions(self._name)[name] for name in point.params}
        return Job(trial=trial, point=point, run=self._draw.choice(point.runs))

    def _distance(self, one: dict[str, Any], other: dict[str, Any]) -> float:
        return sum(self._apart(name, one.get(name), other.get(name)) for name in one)

    def _apart(self, name: str, one: Any, other: Any) -> float:
        distribution = distributions(self._name)[name]
        if other is None or isinstance(distribution, optuna.distributions.CategoricalDistribution):
            return float(one != other)
        low, high = distribution.low, distribution.high
        if distribution.log:
            one, other, low, high = map(math.log, (one, other, low, high))
        return abs(one - other) / (high - low)


@dataclass(kw_only=True, eq=False)
class Job:
    """A trial in training."""

    trial: optuna.Trial
    point: Point
    run: list[tuple[float, float, float]]
    at: float = 0.0

    @property
    def stored(self) -> FrozenTrial:
        return self.trial.storage._get_trial(self.trial._trial_id)

    def store(self, position: float) -> None:
        """Store what is measured at a position."""
        accuracy, seconds = measured(self.run, position)
        self.at = position
        if position >= 1:
            self.trial.report(accuracy, int(position))
        else:
            rungs = [
                *self.stored.user_attrs.get(TrialKey.RUNGS, []),
                asdict(Rung(share=position, images=1, val_accuracy=accuracy, n_validated=1, seconds=seconds)),
            ]
            self.trial.set_user_attr(TrialKey.RUNGS, rungs)


class Method:
    """Trains each trial to its end. Subclasses stop or pause trials."""

    partial_epochs: Callable[[int], Sequence[float]] = staticmethod(lambda epochs: ())

    def __init__(self, study: Study) -> None:
        self.study = study

    def next_job(self) -> Job | None:
        return self.study.begin()

    def goes_on(self, job: Job) -> bool:
        """Return whether a trial goes on after a measurement. If not, its state is set here."""
        if job.at >= 1 and job.trial.should_prune():
            self.study.optuna.tell(job.trial, state=TrialState.PRUNED)
            return False
        return True


class RayAsha(Method):
    """The rule of Ray Tune's ASHAScheduler: a trial stops at 1, 4, … epochs if it is below the best quarter of those before it."""

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self._seen: dict[float, list[float]] = {1: [], 4: []}

    def goes_on(self, job: Job) -> bool:
        if job.at not in self._seen:
            return True
        value, seen = measured(job.run, job.at)[0], self._seen[job.at]
        stops = bool(seen) and value < sorted(seen)[math.ceil(0.75 * (len(seen) - 1))]
        seen.append(value)
        if stops:
            self.study.optuna.tell(job.trial, state=TrialState.PRUNED)
        return not stops


class OneEpoch(Method):
    """One epoch of each of `count` configurations, then the best are trained to their ends, the best first."""

    def __init__(self, study: Study, count: int) -> None:
        super().__init__(study)
        self._left, self._paused = count, list[Job]()

    def next_job(self) -> Job | None:
        if self._left:
            self._left -= 1
            return self.study.begin()
        if not self._paused:
            return None
        best = max(self._paused, key=lambda job: measured(job.run, 1)[0])
        self._paused.remove(best)
        return best

    def goes_on(self, job: Job) -> bool:
        if job.at == 1:
            self._paused.append(job)
        return job.at != 1


class Asha(Method):
    """hpsearch's asha: its own rule decides, on Optuna's own trials."""

    def __init__(self, study: Study, halving: Halving) -> None:
        super().__init__(study)
        self._halving, self._paused = halving, dict[int, Job]()
        self.partial_epochs = halving.partial_epochs

    def next_job(self) -> Job | None:
        paused = self._halving.next_promotion(self.study.trials, at_least_one=False)
        if paused is None:
            return self.study.begin()
        job = self._paused.pop(paused.number)
        job.stored.state = TrialState.RUNNING
        job.trial.set_user_attr(TrialKey.PAUSE, {"at": job.at, "promoted": True})
        return job

    def goes_on(self, job: Job) -> bool:
        if job.at not in self._halving.positions(job.point.epochs) or not self._halving.must_pause(job.stored, self.study.trials):
            return True
        job.trial.set_user_attr(TrialKey.PAUSE, {"at": job.at, "promoted": False})
        job.stored.state = TrialState.WAITING
        self._paused[job.trial.number] = job
        return False


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def ours(space: str, seed: int, halving: Halving | None = None) -> SpaceSampler:
    return SpaceSampler(
        curves.space_of(space), Sampler(), Budget(trials=1000), seed=seed, n_images=1000, accept=lambda _: True, halving=halving
    )


def unpruned() -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


def asha(
    space: str,
    seed: int,
    draw: random.Random,
    *,
    sampler: str = "tpe",
    rungs: tuple[float, ...] = (1 / 27, 1 / 9, 1 / 3),
    factor: float = 2,
) -> Method:
    halving = Halving(space=curves.space_of(space), rungs=rungs, reduction_factor=factor)
    learned = ours(space, seed, halving) if sampler == "tpe" else None
    return Asha(Study(space, learned, unpruned(), draw), halving)


Make = Callable[[str, int, random.Random], Method]
METHODS: dict[str, Make] = {
    "random": lambda space, seed, draw: Method(Study(space, None, unpruned(), draw)),
    "Optuna: TPE + median": lambda space, seed, draw: Method(Study(space, tpe(seed), optuna.pruners.MedianPruner(), draw)),
    "Optuna: TPE + Hyperband": lambda space, seed, draw: Method(
        Study(space, tpe(seed), optuna.pruners.HyperbandPruner(max_resource=12), draw)
    ),
    "Optuna: TPE + successive halving": lambda space, seed, draw: Method(
        Study(space, tpe(seed), optuna.pruners.SuccessiveHalvingPruner(), draw)
    ),
    "Ray Tune: ASHA rule, random": lambda space, seed, draw: RayAsha(Study(space, None, unpruned(), draw)),
    **{
        f"one epoch of {count}, then the best, random": lambda space, seed, draw, count=count: OneEpoch(
            Study(space, None, unpruned(), draw), count
        )
        for count in (25, 50, 100)
    },
    "hpsearch 0.1: TPE + median": lambda space, seed, draw: Method(
        Study(space, ours(space, seed), optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2), draw)
    ),
    "hpsearch: TPE + median": lambda space, seed, draw: Method(
        Study(space, ours(space, seed), make_pruner(Pruner(kind="median"), curves.space_of(space)), draw)
    ),
    "hpsearch: TPE + asha": asha,
    "hpsearch: random + asha": lambda space, seed, draw: asha(space, seed, draw, sampler="random"),
    **{
        f"hpsearch: TPE + asha at {', '.join(f'{rung:.2f}' for rung in rungs)}, factor {factor}": lambda space, seed, draw, factor=factor, rungs=rungs: (
            asha(space, seed, draw, factor=factor, rungs=rungs)
        )
        for factor, rungs in (
            (1.5, (1 / 27, 1 / 9, 1 / 3)),
            (2, (1 / 9, 1 / 3)),
            (3, (1 / 9, 1 / 3)),
            (3, (1 / 3,)),
            (4, (1 / 3,)),
            (2, (1 / 27, 1 / 9, 1 / 3, 2 / 3)),
            (2, (1 / 9, 1 / 3, 2 / 3)),
            (2, (1 / 81, 1 / 27, 1 / 9, 1 / 3)),
        )
    },
}


@dataclass
class Found:
    """What one replay needed, and what it had named.

    Attributes:
        epochs: for each of `WITHIN`; infinity if it found nothing so good.
        seconds: the same.
        behind: for each of `AFTER`, how far the true mean of the named configuration is behind the best, 0 to 1.
    """

    epochs: list[float] = field(default_factory=lambda: [math.inf] * len(WITHIN))
    seconds: list[float] = field(default_factory=lambda: [math.inf] * len(WITHIN))
    behind: list[float] = field(default_factory=list)


def replay(task: tuple[str, str, int, int]) -> Found:
    """Replay one search."""
    name, space, seed, workers = task
    draw = random.Random(f"{space}/{seed}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    method = METHODS[name](space, seed, draw)
    best = max(point.truth for point in table(space))
    found, spent, named = Found(), 0.0, (-1.0, 0.0)
    events: list[tuple[float, int, float, Job]] = []
    idle, now = workers, 0.0
    counter = itertools.count()

    def train(job: Job) -> None:
        epochs = job.point.epochs
        following = min(position for position in (*method.partial_epochs(epochs), *range(1, epochs + 1)) if position > job.at)
        lasts = measured(job.run, following)[1] - measured(job.run, job.at)[1]
        heapq.heappush(events, (now + lasts, next(counter), following, job))

    while spent < MAX_EPOCHS and (math.inf in found.epochs or len(found.behind) < len(AFTER)):
        while idle and (begun := method.next_job()) is not None:
            idle -= 1
            train(begun)
        if not events:
            break
        now, _, position, job = heapq.heappop(events)
        spent += position - job.at
        found.behind += [best - named[1]] * (sum(spent > after for after in AFTER) - len(found.behind))
        job.store(position)
        if job.at < job.point.epochs:
            if method.goes_on(job):
                train(job)
                continue
        else:
            final = job.run[-1][1]
            method.study.optuna.tell(job.trial, final)
            named = max(named, (final, job.point.truth))
            for index, within in enumerate(WITHIN):
                if best - named[1] <= within and math.isinf(found.epochs[index]):
                    found.epochs[index], found.seconds[index] = spent, now
        idle += 1
    found.behind += [best - named[1]] * (len(AFTER) - len(found.behind))  # it had nothing left to train
    return found


def quartiles(values: Sequence[float], decimals: int = 0) -> str:
    low, middle, high = (sorted(values)[round(share * (len(values) - 1))] for share in (0.25, 0.5, 0.75))
    return f"{shown(middle, decimals)} ({shown(low, decimals)} to {shown(high, decimals)})"


def shown(value: float, decimals: int) -> str:
    return "never" if math.isinf(value) else f"{value:,.{decimals}f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="simulated workers")
    parser.add_argument("--only", default="", help="only the methods whose name has this text")
    parser.add_argument("--space", choices=tuple(curves.SPACES))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for space in [options.space] if options.space else curves.SPACES:
        points = table(space)
        print(f"\n{space}: {len(points)} points, best true mean {max(point.truth for point in points):.4f}; ", end="")
        print(f"{options.replays} replays, {options.workers} workers; medians and quartiles\n")
        titles = [f"{what} to {100 * within:.1f} points" for within in WITHIN for what in ("epochs", "seconds")]
        titles += [f"points behind after {after} epochs" for after in AFTER]
        print("| method | " + " | ".join(titles) + " |\n|---|" + "---|" * len(titles), flush=True)
        with multiprocessing.Pool(options.processes) as pool:
            for name in METHODS:
                if options.only.lower() in name.lower():
                    found = pool.map(replay, [(name, space, seed, options.workers) for seed in range(options.replays)], chunksize=1)
                    columns = [
                        quartiles([getattr(each, what)[n] for each in found]) for n in range(len(WITHIN)) for what in ("epochs", "seconds")
                    ]
                    columns += [quartiles([100 * each.behind[n] for each in found], decimals=2) for n in range(len(AFTER))]
                    print(f"| {name} | " + " | ".join(columns) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
