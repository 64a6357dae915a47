"""Rules of `rm` and `stop`: they act on whole studies, and only on those of hpsearch."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click
import optuna
import pytest

from hpsearch.cli.control_commands import rm, stop
from hpsearch.cli.report_command import report
from hpsearch.errors import DiskError, StudyNotFoundError, UsageError
from hpsearch.search.worker import Worker
from hpsearch.search.worker_order import WorkerOrder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.compare import find_model
from hpsearch.workflows.repeats import prepare_finalists
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search
from hpsearch.workflows.worker_process import run_worker

Searched = Callable[..., Search]


def test_rm_can_be_repeated_after_a_file_could_not_be_deleted(
    searched: Searched, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched()
    folder = workspace.paths.study("small").folder
    (folder / "logs").mkdir()

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        with pytest.raises(DiskError) as caught:
            rm("small", workspace=workspace, yes=True)
    assert "run the same command again" in caught.value.hint
    assert workspace.open().study_names() == ["small"]
    rm("small", workspace=workspace, yes=True)
    assert workspace.open().study_names() == []
    assert not folder.exists()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "dangling link"])
def test_rm_touches_nothing_while_a_file_is_in_the_place_of_the_folder(
    searched: Searched, workspace: Workspace, make: Callable[[Path], None]
) -> None:
    searched()
    folder = workspace.paths.study("small").folder
    shutil.rmtree(folder)
    make(folder)
    with pytest.raises(UsageError, match="it is no folder"):
        rm("small", workspace=workspace, yes=True)
    folder.unlink()
    assert workspace.open().study_names() == ["small"]
    rm("small", workspace=workspace, yes=True)
    assert workspace.open().study_names() == []


def test_a_study_of_another_storage_neither_deletes_nor_replaces_the_files_of_this_one(
    searched: Searched, make_worker: Callable[..., Worker], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched(("trials = 8", "trials = 1"))
    make_worker(search).work()
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        database.backup(backup)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    other = Workspace(runs=workspace.runs, storage=f"sqlite:///{tmp_path / 'backup.db'}")
    before = sorted(workspace.runs.rglob("*"))
    commands: list[Callable[[], object]] = [
        lambda: rm("small", workspace=other, yes=True),
        lambda: report(["small"], workspace=other),
        lambda: prepare_search(search.file, other),
        lambda: prepare_finalists(search.file, other, top=1, seeds=2),
        lambda: run_worker(WorkerOrder(study="small", worker="w", runs=other.runs), storage=other.storage),
        lambda: find_model("small/0", other),
    ]
    for command in commands:
        with pytest.raises(UsageError, match="has the files of another study"):
            command()
    assert sorted(workspace.runs.rglob("*")) == before
    assert other.open().study_names() == ["small"]
    assert len(other.open().load("small").trials) == 1
    report(["small"], output=tmp_path / "page.html", workspace=other)
    assert (tmp_path / "page.html").exists()


def test_rm_and_stop_refuse_a_study_of_another_program(searched: Searched, workspace: Workspace) -> None:
    searched()
    foreign = optuna.create_study(study_name="foreign", storage=workspace.storage)
    foreign.add_trial(optuna.create_trial(value=1.0))
    folder = workspace.paths.study("foreign").folder
    folder.mkdir()
    for command in (lambda: stop("foreign", workspace=workspace), lambda: rm("foreign", workspace=workspace, yes=True)):
        with pytest.raises(StudyNotFoundError, match="'foreign' was not made by hpsearch") as caught:
            command()
    assert f"optuna delete-study --study-name foreign --storage {workspace.database.display_url}" in caught.value.hint
    assert foreign.user_attrs == {}
    assert len(foreign.trials) == 1
    assert folder.exists()


def test_rm_asks_before_it_deletes(searched: Searched, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    searched()
    monkeypatch.setattr("typer.confirm", lambda text, **_: (_ for _ in ()).throw(click.Abort()))
    with pytest.raises(click.Abort):
        rm("small", workspace=workspace)
    assert workspace.open().study_names() == ["small"]
    assert workspace.paths.study("small").folder.exists()
