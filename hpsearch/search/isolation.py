"""Train each configuration in a process of its own, so that user code cannot change the next trial.

User code may change a setting of torch, patch a library, or keep values in its module. A later trial would then give other
results, and nobody could repeat them. So a study with component files calls its trainer in forked processes. A fork takes
milliseconds, because the worker has loaded torch and the images before, and both processes share this memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from hpsearch.errors import CheckpointError, DiskError, WorkerDiedError
from hpsearch.search.trial_failure import TrialFailure
from hpsearch.search.worker import Trainer

Result = TypeVar("Result")
CONTEXT = multiprocessing.get_context("fork")


def isolated(trainer: Trainer) -> Trainer:
    """Return a trainer that calls another trainer in forked processes.

    Args:
        trainer: the trainer. It must not use CUDA before it is called, because a forked process could not use CUDA then.

    Returns:
        The trainer. Its functions raise `TrialFailure` for an error of the trainer, and `WorkerDiedError` if the forked process dies.
    """
    return replace(
        trainer,
        train=lambda config, checkpoint, owner, rungs: in_fork(lambda: trainer.train(config, checkpoint, owner, rungs)),
        cost=lambda config: _call(lambda: trainer.cost(config)),
        facts=lambda config: _call(lambda: trainer.facts(config)),
    )


def _call(function: Callable[[], Result]) -> Result:
    """Call a function in a forked process, which ends before its result is returned."""
    with closing(in_fork(lambda: iter([function()]))) as values:
        return next(values)


def in_fork(make: Callable[[], Iterator[Result]]) -> Generator[Result, None, None]:
    """Run an iterator in a forked process and yield its values here. What the iterator changes in memory does not reach this process.

    The forked process computes a value only when the caller asks for it. It is killed when the caller closes this generator.

    Args:
        make: returns the iterator. It is called in the forked process.

    Yields:
        The values of the iterator.

    Raises:
        CheckpointError, DiskError: the iterator raised this error.
        TrialFailure: `make` or the iterator raised any other error.
        WorkerDiedError: the forked process died.
    """
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(make, ours, theirs))
    with warnings.catch_warnings():
        # Python warns of forks in a process with threads. The only thread of a worker waits for its supervisor and holds no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        theirs.close()
        while True:
            try:
                ours.send(None)
                has_value, result = ours.recv()
            except (EOFError, OSError) as error:
                process.join()
                raise WorkerDiedError(process.exitcode or 0) from error
            if isinstance(result, BaseException):
                raise result
            if not has_value:
                return
            yield result
    finally:
        ours.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # also the processes that the user's code has started
        process.kill()
        process.join()


def _serve(make: Callable[[], Iterator[Any]], ours: Connection, theirs: Connection) -> None:
    """Advance an iterator once for each message, and answer with its value, its end or its error."""
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ours.close()
    values: Iterator[Any] | None = None
    while True:
        try:
            theirs.recv()
        except EOFError:  # the parent is gone
            return
        try:
            values = make() if values is None else values
            answer = True, next(values)
        except StopIteration:
            answer = False, None
        except (CheckpointError, DiskError) as error:
            answer = False, error
        except (Exception, SystemExit) as error:
            answer = False, TrialFailure.from_error(error)
        theirs.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)
