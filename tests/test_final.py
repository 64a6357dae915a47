"""Rules of final training and the test score."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.best_config import BestConfig
from hpsearch.errors import DataError, UsageError
from hpsearch.extensions import load_component_file
from hpsearch.final import FinalTraining
from hpsearch.sections import Data
from hpsearch.space_table import configure
from hpsearch.training.saved import load_model

STRIPES = '''
import torch
import hpsearch

@hpsearch.dataset("stripes")
def stripes(root, *, train):
    """Horizontal and vertical stripes under noise."""
    draws = torch.Generator().manual_seed(1 if train else 2)
    labels = torch.arange(200) % 2
    images = torch.randint(0, 80, (200, 1, 28, 28), generator=draws)
    images[labels == 0, :, ::4, :] += 120
    images[labels == 1, :, :, ::4] += 120
    return images.to(torch.uint8), labels, ("across", "down")
'''


@pytest.fixture
def best(tmp_path: Path) -> BestConfig:
    source = tmp_path / "stripes.py"
    source.write_text(STRIPES)
    load_component_file(source)
    config = configure(model="lenet5", optimizer="adam", lr=0.003, epochs=2, batch_size=32, seed=3)
    return BestConfig(config=config, data=Data(dataset="stripes", validation_images=50), split_seed=1, provenance={})


def _finished(best: BestConfig, folder: Path, seeds: int = 1) -> FinalTraining:
    training = FinalTraining(best, folder, seeds=seeds, data=None, device="cpu")
    for _ in training.train():
        pass
    return training


def test_the_model_learns_and_its_files_are_written(best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    score = _finished(best, folder).score()
    assert score.test_accuracy > 0.9
    assert {path.name for path in folder.iterdir()} >= {
        "model.safetensors",
        "config.toml",
        "metrics.json",
        "predictions.csv",
        "README.md",
        "report.html",
    }
    rows = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())))
    assert len(rows) == 400
    right = [row["truth"] == row["guess"] for row in rows if row["split"] == "test"]
    assert sum(right) / len(right) == score.test_accuracy
    assert not list(folder.rglob("checkpoint*"))


def test_each_reading_of_the_test_split_is_counted(best: BestConfig, tmp_path: Path) -> None:
    training = _finished(best, tmp_path / "final")
    assert [training.score().reads for _ in range(3)] == [1, 2, 3]
    assert json.loads((tmp_path / "final" / "metrics.json").read_text())["test_split_reads"] == 3
    assert "Test split read 3 times" in (tmp_path / "final" / "README.md").read_text()


def test_training_that_is_interrupted_goes_on_to_the_same_weights(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "whole")
    broken = FinalTraining(best, tmp_path / "broken", seeds=1, data=None, device="cpu").train()
    next(broken)
    broken.close()
    _finished(best, tmp_path / "broken")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "broken" / "model.safetensors").read_bytes()


def test_several_seeds_give_several_models_and_an_interval_over_them(best: BestConfig, tmp_path: Path) -> None:
    score = _finished(best, tmp_path / "final", seeds=3).score()
    assert len({each.seed for each in score.scores}) == 3
    mean = sum(each.test.accuracy for each in score.scores) / 3
    assert score.test_accuracy == pytest.approx(mean)
    assert score.interval[0] <= mean <= score.interval[1]


def test_a_folder_of_another_config_is_not_touched(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "final")
    other = replace(best, config=replace(best.config, epochs=3))
    with pytest.raises(UsageError, match="holds models of another config"):
        FinalTraining(other, tmp_path / "final", seeds=1, data=None, device="cpu")


def test_a_saved_model_gives_the_same_predictions_as_the_trained_one(best: BestConfig, tmp_path: Path) -> None:
    score = _finished(best, tmp_path / "final").score()
    from hpsearch.training.test_split import load_test_images

    images = load_test_images("stripes")
    model = load_model(tmp_path / "final")
    assert model.evaluate(images.images, images.labels).accuracy == score.test_accuracy
    assert model.probabilities(images.images[:3]).sum(dim=1).tolist() == pytest.approx([1.0] * 3)


def test_the_weights_are_read_without_hpsearch(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "final")
    code = "import sys; from safetensors.torch import load_file; w = load_file('final/model.safetensors'); assert 'hpsearch' not in sys.modules; print(sum(t.numel() for t in w.values()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 61_706 - 85 * 8  # two classes, not ten


@pytest.mark.parametrize("content", [b"", b"cut", b"\x80\x04pickle", b"\xff" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no model of hpsearch"):
        load_model(path)
    with pytest.raises(DataError, match="cannot read the model"):
        load_model(tmp_path / "nowhere")
