"""Rules of final training and the test score."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn import metrics as sklearn

from hpsearch.analysis.final_score import HeldOutReading
from hpsearch.analysis.metrics import Predictions, calibration_error
from hpsearch.config.best_config import BestConfig, read_best_config
from hpsearch.config.registration import component_hash
from hpsearch.errors import DataError, UsageError
from hpsearch.training.data.held_out import load_test_images
from hpsearch.training.saved_model import load_model
from hpsearch.workflows import final_training as final
from hpsearch.workflows.final_training import FinalTraining
from tests.support.synthetic_data import STRIPES, write_best_config

RELEASE = Path(__file__).parents[1] / "support" / "releases" / "0.1" / "best-final"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that wait for each other are slow on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def best(tmp_path: Path) -> BestConfig:
    return read_best_config(write_best_config(tmp_path))


@pytest.fixture
def hardly_trained(tmp_path: Path) -> BestConfig:
    """A config whose model makes mistakes."""
    return read_best_config(write_best_config(tmp_path, ("lr = 0.003", "lr = 1e-5"), ("epochs = 2", "epochs = 1")))


def _training(best: BestConfig, folder: Path, *, seeds: int = 1, force: bool = False) -> FinalTraining:
    return FinalTraining(best, folder, seeds=seeds, data=None, device="cpu", force=force)


def _finished(best: BestConfig, folder: Path, *, seeds: int = 1, force: bool = False) -> FinalTraining:
    training = _training(best, folder, seeds=seeds, force=force)
    for _ in training.train():
        pass
    return training


def _rows(folder: Path, part: str) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == part]


def test_the_model_learns_and_its_files_are_written(best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    score = _finished(best, folder).score()
    assert score["test_accuracy"] > 0.9
    files = {
        "model.safetensors",
        "config.toml",
        "metrics.json",
        "predictions.csv",
        "README.md",
        "mistakes-train.png",
        "mistakes-test.png",
        "report.html",
    }
    assert {path.name for path in folder.iterdir() if path.is_file()} == {*files, "stripes.py"}
    assert not list(folder.rglob("*checkpoint"))
    assert json.loads((folder / "metrics.json").read_text()) == score


def test_the_figures_are_those_that_scikit_learn_computes_of_the_predictions(hardly_trained: BestConfig, tmp_path: Path) -> None:
    score = _finished(hardly_trained, tmp_path / "final").score()
    for part in ("train", "test"):
        rows, found = _rows(tmp_path / "final", part), score["seeds"][0][part]
        truth, guess = [row["truth"] for row in rows], [row["guess"] for row in rows]
        names = [each["name"] for each in found["classes"]]
        assert [row["index"] for row in rows] == [str(index) for index in range(200)]
        assert found["accuracy"] == score[f"{part}_accuracy"] == sklearn.accuracy_score(truth, guess)
        assert found["confusion"] == sklearn.confusion_matrix(truth, guess, labels=names).tolist()
        columns = sklearn.precision_recall_fscore_support(truth, guess, labels=names, zero_division=0.0)
        for key, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
            assert [each[key] for each in found["classes"]] == values.tolist()
        again = Predictions(
            label=numpy.array([names.index(name) for name in truth]),
            predicted=numpy.array([names.index(name) for name in guess]),
            confidence=numpy.array([float(row["confidence"]) for row in rows]),
            classes=tuple(names),
        )
        assert calibration_error(again) == pytest.approx(found["calibration_error"], abs=1e-9)
    differences = {each["name"]: each["recall"] for each in score["train_less_test"]}
    for train, test in zip(*(score["seeds"][0][part]["classes"] for part in ("train", "test")), strict=True):
        assert differences[train["name"]] == train["recall"] - test["recall"]


def test_the_most_confident_mistakes_are_named_and_drawn(hardly_trained: BestConfig, tmp_path: Path) -> None:
    score = _finished(hardly_trained, tmp_path / "final").score()
    rows = _rows(tmp_path / "final", "test")
    wrong = sorted((row for row in rows if row["truth"] != row["guess"]), key=lambda row: -float(row["confidence"]))
    assert wrong, "a model that makes no mistakes shows nothing here"
    assert [each["index"] for each in score["mistakes"]["test"]] == [int(row["index"]) for row in wrong[: final.MISTAKES_SHOWN]]
    with Image.open(tmp_path / "final" / "mistakes-test.png") as picture:
        assert picture.format == "PNG"


def test_the_python_in_the_card_predicts_the_same_without_hpsearch(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "final").score()
    images = load_test_images("stripes").images
    save_file({"images": images}, tmp_path / "final" / "images.safetensors")
    (code,) = re.findall(r"```python\n(from collections.*?)```", (tmp_path / "final" / "README.md").read_text(), re.DOTALL)
    barrier = "import sys\nsys.modules['hpsearch'] = None  # its import fails\n"
    use = "\nfrom safetensors.torch import save_file\nsave_file({'found': predict(load_file('images.safetensors')['images'])}, 'found')\n"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", barrier + code + use], cwd=tmp_path / "final", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    difference = load_file(tmp_path / "final" / "found")["found"] - load_model(tmp_path / "final").probabilities(images)
    assert difference.abs().max() < 1e-6


def test_each_reading_of_the_test_split_is_counted(best: BestConfig, tmp_path: Path) -> None:
    training = _finished(best, tmp_path / "final")
    assert [training.score()["test_split_reads"] for _ in range(3)] == [1, 2, 3]
    assert [each["accuracy"] is None for each in training.score()["readings"]] == [False] * 4
    assert "test split read 4 times" in (tmp_path / "final" / "README.md").read_text()


def test_a_reading_counts_before_its_score_is_known(best: BestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = _finished(best, tmp_path / "final")

    def breaks(*_: object) -> None:
        raise OSError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(final, "load_model", breaks)
        with pytest.raises(OSError, match="broken"):
            training.score()
    assert json.loads((tmp_path / "final" / "metrics.json").read_text())["test_split_reads"] == 1
    assert _training(best, tmp_path / "final").finished is None
    assert _finished(best, tmp_path / "final").score()["test_split_reads"] == 2


def test_readings_are_told_to_the_study_before_and_after(best: BestConfig, tmp_path: Path) -> None:
    class HeldOutLog:
        study = "stripes"
        seen: Sequence[HeldOutReading] = ()

        def add_reading(self, reading: HeldOutReading) -> int:
            self.seen = (*self.seen, reading)
            return 7

    log = HeldOutLog()
    score = _finished(best, tmp_path / "final").score(log)
    assert [each.accuracy for each in log.seen] == [None, score["test_accuracy"]]
    assert len({each.id for each in log.seen}) == 1
    assert log.seen[0].folder == "final"
    assert "test split read once, 7 times for the study 'stripes'" in (tmp_path / "final" / "README.md").read_text()


def test_training_does_not_touch_the_test_images(best: BestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the test split was read")

    monkeypatch.setattr(final, "load_test_images", forbidden)
    training = _finished(best, tmp_path / "final")
    with pytest.raises(AssertionError, match="the test split was read"):
        training.score()


def test_training_that_is_interrupted_goes_on_to_the_same_weights(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "whole", seeds=2)
    broken = _training(best, tmp_path / "broken", seeds=2).train()
    for _ in range(3):  # into the second seed
        next(broken)
    broken.close()
    _finished(best, tmp_path / "broken", seeds=2)
    for name in ("model.safetensors", "seeds/2/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_several_seeds_give_several_models_and_an_interval_over_them(best: BestConfig, tmp_path: Path) -> None:
    score = _finished(best, tmp_path / "final", seeds=3).score()
    assert len({each["seed"] for each in score["seeds"]}) == 3
    for part in ("train", "test"):
        mean = sum(each[part]["accuracy"] for each in score["seeds"]) / 3
        assert score[f"{part}_accuracy"] == pytest.approx(mean)
        low, high = score[f"{part}_accuracy_interval"]
        assert low <= mean <= high
        low, high = score[f"{part}_loss_interval"]
        assert low <= score[f"{part}_loss"] <= high
    assert score["interval_over"] == "seeds"
    assert "over 3 seeds" in score["overfitting"]
    for name in ("README.md", "report.html"):
        assert "hpsearch train config.toml --final --seeds 3" in (tmp_path / "final" / name).read_text(), "as many models as there are"


def test_what_is_finished_is_not_done_again_but_for_more_seeds(best: BestConfig, tmp_path: Path) -> None:
    score = _finished(best, tmp_path / "final", seeds=2).score()
    stored: Mapping[str, Any] | None = _training(best, tmp_path / "final", seeds=2).finished
    assert stored == score
    assert _training(best, tmp_path / "final", seeds=1).finished is not None
    assert _training(best, tmp_path / "final", seeds=3).finished is None
    (tmp_path / "final" / "seeds" / "2" / "model.safetensors").unlink()
    assert _training(best, tmp_path / "final", seeds=2).finished is None


def test_a_folder_of_another_config_is_not_touched(best: BestConfig, tmp_path: Path) -> None:
    _finished(best, tmp_path / "final")
    before = {path: path.read_bytes() for path in (tmp_path / "final").rglob("*") if path.is_file()}
    other = replace(best, config=replace(best.config, epochs=3))
    with pytest.raises(UsageError, match="holds a final training of another config"):
        _training(other, tmp_path / "final")
    assert before == {path: path.read_bytes() for path in (tmp_path / "final").rglob("*") if path.is_file()}


def test_a_folder_with_other_files_is_not_touched(best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("my own")
    with pytest.raises(UsageError, match="holds something other than a final training"):
        _training(best, folder)
    with pytest.raises(UsageError, match=r"holds README\.md, which no final training wrote"):
        _training(best, folder, force=True)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    (folder / "README.md").rename(folder / "notes.md")
    _finished(best, folder, force=True)
    assert (folder / "notes.md").read_text() == "my own"


def test_force_begins_anew_and_removes_only_what_hpsearch_wrote(best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    _finished(best, folder, seeds=2).score()
    for name in ("notes.md", "seeds/mine.txt", "seeds/2/mine.txt"):
        (folder / name).write_text("my own")
    other = replace(best, config=replace(best.config, epochs=1))
    training = _training(other, folder, force=True)
    assert training.finished is None
    next(training.train())
    for name in ("notes.md", "seeds/mine.txt", "seeds/2/mine.txt"):
        assert (folder / name).read_text() == "my own"
    assert not (folder / "seeds" / "2" / "model.safetensors").exists()
    assert not (folder / "predictions.csv").exists()
    score = _finished(other, folder).score()
    assert score["test_split_reads"] == 2, "the readings of before were readings all the same"


def test_training_on_other_images_is_not_gone_on_with(best: BestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _finished(best, tmp_path / "final")
    load = final.load_training_images

    def others(*given: Any, **named: Any) -> Any:
        images = load(*given, **named)
        return replace(images, images=images.images + 1)

    monkeypatch.setattr(final, "load_training_images", others)
    with pytest.raises(UsageError, match="was trained on other images"):
        _finished(best, tmp_path / "final")


def test_a_config_whose_split_cannot_be_made_is_refused_before_anything_is_written(best: BestConfig, tmp_path: Path) -> None:
    nonsense = replace(best, data=best.data.model_copy(update={"validation_images": 70_000}))
    with pytest.raises(DataError, match=r"validation_images must be at least 1 and below the [\d,]+ training images, but got 70000"):
        _finished(nonsense, tmp_path / "final")
    assert not (tmp_path / "final").exists()


def test_a_saved_model_gives_the_same_predictions_as_the_trained_one(best: BestConfig, tmp_path: Path) -> None:
    score = _finished(best, tmp_path / "final").score()
    images = load_test_images("stripes")
    model = load_model(tmp_path / "final")
    assert model.evaluate(images.images, images.labels).accuracy == score["test_accuracy"]
    assert model.probabilities(images.images[:3]).sum(dim=1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("content", [b"", b"cut", b"\x80\x04pickle", b"\xff" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a model of hpsearch"):
        load_model(path)
    with pytest.raises(DataError, match="cannot read the model"):
        load_model(tmp_path / "nowhere")


OWN_MODEL = """
import torch
import hpsearch

