"""Rules of the folder of a study: it says whose it is, and only its study may write or delete there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.config.study_file import StudyFile
from hpsearch.errors import DiskError, UsageError
from hpsearch.storage.records import read_identity
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.study_folder import claim_folder, delete_folder, require_own_folder, results_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search
from tests.support.postgres_server import PASSWORD

Searched = Callable[..., Search]
OTHERS = "has the files of another study: 'small' in "


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A SQLite file: what is tested here lies in the folder of runs."""
    return f"sqlite:///{tmp_path / 'study.db'}"


def at(workspace: Workspace, database: Path) -> Workspace:
    """A workspace with the same folder of runs and another database."""
    return Workspace(runs=workspace.runs, storage=f"sqlite:///{database}")


def claim(workspace: Workspace, name: str = "small") -> None:
    claim_folder(name, workspace, workspace.open())


def test_the_folder_of_a_study_says_whose_it_is(study_file: Callable[..., StudyFile], any_storage: str, tmp_path: Path) -> None:
    workspace = Workspace(runs=tmp_path / "runs", storage=any_storage)
    search = prepare_search(study_file(), workspace)
    text = workspace.paths.study("small").owner.read_text()
    storage = "../study.db" if isinstance(workspace.database, SqliteFile) else workspace.database.display_url
    assert json.loads(text) == {"study": "small", "identity": search.identity, "storage": storage}
    assert PASSWORD not in text
    require_own_folder("small.finalists", workspace, search.store)  # follow-up studies lie in the folder of their search


def test_a_study_of_another_storage_does_not_begin_in_the_folder(
    searched: Searched, workspace: Workspace, study_file: Callable[..., StudyFile], tmp_path: Path
) -> None:
    searched()
    other = at(workspace, tmp_path / "other.db")
    with pytest.raises(UsageError, match=OTHERS) as caught:
        prepare_search(study_file(), other)
    assert "--runs" in caught.value.hint
    assert other.open().study_names() == []


@pytest.fixture
def database(workspace: Workspace, searched: Searched) -> Path:
    """The SQLite file of a study that was begun."""
    searched().store.dispose()
    assert isinstance(workspace.database, SqliteFile)
    return workspace.database.path


def test_a_copy_of_the_database_has_no_right_to_the_folder(database: Path, workspace: Workspace) -> None:
    other = at(workspace, Path(shutil.copy(database, database.with_name("backup.db"))))
    with pytest.raises(UsageError, match=OTHERS):
        claim(other)
    assert results_folder("small", other, other.open()).folder.exists() is False
    claim(workspace)
    assert results_folder("small", workspace, workspace.open()) == workspace.paths.study("small")


def test_the_folder_goes_with_a_database_that_is_moved(database: Path, workspace: Workspace) -> None:
    moved = at(workspace, database.rename(database.with_name("moved.db")))
    claim(moved)
    assert json.loads(moved.paths.study("small").owner.read_text())["storage"] == "../moved.db"


def test_a_copied_folder_of_runs_with_its_database_is_independent(
    study_file: Callable[..., StudyFile], empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    first = Workspace(runs=tmp_path / "first")
    first.runs.mkdir()
    shutil.copy(empty_database, first.paths.database)
    prepare_search(study_file(), first).store.dispose()
    shutil.copytree(first.runs, tmp_path / "second")
    for workspace in (first, Workspace(runs=tmp_path / "second")):
        claim(workspace)


def test_a_study_made_again_takes_over_the_folder_of_the_deleted_one(searched: Searched, workspace: Workspace) -> None:
    searched().store.delete("small")
    again = searched()
    assert json.loads(workspace.paths.study("small").owner.read_text())["identity"] == read_identity(again.study)


def test_a_folder_without_an_owner_belongs_to_who_asks_first(searched: Searched, workspace: Workspace) -> None:
    store = searched().store
    workspace.paths.study("small").owner.unlink()  # as an earlier version left it
    require_own_folder("small", workspace, store)
    claim(workspace)
    assert workspace.paths.study("small").owner.exists()


def test_a_study_has_no_right_to_a_folder_that_is_a_link_to_another_study(searched: Searched, workspace: Workspace) -> None:
    searched()
    (workspace.runs / "twin").symlink_to("small")
    with pytest.raises(UsageError, match=OTHERS):
        searched(('name = "small"', 'name = "twin"'))
    assert workspace.open().study_names() == ["small"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"study": "small"}', b"\xff", b'{"study": "small", "x": 1}'])
def test_a_damaged_owner_is_nobodys(searched: Searched, workspace: Workspace, content: bytes) -> None:
    store = searched().store
    workspace.paths.study("small").owner.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged, so it does not say whose folder it is"):
        require_own_folder("small", workspace, store)
    assert not results_folder("small", workspace, store).folder.exists()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "dangling link"])
def test_what_is_no_folder_is_left_alone(searched: Searched, workspace: Workspace, make: Callable[[Path], None]) -> None:
    workspace.runs.mkdir()
    make(workspace.runs / "small")
    with pytest.raises(UsageError, match="is in the way: it is no folder"):
        searched()


def test_a_linked_folder_is_deleted_with_its_link(searched: Searched, workspace: Workspace, tmp_path: Path) -> None:
    searched()
    folder = workspace.paths.study("small").folder
    place = folder.rename(tmp_path / "large disk")
    folder.symlink_to(place)
    (place / "logs").mkdir()
    (place / "link").symlink_to(tmp_path)  # a link inside leads to files that are not the study's
    delete_folder("small", workspace)
    assert not place.exists()
    assert not folder.is_symlink()
    assert tmp_path.exists()


def test_a_linked_folder_that_does_not_say_whose_it_is_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    workspace.runs.mkdir()
    (workspace.runs / "small").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="which may hold other files too"):
        delete_folder("small", workspace)


def test_a_folder_says_whose_it_is_until_it_is_empty(searched: Searched, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    searched()
    paths = workspace.paths.study("small")
    paths.logs.mkdir()
    paths.report.touch()

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        with pytest.raises(DiskError, match=": Permission denied"):
            delete_folder("small", workspace)
    claim(workspace)
    assert paths.logs.exists()
    delete_folder("small", workspace)
    assert not paths.folder.exists()
