"""Studies as a search leaves them, made in milliseconds, for tests of the layers that read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.study_file import parse_study_file
from hpsearch.storage.records import BASELINE, TrialKey, write_split_hash, write_study
from tests.support.fake_trainer import fake_epoch
from tests.support.small_study import STUDY

BEGIN = datetime(2026, 3, 1, 12, 0, 0)
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "model": CategoricalDistribution(["cnn", "lenet5"]),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "epochs": IntDistribution(1, 20),
    "cnn.filters1": IntDistribution(8, 64, step=8),
    "sgd.lr": FloatDistribution(1e-3, 1.0, log=True),
    "adam.lr": FloatDistribution(1e-4, 1e-1, log=True),
}
State = Callable[[int], TrialState]


def complete(number: int) -> TrialState:
    return TrialState.COMPLETE


def every_third_pruned(number: int) -> TrialState:
    return TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE


def stored_study(
    folder: Path,
    *,
    name: str = "small",
    trials: int = 12,
    epochs: int = 3,
    state: State = complete,
    models: tuple[str, ...] = ("cnn", "lenet5"),
    storage: optuna.storages.BaseStorage | str | None = None,
    text: str = STUDY,
    end: Mapping[str, Any] | None = None,
) -> optuna.Study:
    """Make a study with finished trials, in memory or in a given database; its study file is written to `folder`."""
    (folder / "no_images.py").write_text("import hpsearch\n\n@hpsearch.dataset('no_images')\ndef no_images(root, *, train): ...\n")
    file = parse_study_file(text.replace('name = "small"', f'name = "{name}"').replace("[2, 4]", "[1, 20]"), path=folder / "small.toml")
    study = optuna.create_study(study_name=name, direction="maximize", storage=storage or optuna.storages.InMemoryStorage())
    write_study(study, text=file.text, path=file.path, comparable=json.loads(json.dumps(file.comparable)))
    write_split_hash(study, "f" * 64)
    draws = numpy.random.default_rng(0)
    study.add_trials(
        [_trial(file, number, epochs, state(number), models[number % len(models)], draws, end or {}) for number in range(trials)]
    )
    return study


def _trial(
    file: Any, number: int, epochs: int, state: TrialState, model: str, draws: numpy.random.Generator, end: Mapping[str, Any]
) -> FrozenTrial:
    optimizer = "sgd" if number == 0 else str(draws.choice(["adam", "sgd"]))
    values: dict[str, Any] = {"model": model, "optimizer": optimizer, "epochs": epochs}
    if model == "cnn":
        values["cnn.filters1"] = int(draws.integers(1, 9)) * 8
    values[f"{optimizer}.lr"] = float(10 ** draws.uniform(-3, -1))
    config = file.space.config(values, seed=number)
    done = epochs if state is TrialState.COMPLETE else 0 if state is TrialState.FAIL else 1
    curve = [fake_epoch(config, each) for each in range(1, done + 1)]
    begin = BEGIN + timedelta(seconds=10 * number)
    attrs = {
        TrialKey.RUN: json.dumps({"config": config.to_dict(), "device": "cpu", "versions": {"torch": "2.13.0"}, "split_hash": "f" * 64}),
        TrialKey.EPOCHS: json.dumps([epoch.to_dict() for epoch in curve]),
        TrialKey.N_PARAMETERS: 1000 * int(values.get("cnn.filters1", 5)),
        TrialKey.FLOPS: 1_000_000 + number,
        TrialKey.ATTEMPTS: [{"worker": f"worker-abc-{number % 2 + 1}", "run": "abc", "at": begin.timestamp(), "epochs": 0}],
        TrialKey.ORIGIN: BASELINE if number == 0 else "",
        **({TrialKey.END: dict(end)} if end else {}),
    }
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=curve[-1].val_accuracy if state is TrialState.COMPLETE else None,
        params=values,
        distributions={key: DISTRIBUTIONS[key] for key in values},
        user_attrs=attrs,
        system_attrs={},
        intermediate_values={epoch.number: epoch.val_accuracy for epoch in curve},
        datetime_start=begin,
        datetime_complete=begin + timedelta(seconds=9),
    )


def leave_predictions(path: Path, *, classes: tuple[str, ...] = ("cat", "dog", "eel"), images: int = 100, seed: int = 0) -> None:
    """Write the predictions of a trial as the trainer does."""
    draws = numpy.random.default_rng(seed)
    label = numpy.arange(images) % len(classes)
    predicted = numpy.where(draws.random(images) < 0.8, label, (label + 1) % len(classes))
    mistake = numpy.flatnonzero(label != predicted)[:5]
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.savez(
        path,
        label=label,
        predicted=predicted,
        confidence=draws.uniform(0.4, 1.0, images),
        classes=numpy.array(classes, dtype=str),
        mistake=mistake,
        mistake_image=draws.integers(0, 255, (len(mistake), 1, 8, 8), dtype=numpy.uint8),
    )
