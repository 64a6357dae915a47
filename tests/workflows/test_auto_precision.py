"""What the precision `auto` means: it is fixed when a study begins, for all its trials and follow-up studies."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpsearch.config.components import BUILT_IN
from hpsearch.config.space_parser import configure, read_space
from hpsearch.config.study_file import StudyFile, load_study_file
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError, HpsearchError, StorageError
from hpsearch.search.worker import Worker
from hpsearch.storage.records import StudyKey, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows import precision
from hpsearch.workflows.precision import choose_precision, possible_precisions, show_precisions, slow_precision, slow_search
from hpsearch.workflows.repeats import prepare_explanation, prepare_finalists
from hpsearch.workflows.run import find_study_file
from hpsearch.workflows.supervisor import Search
from tests.support.small_study import hpsearch
from tests.support.synthetic_data import command, write_best_config, write_study

FAST = {"cnn": ("bfloat16",), "lenet5": ("float32",)}
SLOW = {"cnn": ("float32",), "lenet5": ("float32",)}
SECOND = ('name = "small"', 'name = "second"')


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Gives this process another processor: with instructions for bfloat16, or without."""

    def give(has_instructions: bool) -> None:
        monkeypatch.setattr(precision, "bfloat16_instructions", lambda: "avx512_bf16" if has_instructions else "")

    monkeypatch.setattr(precision, "DEVICES", Path("/nowhere"))
    return give


def trained_in(search: Search) -> set[tuple[str | None, str]]:
    return {(trial.model, trial.config.precision) for trial in read_trials(search.study) if trial.config is not None and trial.epochs}


def test_a_study_keeps_the_precision_of_its_first_machine(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], processor: Callable[[bool], None], workspace: Workspace
) -> None:
    processor(True)
    first = searched(("trials = 8", "trials = 4"))
    make_worker(first).work()
    processor(False)
    second = searched()
    assert [possible_precisions(search.file) for search in (first, second)] == [FAST, FAST]
    assert possible_precisions(find_study_file("small", workspace)) == FAST
    make_worker(second).work()
    assert len(read_trials(second.study)) == 8
    assert trained_in(second) == {("cnn", "bfloat16"), ("lenet5", "float32")}
    finalists = prepare_finalists(find_study_file("small", workspace), workspace, top=2, seeds=2)
    explanation = prepare_explanation(load_study_file(second.file.path), workspace, seeds=2)
    assert [possible_precisions(search.file) for search in (finalists, explanation)] == [FAST, FAST]
    assert possible_precisions(find_study_file("small.explain", workspace)) == FAST
    make_worker(finalists).work()
    assert ("cnn", "bfloat16") in trained_in(finalists)


def test_a_study_that_begins_without_the_instructions_stays_float32(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], processor: Callable[[bool], None]
) -> None:
    processor(False)
    searched(("trials = 8", "trials = 4"))
    processor(True)
    again = searched()
    make_worker(again).work()
    assert possible_precisions(again.file) == SLOW
    assert trained_in(again) == {("cnn", "float32"), ("lenet5", "float32")}


def change_database(workspace: Workspace, statement: str, *values: str) -> None:
    """Change the stored attributes by SQL: as another version would have left them, or as damage."""
    with closing(sqlite3.connect(workspace.runs.parent / "study.db")) as database, database:
        assert database.execute(statement, values).rowcount


def test_a_study_of_version_0_1_stays_float32(
    searched: Callable[..., Search], processor: Callable[[bool], None], workspace: Workspace
) -> None:
    processor(True)
    searched()
    change_database(workspace, "DELETE FROM study_user_attributes WHERE key = ?", StudyKey.AUTO_PRECISION)
    again = searched()
    assert possible_precisions(again.file) == SLOW
    assert StudyKey.AUTO_PRECISION not in again.study.user_attrs


@pytest.mark.parametrize("value", ['{"cnn": "float16"}', '{"cnn": "auto"}', '{"cnn": ["x"]}', '[["cnn", "bfloat16"]]', '"x"', "null"])
def test_a_damaged_record_is_named(searched: Callable[..., Search], workspace: Workspace, value: str) -> None:
    searched()
    change_database(workspace, "UPDATE study_user_attributes SET value_json = ? WHERE key = ?", value, StudyKey.AUTO_PRECISION)
    with pytest.raises(StorageError, match=r"study 'small' .*hpsearch:auto_precision is "):
        find_study_file("small", workspace)


