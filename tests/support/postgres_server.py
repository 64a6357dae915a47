"""A PostgreSQL server for the tests: Debian's binaries, a temporary data folder, loopback only.

PostgreSQL refuses to run as root. Then it runs as the user of Debian's package. The tests start, stop, crash and halt the
server by its process ids, and touch nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

BINARIES = "/usr/lib/postgresql/*/bin"
USER = "postgres"
PASSWORD = "planted-p4ss"
"""Tests search for it in everything that hpsearch writes."""
START_SECONDS = 60.0
STORAGES = ("sqlite", "postgresql")
"""The kinds of storage that a test may run on."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server. Without PostgreSQL the test is skipped, but not in CI."""
    try:
        server = Postgres()
    except MissingPostgresError as error:
        if os.environ.get("HYPOTHESIS_PROFILE") == "ci":
            raise
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(params=STORAGES)
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    url: str = request.getfixturevalue("postgres").database()
    return url


class MissingPostgresError(Exception):
    """PostgreSQL cannot be started here, for the given reason."""


class Postgres:
    """A server that is ready for connections.

    Raises:
        MissingPostgresError: PostgreSQL is not installed, or may not be run.
    """

    def __init__(self, *, connections: int = 100) -> None:
        found = sorted(Path("/").glob(f"{BINARIES[1:]}/pg_ctl"))
        if not found:
            raise MissingPostgresError("PostgreSQL is not installed: apt-get install postgresql")
        self._binaries = found[-1].parent
        self._user = self._server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        passwords = self.folder / "password"
        passwords.write_text(PASSWORD)
        data = self.folder / "data"
        self._call(
            "initdb",
            "-D",
            data,
            "-U",
            "hpsearch",
            "--auth=scram-sha-256",
            f"--pwfile={passwords}",
            "--no-sync",
            "--locale=C",
            "--encoding=UTF8",
        )
        (data / "postgresql.auto.conf").write_text(
            f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
            # The tests crash the server, never the machine.
            f"fsync = off\nmax_connections = {connections}\nshared_buffers = 32MB\n"
        )
        self._databases = 0
        self.start()

    @staticmethod
    def _server_user() -> str:
        if os.geteuid() != 0:
            return ""
        with suppress(KeyError):
            pwd.getpwnam(USER)
            return USER
        raise MissingPostgresError(f"PostgreSQL does not run as root, and there is no user {USER}")

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Return the URL of a database, with the password."""
        return f"postgresql+psycopg://hpsearch:{password}@127.0.0.1:{self.port}/{database}"

    def database(self, template: str = "template1") -> str:
        """Make an empty database, or a copy of another database, and return its URL."""
        self._databases += 1
        name = f"db{self._databases}"
        self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """Execute one statement as the superuser."""
        import psycopg

        with psycopg.connect(self.url(database).replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # a statement of the tests' own
            return cursor.fetchall() if cursor.description else []

    def end_connections(self, database: str) -> None:
        """End all connections to a database."""
        self.execute(
            "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        # The output is dropped: the server would keep a pipe open.
        log = self.folder / "log"
        self._call("pg_ctl", "-D", self.folder / "data", "-l", log, "-w", "-t", int(START_SECONDS), "start", quiet=True)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `smart`, `fast` or `immediate`, which is a crash."""
        self._call("pg_ctl", "-D", self.folder / "data", "-w", "-m", mode, "stop", quiet=True)

    def halt(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """Send a signal to the server and all its processes."""
        server = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
        for process in [server, *server.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def close(self) -> None:
        """Stop the server and remove its data."""
        with suppress(subprocess.CalledProcessError, FileNotFoundError):
            self.halt(signal.SIGCONT)
            self.stop("immediate")
        for _ in range(10):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, program: str, *arguments: object, quiet: bool = False) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        output = subprocess.DEVNULL if quiet else subprocess.PIPE
        user = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []} if self._user else {}
        subprocess.run(command, check=True, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **user)  # type: ignore[call-overload]