@hpsearch.model("flat")
def flat(*, input_shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, classes))
"""


def test_two_component_files_of_one_base_name_lie_apart_in_the_folder(tmp_path: Path) -> None:
    path = write_best_config(
        tmp_path, ('name = "lenet5"', 'name = "flat"'), ('"stripes.py"', '"data/parts.py"'), ("epochs = 2", "epochs = 1")
    )
    for folder, source in (("data", STRIPES), ("models", OWN_MODEL)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "parts.py").write_text(source)
    sha256 = component_hash(tmp_path / "models" / "parts.py")
    with path.open("a") as file:
        file.write(f'\n[[component_files]]\npath = "models/parts.py"\nsha256 = "{sha256}"\n')
    folder = tmp_path / "final"
    _finished(read_best_config(path, trust=True), folder).score()
    for name in ("data", "models"):
        shutil.rmtree(tmp_path / name)
    assert load_model(folder).config.model.name == "flat"
    assert {file.path.relative_to(folder).as_posix() for file in read_best_config(folder / "config.toml").files} == {
        "data/parts.py",
        "models/parts.py",
    }
    assert "`models/parts.py` and `data/parts.py`" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 5},
        {"seeds": []},
        {"seeds": [{"seed": 1}]},
        {"finished": "yes"},
        {"readings": 7},
        {"readings": [{"id": 3}]},
        {"component_files": 3},
        {"component_files": [{"path": 3}]},
        {"test_accuracy": "high"},
        {"test_accuracy_interval": []},
    ],
    ids=str,
)
def test_a_record_of_another_structure_is_not_taken_for_one(change: dict[str, Any], best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    shutil.copytree(RELEASE, folder)
    record = json.loads((folder / "metrics.json").read_text()) | {"config": best.config.digest, "dataset": best.data.dataset}
    (folder / "metrics.json").write_text(json.dumps(record))
    assert _training(best, folder).finished is not None
    (folder / "metrics.json").write_text(json.dumps(record | change))
    with pytest.raises(UsageError, match="holds something other than a final training"):
        _training(best, folder)
    (folder / "metrics.json").write_text("[" * 20_000)
    with pytest.raises(UsageError, match="holds something other than a final training"):
        _training(best, folder)


def test_force_removes_no_file_outside_the_folder(best: BestConfig, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    shutil.copytree(RELEASE, folder)
    mine = tmp_path / "mine.py"
    mine.write_text("mine")
    files = [{"path": "../mine.py", "sha256": component_hash(mine)}, {"path": str(mine), "sha256": component_hash(mine)}]
    (folder / "metrics.json").write_text(json.dumps(json.loads((folder / "metrics.json").read_text()) | {"component_files": files}))
    (folder / "stripes.py").unlink()
    next(_training(best, folder, force=True).train())
    assert mine.read_text() == "mine"