@pytest.mark.parametrize("value", ["float16", "auto", 5, None, ["x"]])
def test_a_damaged_config_is_no_config(value: object) -> None:
    stored = configure().to_dict()
    with pytest.raises(ConfigError, match="the stored config is damaged"):
        TrainConfig.from_dict({**stored, "precision": value})


@pytest.mark.parametrize(
    "line", ["", 'precision = "auto"', 'precision = "bfloat16"', 'precision = { choices = ["bfloat16", "auto"] }'], ids=repr
)
def test_trials_of_another_precision_serve_as_a_warm_start(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], processor: Callable[[bool], None], line: str
) -> None:
    processor(False)
    make_worker(searched()).work()
    processor(True)
    second = searched(SECOND, ("[space]\n", f"[space]\n{line}\n"), more='\n[warm_start]\nfrom = ["small"]\n')
    assert "8 of the 8 finished trials of 'small' fit the space and were copied" in second.changed
    make_worker(second).work()
    assert trained_in(second) >= {("cnn", "float32"), ("cnn", "bfloat16"), ("lenet5", "float32")}
    # The copies keep their format when they are repeated, and a processor without the instructions says so.
    finalists = prepare_finalists(second.file, second.workspace, top=8, seeds=2)
    make_worker(finalists).work()
    assert {precision for _, precision in trained_in(finalists)} == {"float32", "bfloat16"}
    assert not slow_search(finalists)
    processor(False)
    assert "many times slower" in slow_search(finalists)


@pytest.mark.parametrize(
    ("line", "formats", "text"),
    [
        ('precision = "bfloat16"', {"cnn": ("bfloat16",), "lenet5": ("bfloat16",)}, "bfloat16"),
        ('precision = "float32"', SLOW, "float32"),
        ('precision = "auto"', FAST, "cnn in bfloat16, lenet5 in float32"),
        (
            'precision = { choices = ["float32", "auto"] }',
            {"cnn": ("float32", "bfloat16"), "lenet5": ("float32",)},
            "cnn in float32 or bfloat16, lenet5 in float32",
        ),
    ],
)
def test_a_study_file_can_choose(
    study_file: Callable[..., StudyFile], line: str, formats: dict[str, tuple[str, ...]], text: str, processor: Callable[[bool], None]
) -> None:
    processor(True)
    file = study_file(("[space]\n", f"[space]\n{line}\n")).with_precision(choose_precision("auto"))
    assert possible_precisions(file) == formats
    assert show_precisions(formats) == text
    config = (
        file.space.config(file.space.complete({"model": "cnn", "optimizer": "adam", "epochs": 2, "filters1": 8, "lr": 0.01}), seed=0)
        if "choices" not in line
        else None
    )
    assert config is None or (config.precision,) == formats["cnn"]


@pytest.mark.parametrize(
    ("tables", "formats"),
    [
        ({"cnn": {"precision": "bfloat16"}}, {"cnn": ("bfloat16",), "lenet5": ("float32",)}),
        ({"lenet5": {"precision": "bfloat16"}}, {"cnn": ("bfloat16",), "lenet5": ("bfloat16",)}),
        ({"lenet5": {"precision": "float32"}}, FAST),
        ({"sgd": {"precision": "float32"}}, {"cnn": ("float32", "bfloat16"), "lenet5": ("float32",)}),
    ],
)
def test_a_format_may_depend_on_other_values(
    study_file: Callable[..., StudyFile], tables: dict[str, Any], formats: dict[str, tuple[str, ...]], processor: Callable[[bool], None]
) -> None:
    processor(True)
    space = {"model": {"choices": ["cnn", "lenet5"]}, "optimizer": {"choices": ["sgd", "adam"]}, **tables}
    file = replace(study_file(), space=read_space(space, catalog=BUILT_IN)).with_precision(choose_precision("cpu"))
    assert possible_precisions(file) == formats


