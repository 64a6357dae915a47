"""Locks show which workers are alive, on each kind of storage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.errors import LeaseLostError, StorageError
from hpsearch.storage.advisory_locks import AdvisoryLocks
from hpsearch.storage.locks import FileLocks, Locks
from hpsearch.storage.workspace import Workspace
from tests.support.postgres_server import Postgres

HOLDER = """
import sys, time
from hpsearch.storage.workspace import Workspace
lease = Workspace(storage=sys.stdin.readline().strip()).locks.acquire("trial")
print("held" if lease else "refused", flush=True)
time.sleep(60)
"""


def tell(holder: subprocess.Popen[str], storage: str) -> None:
    """Give a process the URL of the database. On its command line, all users of the machine could read the password."""
    assert holder.stdin is not None
    holder.stdin.write(f"{storage}\n")
    holder.stdin.flush()


@pytest.fixture
def new_locks(storage: str) -> Callable[[], Locks]:
    """Makes the locks of one database as another process sees them."""
    return lambda: Workspace(storage=storage).locks


def test_a_held_lock_is_refused_to_others(new_locks: Callable[[], Locks]) -> None:
    locks = new_locks()
    lease = locks.acquire("trial")
    assert lease is not None
    assert lease.is_held
    assert locks.acquire("trial") is None
    assert new_locks().acquire("trial") is None
    assert locks.acquire("another") is not None
    lease.release()
    assert new_locks().acquire("trial") is not None


def test_a_lock_dies_with_its_process(storage: str, new_locks: Callable[[], Locks]) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        tell(holder, storage)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert new_locks().acquire("trial") is None
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 1
    while (lease := new_locks().acquire("trial")) is None:  # a server takes a moment to notice
        assert time.monotonic() < deadline
    assert lease.is_held


def test_a_forked_process_holds_no_lock_of_its_parent(storage: str, new_locks: Callable[[], Locks]) -> None:
    # User code forks a process, for example by a process pool. The worker is killed, and the forked process lives on.
    holder = subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        tell(holder, storage)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "child: False\n"
        assert new_locks().acquire("trial") is None
        holder.kill()
        holder.wait()
        deadline = time.monotonic() + 5
        while (lease := new_locks().acquire("trial")) is None:
            assert time.monotonic() < deadline
        assert lease.is_held
    finally:
        holder.kill()
        holder.communicate()  # ends the forked process, which waits for its standard input


FORKS = """
import os, sys
from hpsearch.storage.workspace import Workspace
workspace = Workspace(storage=sys.stdin.readline().strip())
lease = workspace.locks.acquire("trial")
assert lease.is_held
if os.fork() == 0:
    held = lease.is_held
    lease.release()
    print("child:", held, flush=True)
