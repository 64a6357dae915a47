"""Start real hpsearch processes in milliseconds, by forking a server process that has loaded everything.

Fault tests kill hundreds of processes, and a fresh interpreter takes 1.5 s each. Everything else is as
on the command line: a supervisor starts its workers with a pipe and a log, each in its own session.
The server opens no file and no database before a fork, and it signals only its own children.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "FORKSERVER_SOCKET"
START_SECONDS = 120.0
COMMAND_SECONDS = 300.0
"""A command of a test that takes longer hangs."""


def storage_environment(folder: Path) -> dict[str, str]:
    """Return the environment for a folder: its file `storage` may hold the URL of the database."""
    file = folder / "storage"
    return {"OPTUNA_STORAGE": file.read_text()} if file.exists() else {}


class Forked:
    """A process forked by the server, with the interface of `subprocess.Popen` that the supervisor uses."""

    def __init__(self, path: str, arguments: Sequence[str], *, cwd: str, env: Mapping[str, str], files: tuple[int, ...]) -> None:
        self._connection = _connect(path)
        # The files become standard input, output and error; any others keep their numbers.
        numbers = [0, 1, 2, *files[3:]]
        request = json.dumps({"arguments": list(arguments), "cwd": cwd, "env": dict(env), "numbers": numbers}).encode()
        socket.send_fds(self._connection, [len(request).to_bytes(4, "big")], list(files))
        self._connection.sendall(request)
        self.pid = int.from_bytes(_receive(self._connection, 4), "big")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the process lives."""
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit status."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal if the process still lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            status = self._connection.recv(4)
            self._connection.close()
            # The server sends nothing when it was killed itself.
            self.returncode = int.from_bytes(status, "big", signed=True) if len(status) == 4 else -signal.SIGKILL
        return self.returncode


