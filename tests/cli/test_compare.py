"""Rules of comparing two models on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpsearch.best_config import BestConfig
from hpsearch.sections import Data
from hpsearch.space_table import configure
from tests.small_study import hpsearch


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
    assert "These images do not tell them apart." in said.stdout
    data = json.loads(hpsearch(tmp_path, "compare", "one", "two", "--json").stdout)
    assert data["settings"] == {"epochs": [3, 4]}
    assert data["recall"] == {"a": [1.0, 0.5], "b": [1.0, 0.75]}
    assert (data["only_first_right"], data["only_second_right"], data["p_value"]) == (2, 0, 0.5)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("nothing", "'nothing' is neither a trial nor the folder of a final model"),
        ("other", "not measured on the same images"),
        ("damaged", "is damaged"),
        ("study/3", "there is no database"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, second: str, words: str) -> None:
    _final(tmp_path / "one", "aabbbb")
    _final(tmp_path / "other", "aabbbb", truths="bbaaaa")
    _final(tmp_path / "damaged", "aabbbz")
    said = hpsearch(tmp_path, "compare", "one", second)
    assert (said.returncode, said.stdout) == (2, "")
    assert words in said.stderr
    assert "Traceback" not in said.stderr
