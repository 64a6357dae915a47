"""Rules of `show --watch`: the live view of a study that runs elsewhere."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from hpsearch.cli.watch import watch_study
from hpsearch.config.study_file import load_study_file
from hpsearch.errors import StudyNotFoundError
from hpsearch.storage.database import open_store
from hpsearch.storage.records import write_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import Search
from tests.support.dashboard_client import until
from tests.support.small_study import ROOT, hpsearch

DONE = "Best: trial"


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command in the background, with what it says in files."""
    name = arguments[0]
    with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_trainer", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
        )


def empty_study(folder: Path) -> None:
    """A study as it is before its first trial: made, and nothing queued."""
    file = load_study_file(folder / "small.toml")
    store = open_store(f"sqlite:///{folder}/runs/hpsearch.db", create=True)
    write_study(store.create(file.name), text=file.text, path=file.path, comparable=file.comparable)
    store.dispose()


def test_it_looks_on_from_before_the_first_trial_to_the_end(folder: Path) -> None:
    empty_study(folder)
    watching = start(folder, "show", "small", "--watch")
    until(lambda: "no trial yet" in (folder / "show.err").read_text())
    assert watching.poll() is None
    assert hpsearch(folder, "run", "small.toml", FAKE_EPOCH_SECONDS="0.1").returncode == 0
    assert watching.wait(60) == 0
    said = (folder / "show.err").read_text()
    assert sorted(int(line.split()[1]) for line in said.splitlines() if line.startswith("trial ")) == list(range(8))
    assert DONE in (folder / "show.out").read_text()


def test_it_reads_only_and_is_over_at_once_where_the_study_is(searched_folder: Path) -> None:
    url = f"sqlite:///{searched_folder}/runs/hpsearch.db"
    before = optuna.load_study(study_name="small", storage=url)
    attributes, trials = before.user_attrs, before.get_trials()
    done = hpsearch(searched_folder, "show", "small", "--watch")
    assert done.returncode == 0
    assert "8 of 8 trials have ended" in done.stderr
    assert DONE in done.stdout
    after = optuna.load_study(study_name="small", storage=url)
    assert (after.user_attrs, after.get_trials()) == (attributes, trials)


def test_ctrl_c_ends_the_view_and_not_the_study(folder: Path) -> None:
    empty_study(folder)
    watching = start(folder, "show", "small", "--watch")
    until(lambda: "no trial yet" in (folder / "show.err").read_text())
    running = start(folder, "run", "small.toml", "--workers", "1", FAKE_EPOCH_SECONDS="0.3")
    until(lambda: "\ntrial " in (folder / "show.err").read_text())
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    assert "Traceback" not in (folder / "show.err").read_text()
    assert running.wait(60) == 0


def test_on_a_terminal_it_is_live(folder: Path) -> None:
    empty_study(folder)
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_trainer", "show", "small", "--watch"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        seen = b""
        while b"0 of 8 trials" not in seen:
            seen += os.read(ours, 4096)
    finally:
        watching.send_signal(signal.SIGINT)
        try:
            assert watching.wait(30) == 130
        finally:
            watching.kill()
            os.close(ours)


def test_a_study_made_again_is_not_taken_for_the_watched_one(
    searched: Callable[..., Search], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[Search] = []

    def make_again(seconds: float) -> None:
        assert not again, "it watches the other study"
        workspace.open().delete("small")
        again.append(searched())

    searched()
    monkeypatch.setattr("hpsearch.cli.watch.time", SimpleNamespace(monotonic=time.monotonic, sleep=make_again))
    with pytest.raises(StudyNotFoundError, match="is gone"):
        watch_study("small", workspace)


def test_it_goes_with_nothing_that_prints_data(searched_folder: Path) -> None:
    for more in (["0"], ["--json"], ["--csv"]):
        done = hpsearch(searched_folder, "show", "small", *more, "--watch")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--watch" in done.stderr
