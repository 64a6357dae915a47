"""Rules of the locks that say who is alive."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from hpsearch.search.lease import FileLocks

HOLDER = """
import sys, time
from pathlib import Path
from hpsearch.search.lease import FileLocks
lease = FileLocks(Path(sys.argv[1])).acquire("trial")
print("held" if lease else "refused", flush=True)
time.sleep(60)
"""


def test_a_held_lock_is_refused_to_others(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path / "with space & 'quote'")
    lease = locks.acquire("trial")
    assert lease is not None
    assert locks.acquire("trial") is None
    assert locks.acquire("another") is not None
    lease.release()


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    lease = locks.acquire("trial")
    assert lease is not None
    lease.release()
    assert list(tmp_path.iterdir()) == []
    assert locks.acquire("trial") is not None


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert FileLocks(tmp_path).acquire("trial") is None
    finally:
        holder.kill()
        holder.communicate()
    assert FileLocks(tmp_path).acquire("trial") is not None


def test_hold_waits_until_the_lock_is_free(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    lease = locks.acquire("claim")
    assert lease is not None
    order: list[str] = []

    def wait() -> None:
        with locks.hold("claim"):
            order.append("entered")

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    order.append("released")
    lease.release()
    waiter.join(10)
    assert order == ["released", "entered"]


def test_never_two_holders_when_the_file_is_removed_and_made_again(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        for _ in range(50):
            with FileLocks(tmp_path).hold("claim"):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