class ForkServer:
    """Starts and ends processes of hpsearch.

    Args:
        trainer: `fake` or `real`.
    """

    def __init__(self, trainer: str = "fake") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forkserver")
        self._forked: list[Forked] = []
        self.path = str(Path(self._folder.name) / "socket")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkserver", self.path, trainer],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
        )
        deadline = time.monotonic() + START_SECONDS
        while not Path(self.path).exists():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the fork server did not start")
            time.sleep(0.02)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, folder: Path, *arguments: str, output: Path, **environment: str) -> Forked:
        """Start the command in a folder and append its output to a file."""
        with output.open("ab") as log, open(os.devnull, "rb") as nothing:
            files = (nothing.fileno(), log.fileno(), log.fileno())
            self._forked.append(
                Forked(self.path, arguments, cwd=str(folder), env={**os.environ, **storage_environment(folder), **environment}, files=files)
            )
        return self._forked[-1]

    def run(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a folder to its end, and return what it printed."""
        with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            files = (nothing.fileno(), out.fileno(), err.fileno())
            env = {**os.environ, **storage_environment(folder), **environment}
            forked = Forked(self.path, arguments, cwd=str(folder), env=env, files=files)
            try:
                code = forked.wait(COMMAND_SECONDS)
            finally:
                forked.kill()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(list(arguments), code, *texts)

    def alive(self) -> dict[int, list[str]]:
        """Return the arguments of each living process, by process id."""
        return {int(pid): arguments for pid, arguments in self._ask({"list": True}).items()}

    def kill(self, *pids: int, number: int = signal.SIGKILL) -> int:
        """Send a signal to processes at almost the same moment; return how many of them lived."""
        return int(self._ask({"kill": list(pids), "signal": int(number)}))

    def end_all(self) -> None:
        """Kill all processes that this server started."""
        while alive := self.alive():
            self.kill(*alive)
            time.sleep(0.01)

    def close(self) -> None:
        """Kill all processes that this server started, and the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        for forked in self._forked:
            forked.poll()
        self._folder.cleanup()

    def _ask(self, request: dict[str, Any]) -> Any:
        with _connect(self.path) as connection:
            content = json.dumps(request).encode()
            connection.sendall(len(content).to_bytes(4, "big") + content)
            return json.loads(_receive(connection, int.from_bytes(_receive(connection, 4), "big")))


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the fork server is gone")
        received += part
    return received


@functools.cache
def shared_server(trainer: str) -> ForkServer:
    """Return the fork server of this test process for a trainer, `fake` or `real`. It starts at its first use."""
    server = ForkServer(trainer)
    atexit.register(server.close)
    return server


class _Popen(Forked):
    """Replaces `subprocess.Popen` in the supervisor."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], stdout: IO[bytes], pass_fds: tuple[int, ...], **_: Any) -> None:
        arguments = command[command.index("worker") :]
        with open(os.devnull, "rb") as nothing:
            files = (nothing.fileno(), stdout.fileno(), stdout.fileno(), *pass_fds)
            super().__init__(env[SOCKET], arguments, cwd=os.getcwd(), env=env, files=files)


class _Subprocess:
    """Replaces the module `subprocess` in the supervisor."""

    DEVNULL, STDOUT, TimeoutExpired, Popen = subprocess.DEVNULL, subprocess.STDOUT, subprocess.TimeoutExpired, _Popen


def _load(trainer: str) -> None:
    """Import everything that a process may need; replace the trainer and the way to start a worker."""
    import hpsearch.analysis.leaderboard
    import hpsearch.cli.export_command
    import hpsearch.cli.progress_view
    import hpsearch.cli.repeat_commands
    import hpsearch.cli.report_command
    import hpsearch.cli.search_commands
    import hpsearch.cli.show_commands
    import hpsearch.cli.worker_command
    import hpsearch.search.worker_pool as worker_pool
    import hpsearch.workflows.run
    import hpsearch.workflows.worker_process as worker_process
    from tests.support import (
        crash_points,  # noqa: F401
        fake_trainer,
    )

    if trainer == "fake":
        worker_process.load_trainer = lambda file, workspace, *, repeats: fake_trainer.make_fake_trainer()
    else:
        import torch._dynamo  # noqa: F401  # imported for its effect: torch loads it at the first step of an optimizer

        import hpsearch.cli.compare_command
        import hpsearch.cli.reproduce_command
        import hpsearch.cli.train_model  # noqa: F401
        from hpsearch.training.data import split as data

        fake_trainer.log_real_epochs()
        data.read_images = functools.cache(data.read_images)  # type: ignore[attr-defined]
        data.read_images("fashion-mnist", train=True, folder=None)  # type: ignore[attr-defined]
    worker_pool.subprocess = _Subprocess  # type: ignore[assignment]
    _warm_up()


def _warm_up() -> None:
    """Load what Optuna and SQLAlchemy load at first use, with a database in memory: no file may be open at a fork."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
    study = optuna.create_study(storage="sqlite:///:memory:", sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class _Server:
    """The process from which all others are forked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{path}.new")
        self._listener.listen(64)
        self._children: dict[int, tuple[list[str], socket.socket]] = {}
        self._wakeup, wakeup = os.pipe()
        for end in (self._wakeup, wakeup):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        os.rename(f"{path}.new", path)

    def serve(self) -> None:
        """Answer requests and reap children until standard input ends."""
        while True:
            ready, _, _ = select.select([self._listener, self._wakeup, 0], [], [])
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._listener in ready:
                connection, _ = self._listener.accept()
                try:
                    self._answer(connection)
                except (ConnectionError, ValueError):  # the client was killed meanwhile
                    connection.close()
            if 0 in ready:
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _, connection = self._children.pop(pid)
            with contextlib.suppress(OSError):  # the client is gone
                connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        size, files, _, _ = socket.recv_fds(connection, 4, 4)
        try:
            request = json.loads(_receive(connection, int.from_bytes(size, "big")))
            if "arguments" in request:
                self._fork(connection, request, files)
                return
        finally:
            for file in files:
                os.close(file)
        if "list" in request:
            answer: Any = {pid: arguments for pid, (arguments, _) in self._children.items()}
        else:
            pids = [pid for pid in request["kill"] if pid in self._children]
            for pid in pids:
                os.kill(pid, request["signal"])
            answer = len(pids)
        content = json.dumps(answer).encode()
        connection.sendall(len(content).to_bytes(4, "big") + content)
        connection.close()

    def _fork(self, connection: socket.socket, request: dict[str, Any], files: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become(request, files)
        self._children[pid] = (request["arguments"], connection)
        connection.sendall(pid.to_bytes(4, "big"))

    def _become(self, request: dict[str, Any], files: list[int]) -> None:
        """Run the command in this child process."""
        from hpsearch.cli.main import main
        from hpsearch.search.worker_pool import WORKER_ENVIRONMENT
        from tests.support.crash_points import arm

        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            high = [fcntl.fcntl(file, fcntl.F_DUPFD, 512) for file in files]
            os.closerange(3, 512)
            for number, file in zip(request["numbers"], high, strict=True):
                os.dup2(file, number)
                os.close(file)
            os.environ.clear()
            # Without it `hpsearch worker` would start itself again with this environment, as the fork server.
            os.environ.update({**request["env"], **WORKER_ENVIRONMENT, SOCKET: self._path})
            sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
            os.chdir(request["cwd"])
            arm()
            sys.argv = ["hpsearch", *request["arguments"]]
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    _load(sys.argv[2])
    # Threads do not survive a fork: none may have been started.
    _Server(sys.argv[1]).serve()
