"""Rules of the commands finalists and explain, on a finished search of a formula."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpsearch.errors import UsageError
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeats import prepare_explanation, prepare_finalists
from hpsearch.workflows.supervisor import Search
from tests.support.small_study import ROOT, hpsearch


def follow_up(folder: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/runs/hpsearch.db").trials


def runs_of(trials: list[optuna.trial.FrozenTrial]) -> list[tuple[Any, Any]]:
    return sorted((trial.user_attrs["candidate"], trial.user_attrs["repeat"]) for trial in trials)


@pytest.fixture(scope="module")
def with_finalists(finished_search: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A copy of the finished search whose finalists have run, and their verdict."""
    folder = tmp_path_factory.mktemp("finalists") / "study"
    shutil.copytree(finished_search[0], folder)
    done = hpsearch(folder, "finalists", "small", "--top", "2", "--seeds", "4", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_best_and_the_baseline_run_again_on_seeds_that_all_share(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    folder, verdict = with_finalists
    trials = follow_up(folder, "small.finalists")
    runs = runs_of(trials)
    assert len(set(runs)) == len(runs)
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    board = json.loads(hpsearch(folder, "show", "small", "--json").stdout)
    best = {f"trial {row['trial']}" for row in board["leaderboard"][:2]}
    assert {name for name, _ in runs} == best | {"trial 0"}
    seeds: dict[int, set[int]] = {}
    for trial in trials:
        seeds.setdefault(trial.user_attrs["repeat"], set()).add(json.loads(trial.user_attrs["hpsearch:run"])["config"]["seed"])
    assert all(len(each) == 1 for each in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)
    assert verdict["is_over"]
    assert board["finalists"] == {key: value for key, value in verdict.items() if key != "study"}


def test_the_same_command_again_runs_nothing(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    folder, verdict = with_finalists
    before = len(follow_up(folder, "small.finalists"))
    again = json.loads(hpsearch(folder, "finalists", "small", "--top", "2", "--seeds", "4", "--json").stdout)
    assert again == verdict
    assert len(follow_up(folder, "small.finalists")) == before


def test_export_takes_the_winner_of_the_finalists_and_says_what_they_found(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    folder, verdict = with_finalists
    done = hpsearch(folder, "export", "small", "-o", "best.toml")
    assert done.returncode == 0, done.stderr
    said = tomllib.loads((folder / "best.toml").read_text())["provenance"]
    assert f"trial {said['trial']}" == verdict["winner"]
    winner = verdict["finalists"][0]
    assert said["finalists"]["val_accuracy"] == pytest.approx(winner["mean"], abs=1e-6)
    assert said["finalists"]["runs"] == len(winner["scores"])


def test_the_verdict_is_read_in_words(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    folder, verdict = with_finalists
    said = hpsearch(folder, "show", "small").stdout
    assert f"Winner: {verdict['winner']}" in said
    assert "by 2 seeds that did not choose it" in said


def test_explain_walks_from_the_baseline_to_the_winner(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    folder, verdict = with_finalists
    done = hpsearch(folder, "explain", "small", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert f"trial {found['trial']}" == verdict["winner"]
    assert found["is_over"]
    assert found["steps"][0]["parameter"] == ""
    assert all(step["gain"] is not None for step in found["steps"][1:])
    runs = runs_of(follow_up(folder, "small.explain"))
    assert len(set(runs)) == len(runs)
    words = hpsearch(folder, "explain", "small", "--seeds", "2")
    assert "What made the difference" in words.stdout
    assert len(follow_up(folder, "small.explain")) == len(runs)


def test_killed_finalists_go_on_and_no_run_is_lost_or_done_twice(searched_folder: Path) -> None:
    command = [sys.executable, "-m", "tests.support.fake_trainer", "finalists", "small", "--top", "2", "--seeds", "4", "--workers", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_EPOCH_SECONDS": "0.2"}
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=searched_folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(4)
        family = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in (process.pid, *map(int, family)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(timeout=10)
    done = hpsearch(searched_folder, "finalists", "small", "--top", "2", "--seeds", "4")
    assert done.returncode == 0, done.stderr
    trials = follow_up(searched_folder, "small.finalists")
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    runs = runs_of(trials)
    assert len(set(runs)) == len(runs)


def test_a_study_file_asks_for_finalists_at_the_end_of_its_search(folder: Path) -> None:
    path = folder / "small.toml"
    path.write_text(path.read_text() + "\n[finalists]\ntop = 1\nseeds = 2\n")
    done = hpsearch(folder, "run", "small.toml")
    assert done.returncode == 0, done.stderr
    assert "Winner: trial" in done.stdout
    assert len(follow_up(folder, "small.finalists")) in (2, 4)


def test_a_worker_joins_finalists_from_any_shell(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    done = hpsearch(with_finalists[0], "worker", "small.finalists")
    assert done.returncode == 0, done.stderr
    assert "it ended 0 trials" in done.stderr


def test_a_linked_study_is_not_searched(with_finalists: tuple[Path, dict[str, Any]]) -> None:
    done = hpsearch(with_finalists[0], "run", "small.finalists")
    assert done.returncode == 2
    assert "`hpsearch finalists small` continues it" in done.stderr


def test_deleting_a_study_deletes_what_belongs_to_it(searched_folder: Path) -> None:
    assert hpsearch(searched_folder, "finalists", "small", "--top", "1", "--seeds", "2").returncode == 0
    assert hpsearch(searched_folder, "rm", "small", "--yes").returncode == 0
    assert optuna.get_all_study_names(f"sqlite:///{searched_folder}/runs/hpsearch.db") == []
    assert not (searched_folder / "runs" / "small").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("finalists", "nowhere"), "no study 'nowhere'"),
        (("explain", "small", "--trial", "99"), "no trial 99"),
        (("explain", "small", "--trial", "0"), "is the baseline"),
    ],
)
def test_what_cannot_be_run_again_is_refused(searched_folder: Path, arguments: tuple[str, ...], says: str) -> None:
    done = hpsearch(searched_folder, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_study_file_that_says_something_else_by_now_is_refused(searched_folder: Path) -> None:
    path = searched_folder / "small.toml"
    path.write_text(path.read_text().replace("seed = 3", "seed = 4"))
    done = hpsearch(searched_folder, "finalists", "small.toml")
    assert done.returncode == 2
    assert "seed: 3 → 4" in done.stderr


def test_a_study_with_no_complete_trial_has_no_finalists(searched: Callable[..., Search], workspace: Workspace) -> None:
    search = searched()
    with pytest.raises(UsageError, match="no trial of 'small' is complete yet"):
        prepare_finalists(search.file, workspace, top=3, seeds=4)
    with pytest.raises(UsageError, match="no trial of 'small' is complete yet"):
        prepare_explanation(search.file, workspace, seeds=2)
    assert search.store.study_names() == ["small"]
