"""Every shipped study and best config runs on a part of the real data."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpsearch.config.best_config import read_best_config
from hpsearch.config.fairness import unfair_comparisons, wasted_settings
from hpsearch.config.study_file import load_study_file, shipped_study_files
from hpsearch.errors import StudyFileError
from hpsearch.storage.records import read_trials
from hpsearch.training.model_summary import summarize
from hpsearch.workflows.run import run_study

ROOT = Path(__file__).resolve().parents[2]
STUDIES = shipped_study_files()
CONFIGS = [path for path in sorted((ROOT / "studies").glob("*.toml")) if path not in STUDIES]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid_and_fair(path: Path) -> None:
    study = load_study_file(path)
    assert study.name == path.stem
    assert study.description.endswith("?")
    assert unfair_comparisons(study.space) == wasted_settings(study, study.budget) == ()


def test_every_shipped_file_is_a_study_or_a_best_config() -> None:
    assert [path.stem for path in CONFIGS] == ["reference-cnn", "reference-lenet5"]
    assert len(STUDIES) + len(CONFIGS) == len(list((ROOT / "studies").glob("*.toml")))


@pytest.mark.parametrize(("name", "parameters"), [("reference-cnn", 121_930), ("reference-lenet5", 61_706)])
def test_a_shipped_best_config_has_a_value_for_every_option(name: str, parameters: int) -> None:
    path = ROOT / "studies" / f"{name}.toml"
    best = read_best_config(path)
    assert tomllib.loads(best.to_toml()) == tomllib.loads(path.read_text())
    assert summarize(best.config, (1, 28, 28), 10).n_parameters == best.provenance["parameters"] == parameters
    assert (best.config.optimizer.name, best.data.dataset) == ("adam", "fashion-mnist")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_best_config_is_refused_as_a_study_file(path: Path) -> None:
    with pytest.raises(StudyFileError, match=rf"{path.name}: is a best config") as caught:
        load_study_file(path)
    assert f"hpsearch train {os.path.relpath(path)}" in caught.value.hint


def slice_of(path: Path, folder: Path) -> Path:
    """Write the study with few images, few epochs and two trials into a new folder."""
    text = path.read_text()
    text = re.sub(r"validation_images = [\d_]+", "validation_images = 500", text)
    text = re.sub(r"\ntrain_images.*", "", text)
    text = text.replace("validation_images = 500", "validation_images = 500\ntrain_images = 1000")
    text = re.sub(r"trials( *)= \d+", r"trials\1= 2", text, count=1)
    text = re.sub(r"epochs( *)= \{ int = \[\d+, \d+\] \}", r"epochs\1= { int = [1, 2] }", text)
    text = re.sub(r"\nepochs( *)= \d+", r"\nepochs\1= 2", text)
    for component in path.parent.glob("*.py"):
        shutil.copy(component, folder)
    (folder / path.name).write_text(text)
    return folder / path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_runs(path: Path, tmp_path: Path) -> None:
    study = run_study(slice_of(path, tmp_path), runs=tmp_path / "runs", workers=1)
    trials = read_trials(study)
    assert [trial.state for trial in trials] == ["complete", "complete"]
    assert max(trial.value or 0.0 for trial in trials) > 0.2
    predictions = sorted((tmp_path / "runs").glob("*/trials/*/predictions.npz"))
    assert len(predictions) == 2
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
