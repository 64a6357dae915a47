"""Rules of comparing two models on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpsearch.config.best_config import BestConfig
from hpsearch.config.sections import Data
from hpsearch.config.space_parser import configure
from hpsearch.storage.workspace import Workspace
from tests.support.small_study import hpsearch
from tests.support.synthetic_data import command


def _final(folder: Path, guesses: str, truths: str = "aabbbb", **settings: object) -> Path:
    folder.mkdir()
    best = BestConfig(config=configure(model="lenet5", **settings), data=Data(), split_seed=1, provenance={})  # type: ignore[arg-type]
    (folder / "config.toml").write_text(best.to_toml())
    rows = [f"test,{index},{truth},{guess},0.9" for index, (truth, guess) in enumerate(zip(truths, guesses, strict=True))]
    (folder / "predictions.csv").write_text("\n".join(["split,index,truth,guess,confidence", "train,0,a,b,0.5", *rows]) + "\n")
    return folder


def test_settings_accuracy_and_recall_stand_side_by_side(tmp_path: Path) -> None:
    _final(tmp_path / "one", "aabbbb", epochs=3)
    _final(tmp_path / "two", "abbbba", epochs=4)
    said = hpsearch(tmp_path, "compare", "one", "two")
    assert said.returncode == 0, said.stderr
    assert "epochs" in said.stdout
    assert "Accuracy 100.00 % and 66.67 % of 6 test images of fashion-mnist." in said.stdout
    assert (
        said.stdout.splitlines()[-1]
        == "No difference shown: one is ahead of two by 33.33 ± 38.74 points, which may well be chance (p = 0.5)."
    )
    data = json.loads(hpsearch(tmp_path, "compare", "one", "two", "--json").stdout)
    assert data["settings"] == {"epochs": [3, 4]}
    assert data["recall"] == {"a": [1.0, 0.5], "b": [1.0, 0.75]}
    assert (data["only_first_right"], data["only_second_right"], data["p_value"]) == (2, 0, 0.5)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("nothing", "'nothing' is neither a trial, nor a best config, nor the folder of a final model"),
        ("nothing.toml", "cannot read the best config 'nothing.toml'"),
        ("one", "one is compared with itself"),
        ("empty", "'empty' holds no predictions.csv: it is no final model, or not finished"),
        ("other", "not measured on the same images"),
        ("damaged", "is damaged: KeyError: 'truth'"),
        ("cut", "is damaged: it has no test images"),
        ("best.toml", "one is measured on test images of fashion-mnist, but best.toml on validation images of fashion-mnist"),
        ("study/3", "there is no database"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, second: str, words: str) -> None:
    _final(tmp_path / "one", "aabbbb")
    (tmp_path / "empty").mkdir()
    (tmp_path / "best.toml").write_text((tmp_path / "one" / "config.toml").read_text())
    _final(tmp_path / "other", "aabbbb", truths="bbaaaa")
    for name, content in {"damaged": "split,index\ntest,0\n", "cut": "split,index,truth,guess,confidence\n"}.items():
        (_final(tmp_path / name, "aabbbb") / "predictions.csv").write_text(content)
    said = hpsearch(tmp_path, "compare", "one", second)
    assert (said.returncode, said.stdout) == (2, "")
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_a_config_is_trained_first_and_its_epochs_are_told(tmp_path: Path) -> None:
    for name, epochs in (("short", 1), ("long", 2)):
        config = configure(model="lenet5", epochs=epochs)
        data = Data(validation_images=100, train_images=200)
        (tmp_path / f"{name}.json").write_text(BestConfig(config=config, data=data, split_seed=1, provenance={}).to_json())
    done = command(tmp_path, "compare", "short.json", "long.json")
    assert done.returncode == 0, done.stderr
    assert "long.json is trained first: lenet5, 2 epochs." in done.stderr
    assert [done.stderr.count(f"{name}.json, epoch ") for name in ("short", "long")] == [1, 2]
    assert done.stdout.splitlines()[1].split() == ["epochs", "1", "2"]


def test_a_config_of_a_stored_trial_is_not_trained_again(stripes: Workspace) -> None:
    folder = stripes.runs.parent
    assert command(folder, "export", "stripes", "--trial", "0", "-o", "stored.toml").returncode == 0
    done = command(folder, "compare", "stored.toml", "stripes/5")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "stored.toml was trained as stripes/0. The predictions of that trial are compared.\n"
