"""A real dashboard on loopback, and requests to it as a browser or a stranger would make them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tests.support.small_study import ROOT

START_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request was answered.

    Attributes:
        headers: by their names in lower case; one that came several times is joined by "; ".
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A dashboard that runs.

    Attributes:
        address: as it was printed.
        said: the file of what it said on stderr.
    """

    address: str
    process: subprocess.Popen[str]
    said: Path

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", *, body: Any = None, **headers: str) -> Answer:
        """Send a request; `Sec_Fetch_Site="none"` is the header Sec-Fetch-Site."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            content = None if body is None else json.dumps(body).encode()
            if content is not None:
                given.setdefault("Content-Type", "application/json")
            connection.request(method, path, body=content, headers=given)
            answer = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in answer.getheaders():
                key = name.lower()
                found[key] = f"{found[key]}; {value}" if key in found else value
            return Answer(status=answer.status, headers=found, body=answer.read())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def serving(folder: Path, *arguments: str, prefix: Sequence[str] = (), **environment: str) -> Iterator[Served]:
    """`hpsearch dashboard` in a folder, on a port that is free, for the length of a block."""
    said = folder / "dashboard.stderr"
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with said.open("w") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.fake_trainer", "dashboard", *arguments, "--port", "0"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = first_line(process.stdout)
            assert address.startswith("http://"), said.read_text()
            yield Served(address=address, process=process, said=said)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                finally:
                    process.kill()
                    process.wait()
            process.stdout.close()  # type: ignore[union-attr]  # it is a pipe


def first_line(pipe: IO[str]) -> str:
    """What a process says first; empty when it ends without a word."""
    return pipe.readline().strip()


def until(found: Any, seconds: float = START_SECONDS) -> Any:
    """Ask again and again until the answer is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return answer