sys.stdin.read()
assert lease.is_held  # what the child did has not ended the session of the parent
"""


def test_hold_waits_until_the_lock_is_free(new_locks: Callable[[], Locks]) -> None:
    lease = new_locks().acquire("claim")
    assert lease is not None
    order: list[str] = []

    def wait() -> None:
        with new_locks().hold("claim"):
            order.append("held")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    order.append("released")
    lease.release()
    thread.join(5)
    assert order == ["released", "held"]


def test_one_holder_at_a_time(new_locks: Callable[[], Locks]) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        locks = new_locks()
        for _ in range(20):
            with locks.hold("claim"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1


# Of files


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path / "with space & 'quote'")
    lease = locks.acquire("trial")
    assert lease is not None
    assert locks.in_use
    lease.release()
    assert list(locks.folder.iterdir()) == []
    assert locks.acquire("trial") is not None


def test_the_folder_is_removed_with_the_last_lock(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path / "locks")
    lease = locks.acquire("trial")
    assert lease is not None
    locks.clean_up()
    assert locks.folder.exists()
    lease.release()
    locks.clean_up()
    assert not locks.folder.exists()


def test_a_link_to_the_database_has_the_locks_of_the_database(tmp_path: Path) -> None:
    database, link, folder = tmp_path / "real" / "study.db", tmp_path / "link.db", tmp_path / "folder"
    database.parent.mkdir()
    link.symlink_to(database)
    folder.symlink_to(database.parent)
    lease = Workspace(storage=f"sqlite:///{database}").locks.acquire("trial")
    assert lease is not None
    assert Workspace(storage=f"sqlite:///{link}").locks.acquire("trial") is None
    assert Workspace(storage=f"sqlite:///{folder / 'study.db'}").locks.acquire("trial") is None


def test_a_database_has_the_same_locks_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "deeper").mkdir(parents=True)
    (tmp_path / "link").symlink_to("runs/deeper")
    (tmp_path / "dangling.db").symlink_to("runs/hpsearch.db")  # before there is a database
    lease = Workspace(runs=tmp_path / "runs").locks.acquire("trial")
    assert lease is not None
    monkeypatch.chdir(tmp_path / "runs")
    for storage in ("hpsearch.db", "./deeper/../hpsearch.db", "../link/../hpsearch.db", "../dangling.db"):
        assert Workspace(storage=f"sqlite:///{storage}").locks.acquire("trial") is None, storage


def test_a_database_in_a_mounted_folder_has_its_locks_and_a_mounted_file_is_refused(tmp_path: Path, empty_database: Path) -> None:
    real, folder, file = tmp_path / "real" / "study.db", tmp_path / "folder", tmp_path / "file.db"
    real.parent.mkdir()
    folder.mkdir()
    file.touch()
    shutil.copy(empty_database, real)
    mounts = {folder: real.parent, file: real}
    try:
        for target, source in mounts.items():
            if subprocess.run(["mount", "--bind", source, target], capture_output=True, check=False).returncode:
                pytest.skip("this user may not mount")
        lease = Workspace(storage=f"sqlite:///{real}").locks.acquire("trial")
        assert lease is not None
        assert Workspace(storage=f"sqlite:///{folder / 'study.db'}").locks.acquire("trial") is None
        with pytest.raises(StorageError, match="mounted by itself"):
            Workspace(storage=f"sqlite:///{file}").open()
        Workspace(storage=f"sqlite:///{folder / 'study.db'}").open().dispose()
    finally:
        for target in mounts:
            subprocess.run(["umount", target], capture_output=True, check=False)


def test_a_database_with_two_names_is_refused(tmp_path: Path, empty_database: Path) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    shutil.copy(empty_database, one)
    other.hardlink_to(one)
    with pytest.raises(StorageError, match="has 2 names \\(hard links\\)"):
        Workspace(storage=f"sqlite:///{other}").open()
    other.unlink()
    Workspace(storage=f"sqlite:///{one}").open().dispose()


def test_a_lock_is_lost_with_its_file(tmp_path: Path) -> None:
    locks, others = FileLocks(tmp_path / "locks"), FileLocks(tmp_path / "locks")
    lease = locks.acquire("trial")
    assert lease is not None
    locks.require_held()
    shutil.rmtree(locks.folder)
    assert not lease.is_held
    theirs = others.acquire("trial")
    assert theirs is not None
    with pytest.raises(LeaseLostError):
        locks.require_held()
    lease.release()
    assert theirs.is_held
    locks.require_held()  # nothing is held any more, so nothing is lost


# Of a server


@pytest.fixture
def server_locks(postgres: Postgres) -> tuple[str, Callable[[], Locks]]:
    """The name of a new database, and its locks as another process sees them."""
    url = postgres.database()
    return url.rsplit("/", 1)[1], lambda: Workspace(storage=url).locks


def test_a_lock_is_lost_with_its_connection_and_known_to_be(postgres: Postgres, server_locks: tuple[str, Callable[[], Locks]]) -> None:
    database, new_locks = server_locks
    locks = new_locks()
    lease = locks.acquire("trial")
    assert lease is not None
    locks.require_held()
    postgres.end_connections(database)
    assert not lease.is_held
    with pytest.raises(LeaseLostError):
        locks.require_held()
    assert new_locks().acquire("trial") is not None
    lease.release()
    assert locks.acquire("trial") is not None  # on a new connection: the other's ended with it


def test_a_claim_whose_lock_was_lost_ends_before_it_takes_another_lock(
    postgres: Postgres, server_locks: tuple[str, Callable[[], Locks]]
) -> None:
    database, new_locks = server_locks
    locks = new_locks()

    def claim() -> None:
        with locks.hold("claim"):
            postgres.end_connections(database)
            locks.acquire("trial")

    with pytest.raises(LeaseLostError):
        claim()
    with locks.hold("claim"):
        assert locks.acquire("trial") is not None


def test_two_schemas_of_a_database_have_locks_of_their_own(postgres: Postgres) -> None:
    url = postgres.database()
    postgres.execute(url.rsplit("/", 1)[1], "CREATE SCHEMA other")
    theirs = Workspace(storage=f"{url}?options=-csearch_path%3Dother").locks
    assert isinstance(theirs, AdvisoryLocks)
    assert Workspace(storage=url).locks.acquire("trial-1.lease") is not None
    assert theirs.acquire("trial-1.lease") is not None
