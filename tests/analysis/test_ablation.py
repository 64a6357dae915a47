"""Rules of the ablation path to the winner: one change at a time, the most helpful change first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hpsearch.analysis.ablation import AblationPath, AblationRound, Explanation, explain, next_round
from hpsearch.config.components import BUILT_IN
from hpsearch.config.space import Space
from hpsearch.config.space_parser import read_space
from hpsearch.config.train_config import TrainConfig

SIZES = {"n_images": 10_000, "pool": 50_000}
TABLE = {
    "model": {"choices": ["cnn", "lenet5"]},
    "optimizer": {"choices": ["sgd", "adam"]},
    "batch_size": {"choices": [64, 128]},
    "epochs": {"int": [2, 9]},
    "cnn": {"filters1": {"int": [16, 64], "step": 16}},
    "sgd": {"lr": {"float": [1e-3, 1.0], "log": True}},
    "adam": {"lr": {"float": [1e-4, 1e-1], "log": True}},
}
START = {"model": "lenet5", "optimizer": "sgd", "batch_size": 64, "epochs": 3, "sgd.lr": 0.05}
GOAL = {"model": "cnn", "optimizer": "adam", "batch_size": 64, "epochs": 9, "cnn.filters1": 64, "adam.lr": 0.02}


def space(table: Mapping[str, Any] = TABLE) -> Space:
    return read_space(dict(table), catalog=BUILT_IN)


def accuracy(config: TrainConfig) -> float:
    """More epochs help most, then the cnn, then its filters; adam hurts."""
    value = 0.7 + 0.01 * config.epochs + (0.03 if config.model.name == "cnn" else 0)
    value += 0.0002 * int(config.model.options.get("filters1", 32)) - (0.01 if config.optimizer.name == "adam" else 0)
    return value + 0.01 * float(config.optimizer.options["lr"])


def walk(path: AblationPath, *, seeds: int = 3) -> tuple[AblationRound, Explanation, dict[str, dict[int, float]]]:
    scores: dict[str, dict[int, float]] = {}
    for _ in range(1000):
        ablation = next_round(path, scores, seeds=seeds)
        if not ablation.required_runs:
            return ablation, explain(path, scores, seeds=seeds, **SIZES), scores
        for name, repeat in ablation.required_runs:
            scores.setdefault(name, {})[repeat] = accuracy(path.config(name)) + 0.001 * repeat
    raise AssertionError("it never ends")


def test_the_path_leads_to_the_winner_one_change_at_a_time() -> None:
    path = AblationPath(space(), START, GOAL)
    ablation, found, _ = walk(path)
    assert ablation.reached_goal
    assert found.is_over
    assert path.config(ablation.path[-1].name).digest == space().config(GOAL, seed=0).digest
    assert [len(point.changed) for point in ablation.path] == list(range(len(ablation.path)))
    for before, after in zip(ablation.path, ablation.path[1:], strict=False):
        changed = [name for name in before.values if name in after.values and before.values[name] != after.values[name]]
        assert changed == [after.changed[-1]]


def test_the_change_that_helps_most_comes_first() -> None:
    _, found, _ = walk(AblationPath(space(), START, GOAL))
    assert [step.parameter for step in found.steps] == ["", "epochs", "model", "cnn.filters1", "optimizer", "adam.lr"]
    gains = [step.gain.value for step in found.steps if step.gain is not None]
    assert gains[0] == pytest.approx(0.06)
    assert found.total is not None
    assert found.total.value == pytest.approx(sum(gains))
    assert [step.parameter for step in found.helped][:3] == ["epochs", "model", "cnn.filters1"]


def test_a_parameter_that_a_change_adds_starts_at_its_default() -> None:
    _, found, _ = walk(AblationPath(space(), START, GOAL))
    model = next(step for step in found.steps if step.parameter == "model")
    assert model.settings == {"cnn.filters1": 32}
    assert model.change == "lenet5 → cnn"


def test_a_default_out_of_range_gives_way_to_the_winners_value() -> None:
    table = {**TABLE, "cnn": {"filters1": {"int": [48, 64], "step": 16}}}
    _, found, _ = walk(AblationPath(space(table), START, GOAL))
    assert next(step for step in found.steps if step.parameter == "model").settings == {"cnn.filters1": 64}
    assert "cnn.filters1" not in [step.parameter for step in found.steps]


def test_the_path_is_selected_on_one_seed_and_measured_on_others() -> None:
    ablation, _, scores = walk(AblationPath(space(), START, GOAL), seeds=3)
    path = {point.name for point in ablation.path}
    assert all(set(scores[name]) - {1} == {2, 3, 4} for name in path)
    assert all(set(row) == {1} for name, row in scores.items() if name not in path)


def test_a_single_possible_change_needs_no_selection() -> None:
    _, found, scores = walk(AblationPath(space(), {**GOAL, "epochs": 3}, GOAL))
    assert [step.parameter for step in found.steps] == ["", "epochs"]
    assert all(1 not in row for row in scores.values())


def test_idle_workers_measure_the_known_part_of_the_path() -> None:
    path = AblationPath(space(), START, GOAL)
    ablation = next_round(path, {}, seeds=2)
    assert ablation.optional_runs == ((path.start.name, 2), (path.start.name, 3))


def test_a_step_that_cannot_be_trained_is_avoided() -> None:
    path = AblationPath(space(), START, GOAL)
    first = next_round(path, {}, seeds=2)
    broken = next(name for name, _ in first.required_runs if name.startswith("epochs"))
    scores = {name: {1: accuracy(path.config(name))} for name, _ in first.required_runs if name != broken}
    ablation = next_round(path, scores, seeds=2, failed=frozenset({broken}))
    assert ablation.path[1].changed == ("model",)
