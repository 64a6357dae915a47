"""Connect a supervisor with a worker process by a pair of sockets.

When the supervisor ends, the worker reads the end of the connection. Before the worker ends, it sends how it ends. A process that
ends without this message has died, whatever its exit code is.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from pydantic import BaseModel, ValidationError

from hpsearch.config.registration import component_fault
from hpsearch.errors import HpsearchError, OutageError, StudyStoppedError, UsageError, WorkerDiedError

EXIT_GRACE = 3.0
"""Seconds that a worker has to end after its supervisor has ended. Then it is killed."""
MAX_MESSAGE = 10_000
"""Maximum number of characters of an error message. A socket takes this amount at once."""
KINDS = {kind.exit_code: kind for kind in (StudyStoppedError, UsageError, OutageError)}
"""The errors that a supervisor raises for a worker, by their exit codes."""


class WorkerEnd(BaseModel, frozen=True):
    """How a worker ended.

    Attributes:
        exit_code: exit code of the worker's error; 0 if the worker is done or was stopped.
        message: the message of the error.
        hint: the hint of the error.
        cause_of_death: how the process of a trial died; empty if it did not die.
    """

    exit_code: int = 0
    message: str = ""
    hint: str = ""
    cause_of_death: str = ""

    @property
    def error(self) -> HpsearchError | None:
        """The error of the worker; None without an error."""
        return KINDS.get(self.exit_code, StudyStoppedError)(self.message, hint=self.hint) if self.exit_code else None


class WorkerLink:
    """The supervisor's end of the connection.

    Attributes:
        descriptor: the file descriptor of the worker's end. The new process inherits it.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._end: WorkerEnd | None = None
        self.descriptor = self._theirs.fileno()

    def close_worker_end(self) -> None:
        """Close the worker's end in this process, after the worker has inherited it."""
        self._theirs.close()

    def read_end(self) -> WorkerEnd | None:
        """Read how the worker ended, without waiting.

        Returns:
            The message of the worker; None if the worker has sent none so far.
        """
        if self._end is None:
            try:
                self._end = WorkerEnd.model_validate_json(self._ours.recv(1_000_000))
            except (OSError, ValidationError):
                return None
        return self._end

    def close(self) -> None:
        """Close the connection. If the worker still lives, it ends soon. Its message is kept."""
        self.read_end()
        self._ours.close()
        self._theirs.close()


@contextmanager
def link_to_supervisor(descriptor: int | None) -> Iterator[None]:
    """Connect this worker process with its supervisor for the time of a `with` block.

    When the block is left, the supervisor is told whether the work is done or which error was raised. If the supervisor ends before,
    this process is stopped by SIGTERM, and killed after EXIT_GRACE seconds.

    Args:
        descriptor: file descriptor of this process's socket to the supervisor. With None there is no supervisor, and nothing is done.

    Yields:
        Nothing.
    """
    if descriptor is None:
        yield
        return
    os.set_inheritable(descriptor, False)
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_supervisor, args=(connection,), daemon=True).start()
    end: WorkerEnd | None = None  # stays None if the block is left by a `SystemExit` that is no error
    try:
        yield
        end = WorkerEnd()
    except WorkerDiedError as error:
        end = WorkerEnd(exit_code=error.exit_code, message=error.message, cause_of_death=error.cause)
        raise
    except (Exception, SystemExit) as error:
        fault = error if isinstance(error, HpsearchError) else component_fault(error)
        if fault is not None:
            end = WorkerEnd(exit_code=fault.exit_code, message=fault.message[:MAX_MESSAGE], hint=fault.hint[:MAX_MESSAGE])
        elif isinstance(error, Exception):
            message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
            end = WorkerEnd(
                exit_code=HpsearchError.exit_code, message=message, hint="This is a fault of hpsearch. The worker's log shows more."
            )
        raise
    finally:
        if end is not None:
            try:
                connection.sendall(end.model_dump_json().encode())
            except OSError:  # the supervisor is gone
                kill_session(os.getpid())


def kill_session(session: int) -> None:
    """Kill all processes of a session.

    Args:
        session: id of the session. A worker begins a session, whose id is the process id of the worker. All processes that the worker
            starts belong to the session, also after the death of the worker.
    """
    for pid in sorted(psutil.pids(), key=lambda pid: pid == os.getpid()):  # this process is the last
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)


def _end_with_supervisor(connection: socket.socket) -> None:
    """Stop this worker after its supervisor has ended. Kill it after EXIT_GRACE, with all processes that it has started."""
    with suppress(OSError):
        while connection.recv(1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(EXIT_GRACE)
    kill_session(os.getpid())
    os._exit(128 + signal.SIGTERM)
