"""Rules of storages: which URLs are refused, what a message shows of them, which file they name, and who may change it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from hpsearch.errors import StorageError, StudyNotFoundError
from hpsearch.storage.database import database_at, open_store
from hpsearch.storage.records import read_trials
from hpsearch.storage.retry import RetryPolicy
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.workspace import Workspace
from tests.support import postgres_server
from tests.support.postgres_server import Postgres

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://me:pa@{PASSWORD}@host/db", "%40 for @"),
        (f"postgresql://me:pa@{PASSWORD}/x@host/db", "%40 for @"),
        (f"postgresql://me/x:{PASSWORD}@host/db", "%2F for /"),
        (f"postgresql:///me:{PASSWORD}@host/db", "HOST:PORT/DATABASE"),
        (f"postgresql://me:{PASSWORD}", "HOST:PORT/DATABASE"),
        (f"postgresql://me:{PASSWORD}/db", "HOST:PORT/DATABASE"),
        (f"postgresql://me:x@host:{PASSWORD}/db", "HOST:PORT/DATABASE"),
        (f"postgresql://{PASSWORD}@127.0.0.1:1/db", "Is the server running"),
        (f"postgresql://me%3A{PASSWORD}@127.0.0.1:1/db", "Is the server running"),
        (f"postgresql://me@host/db?password=a@{PASSWORD}", "%40 for @"),
        (f"postgresql://host:1/db?password=a@{PASSWORD}", "%40 for @"),
        (f"postgresql://me@host/db&password={PASSWORD}", "HOST:PORT/DATABASE"),
        (f"postgresql+psycopg:me:{PASSWORD}", "sqlite:///FILE"),
        (f"postgresql+psycopg:/me:{PASSWORD}", "sqlite:///FILE"),
        (f"host=localhost password={PASSWORD}", "sqlite:///FILE"),
        (f"mysql://me:pa@{PASSWORD}@host/db", "'mysql'"),
        (f"mysql://me:{PASSWORD}/db", "'mysql'"),
        (f"sqlite:///study.db?password={PASSWORD}", "a question mark"),
        ("sqlite:///file:study.db?uri=true", "Leave out options such as uri=true"),
        (f"sqlite://me:{PASSWORD}@host/x.db", "must be a file"),
        (f"sqlite://me:{PASSWORD}/x.db", "must be a file"),
    ],
)
def test_a_message_about_a_storage_shows_no_part_of_its_password(url: str, says: str) -> None:
    with pytest.raises(StorageError) as raised:
        database_at(url).check(create=True)
    assert says in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{PASSWORD}@host/db", "postgresql+psycopg://***@host/db"),
        (f"postgresql+psycopg://me:{PASSWORD}/x%40@[::1]:5432/db?sslmode=require", "postgresql+psycopg://***@[::1]:5432/db"),
        (f"postgresql:///db?host=/run&password={PASSWORD}", "postgresql+psycopg:///db"),
        ("postgresql://one,two/db?options=-csearch_path=mine", "postgresql+psycopg://one,two/db"),
        ("sqlite:///a%3Fb%20c.db", "sqlite:///a%3Fb c.db"),
    ],
)
def test_a_storage_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert database_at(url).display_url == shown
    assert PASSWORD not in repr(Workspace(storage=url))


@pytest.mark.parametrize("name", ["r?n", "r%41", "r%3F", "r#x", "r@y", "r z", "r{x}", "r&y=1", "räㄱ", "r\ny", "r'\"", "file:r"])
def test_the_default_database_lies_in_its_folder_whatever_the_name_of_the_folder(name: str, tmp_path: Path) -> None:
    workspace = Workspace(runs=tmp_path / name)
    store = workspace.open_or_create()
    store.create("small")
    assert (tmp_path / name / "hpsearch.db").exists()
    # A worker gets the URL, and `hpsearch show` prints it for optuna-dashboard.
    assert Workspace(storage=store.url).database.path == workspace.database.path
    assert optuna.get_all_study_names(str(store)) == ["small"]
    store.dispose()


def test_a_database_is_made_only_on_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    before = (tmp_path / "study.db").read_bytes()
    for read_only in (True, False):
        with pytest.raises(StudyNotFoundError, match="there are no studies"):
            open_store(url, create=False, read_only=read_only)
    assert (tmp_path / "study.db").read_bytes() == before


@pytest.mark.parametrize(
    "killed_at",
    ["CREATE TABLE studies", "CREATE TABLE trials", "INSERT INTO version_info", "CREATE TABLE alembic", "INSERT INTO alembic"],
)
def test_a_half_made_database_has_no_studies_yet_and_its_reader_makes_nothing(any_storage: str, killed_at: str) -> None:
    def kill(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith(killed_at):
            raise KeyboardInterrupt

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(KeyboardInterrupt):
            open_store(any_storage, create=True)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", kill)
    for read_only in (True, False):
        with pytest.raises(StudyNotFoundError):
            open_store(any_storage, create=False, read_only=read_only)
    is_empty = any_storage.startswith("sqlite") and killed_at == "CREATE TABLE studies"  # like a file that was cut off
    with pytest.raises(StorageError, match="Move it away") if is_empty else nullcontext():
        store = open_store(any_storage, create=True)
        store.create("s")
        assert store.study_names() == ["s"]
        store.dispose()


def test_a_store_for_reading_cannot_write(empty_database: Path) -> None:
    store = open_store(f"sqlite:///{empty_database}", create=False, read_only=True)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        store.create("small")
    assert [path.name for path in empty_database.parent.iterdir()] == [empty_database.name]


def test_a_role_that_may_only_select_can_look(postgres: Postgres) -> None:
    url = postgres.database()
    store = open_store(url, create=True)
    store.create("small").enqueue_trial({"model": "cnn"})
    store.dispose()
    name = url.rpartition("/")[2]
    postgres.execute(name, f"CREATE ROLE reader LOGIN PASSWORD '{postgres_server.PASSWORD}'")
    postgres.execute(name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = open_store(url.replace("://hpsearch:", "://reader:"), create=False, read_only=True)
    assert [trial.state for trial in read_trials(reader.load("small"))] == ["waiting"]
    with pytest.raises(optuna.exceptions.StorageInternalError):
        reader.create("another")
    reader.dispose()


def test_a_file_read_without_locks_must_not_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "study.db"
    open_store(f"sqlite:///{database}", create=True).dispose()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) == tmp_path)
    reader = SqliteFile(database)._connect_to_read(RetryPolicy(max_wait=0))
    assert reader.execute("SELECT * FROM studies").fetchall() == []
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO studies (study_name) VALUES ('small')")
        writer.commit()
    with pytest.raises(sqlite3.OperationalError, match="changed by another program"):
        reader.execute("SELECT * FROM studies")
    reader.close()
