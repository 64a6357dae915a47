"""Rules of a whole search: create, continue, refuse, change; with a fake trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from hpsearch.config.study_file import StudyFile, parse_study_file
from hpsearch.errors import NotComparableError, StudyNotFoundError
from hpsearch.search.study_monitor import StudyMonitor
from hpsearch.search.worker_pool import WorkerPool
from hpsearch.storage.records import StudyKey, read_study, write_epochs
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.resume import differing
from hpsearch.workflows.run import find_study_file, prepare_search
from hpsearch.workflows.supervisor import Search
from tests.support.small_study import NO_IMAGES, ROOT, hpsearch


def test_one_command_searches_and_ends_with_a_leaderboard(finished_search: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished_search
    assert done.returncode == 0, done.stderr
    assert "small: 8 trials (8 complete)" in done.stdout
    assert "cnn" in done.stdout
    assert "lenet5" in done.stdout
    assert "Gain over the baseline (trial 0)" in done.stdout
    assert "Next: hpsearch show small" in done.stdout
    assert done.stderr.splitlines()[0].startswith("small: cnn and lenet5 on no_images")
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/runs/hpsearch.db")
    assert len(study.trials) == 8
    assert study.metric_names == ["val_accuracy"]


def test_the_same_command_again_continues(searched_folder: Path) -> None:
    folder = searched_folder
    again = hpsearch(folder, "run", "small", "--trials", "10", "--json")
    assert "Continues: the study has 8 trials already." in again.stderr
    board = json.loads(again.stdout)
    assert board["trials"]["complete"] == 10
    assert board["study"] == "small"


def test_a_signal_requeues_trials_and_the_same_command_continues(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.support.fake_trainer", "run", "small.toml", "--workers", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_EPOCH_SECONDS": "0.5"}
    search = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    database = folder / "runs" / "hpsearch.db"
    while time.monotonic() < deadline:
        if database.exists() and list(folder.glob("runs/small/trials/*/checkpoint")):
            break
        time.sleep(0.1)
    search.send_signal(signal.SIGINT)
    _, said = search.communicate(timeout=30)
    assert search.returncode == 130, said
    assert "Continue with the same command." in said
    states = {trial.state.name for trial in optuna.load_study(study_name="small", storage=f"sqlite:///{database}").trials}
    assert "RUNNING" not in states
    assert "WAITING" in states
    done = hpsearch(folder, "run", "small.toml")
    assert done.returncode == 0
    assert "8 complete" in done.stdout


def test_try_trains_a_trial_of_the_study(searched_folder: Path) -> None:
    folder = searched_folder
    tried = hpsearch(folder, "try", "small", "0", "sgd.lr=0.2", "--json")
    assert tried.returncode == 0, tried.stderr
    trial = json.loads(tried.stdout)
    assert (trial["trial"], trial["state"], trial["origin"]) == (8, "complete", "by hand")
    assert trial["params"] == {"model": "lenet5", "optimizer": "sgd", "epochs": 3, "sgd.lr": 0.2}


def test_try_refuses_a_point_outside_the_space(searched_folder: Path) -> None:
    folder = searched_folder
    tried = hpsearch(folder, "try", "small", "sgd.lr=7", "optimizer=sgd")
    assert tried.returncode == 2
    assert "sgd.lr must lie in its range (0.001 to 1, log), but is 7" in tried.stderr
    assert len(optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/runs/hpsearch.db").trials) == 8


def test_rm_deletes_trials_and_folder(searched_folder: Path) -> None:
    folder = searched_folder
    assert (folder / "runs" / "small").is_dir()
    assert hpsearch(folder, "rm", "small", "--yes").returncode == 0
    assert not (folder / "runs" / "small").exists()
    assert "no study 'small'" in hpsearch(folder, "show", "small").stderr


def test_a_change_that_makes_trials_incomparable_is_refused_with_the_difference(searched: Callable[..., Search]) -> None:
    searched()
    with pytest.raises(NotComparableError) as caught:
        searched(("epochs = { int = [2, 4] }", "epochs = { int = [2, 5] }"), ("seed = 3", "seed = 4"))
    assert "seed: 3 → 4" in caught.value.message
    assert "space.epochs.int: [2, 4] → [2, 5]" in caught.value.message
    assert 'name = "small-2"' in caught.value.hint


def test_a_changed_component_file_is_refused(
    searched: Callable[..., Search], study_file: Callable[..., StudyFile], workspace: Workspace
) -> None:
    search = searched()
    trial = search.study.ask()
    write_epochs(trial, [])
    source = search.file.component_files[0].path
    source.write_text(source.read_text() + "\n# changed\n")
    changed = find_study_file(str(search.file.path), workspace)
    with pytest.raises(NotComparableError, match=r"component files\.no_images\.py"):
        prepare_search(changed, workspace)


@pytest.fixture
def two_of_one_name(study_file: Callable[..., StudyFile], tmp_path: Path) -> tuple[StudyFile, Path, Path]:
    """A study file with two component files of the same base name, and both files."""
    first, last = tmp_path / "models" / "parts.py", tmp_path / "data" / "parts.py"
    for path, text in ((first, "import hpsearch\nhpsearch.model('own')(lambda **_: None)\n"), (last, NO_IMAGES)):
        path.parent.mkdir()
        path.write_text(text)
    return study_file(('use = ["no_images.py"]', 'use = ["models/parts.py", "data/parts.py"]')), first, last


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("stored_by", ["path", "base name"])
def test_component_files_of_one_base_name_are_told_apart(
    which: int, stored_by: str, two_of_one_name: tuple[StudyFile, Path, Path], workspace: Workspace
) -> None:
    file = two_of_one_name[0]
    search = prepare_search(file, workspace)
    write_epochs(search.study.ask(), [])
    if stored_by == "base name":  # as version 0.1 did: only the hash of the last one
        table = read_study(search.study).comparable
        search.study.set_user_attr(StudyKey.COMPARABLE, {**table, "component files": {"parts.py": file.component_files[1].sha256}})
    assert prepare_search(file, workspace).changed == ()
    assert list(read_study(search.study).comparable["component files"]) == ["models/parts.py", "data/parts.py"]
    with two_of_one_name[which].open("a") as opened:
        opened.write("# changed\n")
    with pytest.raises(NotComparableError, match=rf"component files\.{'models' if which == 1 else 'data'}/parts\.py: "):
        prepare_search(parse_study_file(file.text, path=file.path), workspace)


def test_changes_of_sampler_pruner_and_budget_are_allowed_and_reported(searched: Callable[..., Search]) -> None:
    searched()
    again = searched(("trials = 8", "trials = 9"), ("startup_trials = 4", "startup_trials = 6"))
    assert set(again.changed) == {"budget.trials: 8 → 9", "sampler.startup_trials: 4 → 6"}


def test_the_order_of_keys_is_no_change(searched: Callable[..., Search]) -> None:
    searched()
    again = searched(('choices = ["cnn", "lenet5"]', 'choices = ["lenet5", "cnn"]'))
    assert again.changed == ()


def test_a_baseline_is_queued_once(searched: Callable[..., Search]) -> None:
    searched()
    again = searched()
    assert len(again.study.trials) == 1
    more = searched(more='\n[[baseline]]\nmodel = "cnn"\nepochs = 2\n')
    assert len(more.study.trials) == 2


def test_a_study_of_another_program_is_not_changed(workspace: Workspace, searched: Callable[..., Search]) -> None:
    store = workspace.open(create=True)
    stranger = optuna.create_study(study_name="small", storage=store.storage, direction="minimize")
    stranger.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyNotFoundError, match="was not made by hpsearch"):
        searched()
    assert len(stranger.trials) == 1


def test_differences_are_listed_key_by_key() -> None:
    assert differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 → 3", "d: nothing → 4"]


def test_a_password_in_the_url_shows_in_no_process_list(searched: Callable[..., Search]) -> None:
    search = searched()
    pool = search._worker_pool("run", 0.0, None, StudyMonitor(search.store, search.study))
    assert isinstance(pool, WorkerPool)
    assert search.store.url not in " ".join(pool.command("worker", 3))
    assert pool.environment["OPTUNA_STORAGE"] == search.store.url


def test_a_warm_start_from_a_study_that_is_missing_writes_nothing(searched: Callable[..., Search], workspace: Workspace) -> None:
    with pytest.raises(StudyNotFoundError, match="no study 'nope'"):
        searched(more='\n[warm_start]\nfrom = ["nope"]\n')
    assert workspace.open().study_names() == []


def test_a_component_file_may_change_before_the_first_epoch(
    searched: Callable[..., Search], study_file: Callable[..., StudyFile], workspace: Workspace
) -> None:
    search = searched()
    trial = search.study.ask()
    search.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    source = search.file.component_files[0].path
    source.write_text(source.read_text() + "\n# fixed\n")
    again = prepare_search(find_study_file(str(search.file.path), workspace), workspace)
    assert len(again.changed) == 1
    assert again.changed[0].startswith("component files.no_images.py: ")


def test_a_budget_that_is_spent_starts_no_worker(searched_folder: Path) -> None:
    again = hpsearch(searched_folder, "run", "small.toml")
    assert again.returncode == 0
    assert "The budget of 8 trials is spent. --trials allows more." in again.stderr
    assert "--trials 16" in again.stdout


def test_an_unknown_device_is_refused_before_anything_is_written(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = hpsearch(folder, "run", "small.toml", "--device", "gpu")
    assert done.returncode == 2
    assert "the device must be auto, cpu, cuda or cuda:N, but got 'gpu'" in done.stderr
    assert sorted(folder.rglob("*")) == before


def test_the_message_of_a_worker_is_read_without_colours(folder: Path) -> None:
    (folder / "no_images.py").write_text(NO_IMAGES + "\nimport os, sys\nif 'worker' in sys.argv: raise ValueError('only in a worker')\n")
    done = hpsearch(folder, "run", "small.toml", FORCE_COLOR="1")
    assert done.returncode == 2
    assert "does not import: ValueError: only in a worker" in done.stderr


def test_a_worker_refuses_a_changed_study_file(folder: Path) -> None:
    assert hpsearch(folder, "run", "small.toml", "--trials", "2").returncode == 0
    changed = folder / "small.toml"
    changed.write_text(changed.read_text().replace("filters1 = { int = [8, 64], step = 8 }", "filters1 = { int = [8, 32], step = 8 }"))
    done = hpsearch(folder, "worker", "small.toml", "--trials", "4")
    assert done.returncode == 2
    assert "space.cnn.filters1" in done.stderr
    assert "Undo the change" in done.stderr
    assert hpsearch(folder, "worker", "small", "--trials", "4").returncode == 0