def test_a_baseline_need_not_name_the_format(study_file: Callable[..., StudyFile]) -> None:
    file = study_file(("[space]\n", '[space]\nprecision = { choices = ["float32", "bfloat16"] }\n'))
    assert [values["precision"] for values in file.baselines] == ["float32"]


@pytest.mark.parametrize("gpu", ["nvidia0", "nvidia12", "kfd", "dxg"])
def test_on_a_gpu_auto_is_float32_and_nothing_is_slow(
    processor: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: str
) -> None:
    (tmp_path / "nvidia-uvm").touch()
    processor(True)
    monkeypatch.setattr(precision, "DEVICES", tmp_path)
    assert choose_precision("cpu") == choose_precision("auto") == {"cnn": "bfloat16"}
    assert choose_precision("cuda") == choose_precision("cuda:1") == {}
    processor(False)
    monkeypatch.setattr(precision, "DEVICES", tmp_path)
    assert "many times slower" in slow_precision(["float32", "bfloat16"], "auto")
    assert slow_precision(["float32"], "cpu") == slow_precision(["bfloat16"], "cuda:0") == ""
    (tmp_path / gpu).touch()
    assert choose_precision("auto") == {}
    assert slow_precision(["bfloat16"], "auto") == ""


def test_a_value_that_is_no_precision_is_refused(study_file: Callable[..., StudyFile]) -> None:
    with pytest.raises(HpsearchError, match=r"space\.precision: must be one of 'auto', 'float32', 'bfloat16', but got 'float16'"):
        study_file(("[space]\n", '[space]\nprecision = "float16"\n'))


IS_SLOW = bool(slow_precision(["bfloat16"], "auto"))
"""Whether this machine is one that must warn. The commands run in processes of their own, where nothing can be replaced."""
WARNING = "warning: this processor has no instructions for bfloat16"


@pytest.mark.slow
def test_who_trains_slowly_says_so_first(folder: Path) -> None:
    study = folder / "small.toml"
    study.write_text(study.read_text().replace("[space]\n", '[space]\nprecision = "bfloat16"\n'))
    checked = hpsearch(folder, "check", "small.toml")
    assert "Precision of a study that begins on this machine: bfloat16\n" in checked.stdout
    assert json.loads(hpsearch(folder, "check", "small.toml", "--json").stdout)["precision"] == {model: ["bfloat16"] for model in FAST}
    done = hpsearch(folder, "run", "small.toml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert (WARNING in done.stderr.partition("trial 0")[0]) == IS_SLOW
    assert "Precision: bfloat16\n" in hpsearch(folder, "show", "small").stdout
    (log,) = (folder / "runs/small/logs").iterdir()
    assert ("WARNING this processor has no instructions for bfloat16" in log.read_text()) == IS_SLOW
    found = {each["what"]: each["says"] for each in json.loads(hpsearch(folder, "doctor", "--json").stdout)}
    assert ("has no instructions for bfloat16" in found["precision"]) == (not precision.bfloat16_instructions())


@pytest.mark.slow
def test_a_config_that_trains_slowly_says_so_first(tmp_path: Path) -> None:
    write_best_config(tmp_path, ("batch_size = 32", 'batch_size = 32\nprecision = "bfloat16"'))
    done = command(tmp_path, "train", "best.toml")
    assert done.returncode == 0, done.stderr
    assert (WARNING in done.stderr) == IS_SLOW


@pytest.mark.slow
def test_two_workers_in_bfloat16_are_reproduced_to_the_bit(tmp_path: Path) -> None:
    write_study(tmp_path)
    study = tmp_path / "stripes.toml"
    text = study.read_text().replace('model = "lenet5"\n', 'model = "cnn"\nprecision = "bfloat16"\n', 1).replace("trials = 8", "trials = 3")
    text = text.replace("batch_size = 32\n", "batch_size = 32\nfilters1 = 8\nfilters2 = 8\ndense = 16\n", 1)
    study.write_text(text.replace('[[baseline]]\nmodel = "lenet5"', '[[baseline]]\nmodel = "cnn"'))
    done = command(tmp_path, "run", "stripes.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    for number in (0, 2):
        repeated = command(tmp_path, "reproduce", "stripes", str(number))
        assert "is identical" in repeated.stdout, repeated.stdout + repeated.stderr
