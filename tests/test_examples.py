"""The example of every public name runs as it stands in the docstring."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import hpsearch
from hpsearch.training.factory import build_model
from hpsearch.training.saved_model import SavedModel, save_model
from tests.support.synthetic_data import write_study

EXEMPT = {"__version__"}
"""A string has no docstring of its own."""
NEED_A_SEARCH = {"figures", "trials"}
"""Their examples read a study whose search has ended."""
NAMES = sorted(set(hpsearch.__all__) - EXEMPT)


def examples_of(name: str) -> doctest.DocTest:
    text: Any = getattr(hpsearch, name).__doc__
    return doctest.DocTestParser().get_doctest(text, {}, name, None, None)


def run_example(name: str) -> None:
    said: list[str] = []
    results = doctest.DocTestRunner().run(examples_of(name), out=said.append)
    assert results.failed == 0, "".join(said)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the examples: the study file `stripes.toml` and the final model `final`."""
    write_study(tmp_path)
    config = hpsearch.configure(model="lenet5")
    model = SavedModel(
        module=build_model(config, (1, 28, 28), 2),
        config=config,
        classes=("across", "down"),
        input_shape=(1, 28, 28),
        mean=(0.3,),
        std=(0.2,),
    )
    save_model(tmp_path / "final" / "model.safetensors", model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    torch.set_num_threads(1)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_public_name_has_an_example(name: str) -> None:
    assert examples_of(name).examples


@pytest.mark.parametrize("name", sorted(set(NAMES) - NEED_A_SEARCH - {"run_study"}))
def test_example_runs(name: str, in_folder: Path) -> None:
    run_example(name)


@pytest.mark.slow
def test_example_of_a_search_runs(in_folder: Path) -> None:
    run_example("run_study")


@pytest.mark.parametrize("name", sorted(NEED_A_SEARCH))
def test_example_on_a_finished_search_runs(name: str, stripes_search: Path, in_folder: Path) -> None:
    shutil.copytree(stripes_search / "runs", in_folder / "runs")
    run_example(name)
