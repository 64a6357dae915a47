"""Configs of training runs."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from hpsearch import configure
from hpsearch.config.components import BUILT_IN, Component, ComponentFile, Option, Scalar
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.errors import ComponentError, ConfigError, StudyFileError


def test_config_without_values_has_all_defaults() -> None:
    config = configure()
    assert (config.model.name, config.optimizer.name, config.schedule.name) == ("cnn", "adam", "constant")
    assert (config.epochs, config.batch_size, config.seed) == (10, 128, 0)
    assert config == resolve({}, catalog=BUILT_IN, seed=0)


def test_plain_names_find_their_owners() -> None:
    config = configure(model="lenet5", optimizer="sgd", lr=1, dropout=0.1, epochs=3, seed=7)
    assert config.model.options["dropout"] == 0.1
    assert repr(config.optimizer.options["lr"]) == "1.0"
    assert (config.epochs, config.seed) == (3, 7)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mommentum": 0.9, "optimizer": "sgd"}, "mommentum: neither"),
        ({"momentum": 0.9}, "momentum: only the optimizer 'sgd'"),
        ({"epochs": 0}, "epochs: must be a whole number"),
        ({"lr": float("nan")}, "lr: numbers must be finite"),
        ({"model": "resnet"}, "unknown model 'resnet'"),
        ({"epochs": [1, 2]}, "a list is no value"),
        ({"epochs": None}, "epochs: must be"),
    ],
)
def test_configure_refuses_what_a_study_file_would(values: dict[str, Scalar], says: str) -> None:
    with pytest.raises(StudyFileError, match=says):
        configure(**values)


def test_the_settings_of_a_config_resolve_to_it() -> None:
    config = configure(model="lenet5", optimizer="sgd", schedule="onecycle", lr=1, dropout=0.1, flip=True, seed=7)
    assert resolve(config.settings, catalog=BUILT_IN, seed=config.seed) == config


def test_resolve_refuses_unknown_options() -> None:
    with pytest.raises(ConfigError, match="cnn takes no 'droput'") as caught:
        resolve({("model", "droput"): 0.1}, catalog=BUILT_IN, seed=0)
    assert "'dropout'" in caught.value.hint
    with pytest.raises(ConfigError, match=r"cnn: dropout must be .* 1\.5"):
        resolve({("model", "dropout"): 1.5}, catalog=BUILT_IN, seed=0)
    with pytest.raises(ComponentError, match="unknown model"):
        resolve({("trainer", "model"): "resnet"}, catalog=BUILT_IN, seed=0)


def test_config_is_frozen_to_its_options() -> None:
    config = configure()
    with pytest.raises(FrozenInstanceError):
        config.epochs = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.model.options["dropout"] = 0.1  # type: ignore[index]


def test_config_survives_pickle_and_json() -> None:
    config = configure(optimizer="sgd", lr=1, label_smoothing=0)
    assert pickle.loads(pickle.dumps(config)) == config
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))).digest == config.digest


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 11}, {"flip": True}, {"lr": 0.002}, {"model": "lenet5"}, {"schedule": "cosine"}]
)
def test_digest_differs_when_the_run_does(change: dict[str, Scalar]) -> None:
    assert configure(**change).digest != configure().digest  # type: ignore[arg-type]


def test_whole_number_and_float_are_one_run() -> None:
    assert configure(lr=1).digest == configure(lr=1.0).digest


def test_digest_depends_on_the_content_of_a_component_file_not_on_its_path() -> None:
    def made(path: str, sha256: str) -> TrainConfig:
        net = Component(
            kind="model", name="net", options=(Option(name="width", default=8),), file=ComponentFile(path=Path(path), sha256=sha256)
        )
        return resolve({("trainer", "model"): "net"}, catalog=BUILT_IN.extended([net]), seed=0)

    assert made("/a/net.py", "00").digest == made("/b/net.py", "00").digest
    assert made("/a/net.py", "00").digest != made("/a/net.py", "01").digest
    assert replace(made("/a/net.py", "00"), component_files=()).digest != made("/a/net.py", "00").digest
