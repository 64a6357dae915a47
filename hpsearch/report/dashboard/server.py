"""Serves the WSGI app of optuna-dashboard with an access policy. Records that only hpsearch reads are left out."""

from __future__ import annotations

import copy
import errno
import logging
import re
import secrets
import socket
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import UsageError
from hpsearch.formatting import escape_csv, show
from hpsearch.report.dashboard.access import AccessMiddleware, AccessPolicy, App, is_loopback
from hpsearch.storage.database import Store
from hpsearch.storage.optuna_internals import CachedStorage
from hpsearch.storage.records import PREFIX, StudyKey, TrialKey

TOKEN_VARIABLE = "HPSEARCH_DASHBOARD_TOKEN"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
"""Pattern of a valid token.

A token of this length cannot be guessed. Its characters have no special meaning in an address, in a cookie or
on a command line.
"""
TOKEN_BYTES = 24
THREADS = 8
"""Number of threads. A browser sends up to six requests at the same time."""
CONNECTIONS = 200
"""Maximum number of open connections. When there is one more, the oldest is closed.

Otherwise clients that send or read slowly, or not at all, could hold all connections. A request is answered in far less time than
200 others need to connect. `select`, which waitress uses, permits 1,024 open files.
"""
LARGEST_REQUEST = 1_000_000
"""Maximum number of bytes of a request. The largest permitted request writes a note."""
CSV_PATH = re.compile(r"/+csv/.*")
HIDDEN = frozenset({TrialKey.RUN, TrialKey.EPOCHS, TrialKey.ATTEMPTS})
"""Records of a trial that only hpsearch reads. The dashboard leaves them out.

They have several kilobytes for each trial, and a page would show each record on one line.
"""
ARTIFACT_PATH = re.compile(r"/+artifacts/\d+(?:/\d+)?/(?P<number>[0-9a-fA-F-]+)/*")


class DashboardStorage(CachedStorage):
    """An Optuna storage for the dashboard. Lists of trials and studies leave out the records that only hpsearch reads.

    Args:
        rdb: the database.
    """

    def __init__(self, rdb: RDBStorage) -> None:
        super().__init__(rdb)
        self._identities: dict[int, list[Any]] = {}

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return all trials of a study without the records in `HIDDEN`."""
        attributes = self.get_study_user_attrs(study_id)
        identity = [value for key, value in attributes.items() if key.startswith(StudyKey.IDENTITY)]
        with self._lock:
            # SQLite gives the id of a deleted study to the next study. Then forget the trials of the deleted one.
            if self._identities.setdefault(study_id, identity) != identity:
                self._identities[study_id] = identity
                self._studies.pop(study_id, None)
        return [_shown(trial) for trial in super().get_all_trials(study_id, deepcopy, states)]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best trial of a study without the records in `HIDDEN`."""
        return _shown(super().get_best_trial(study_id))

    def get_all_studies(self) -> list[Any]:
        """Return all studies without the records of hpsearch."""
        studies = super().get_all_studies()
        for study in studies:
            study.user_attrs = {key: value for key, value in study.user_attrs.items() if not key.startswith(PREFIX)}
        return studies


def _shown(trial: FrozenTrial) -> FrozenTrial:
    # The copy keeps the trial in the cache of finished trials unchanged.
    shown = copy.copy(trial)
    shown.user_attrs = {key: value for key, value in trial.user_attrs.items() if key not in HIDDEN}
    return shown


def choose_token(given: str | None, host: str) -> str | None:
    """Return the token that requests must contain.

    Args:
        given: the token that the user has given, if any.
        host: the address of the server.

    Returns:
        The given token. If no token is given: a new token, or None if only this machine reaches the address.

    Raises:
        UsageError: the token is too short or too long, or has characters that are not allowed.
    """
    if given is None:
        return None if is_loopback(host) else secrets.token_urlsafe(TOKEN_BYTES)
    if not TOKEN.fullmatch(given):
        raise UsageError(
            f"a token must be 16 to 200 letters, digits, '-' or '_', but the one given has {len(given)} characters or others",
            hint="Leave it out: on any address but this machine's own one is made.",
        )
    return given


def make_app(store: Store, artifacts: Path, policy: AccessPolicy) -> App:
    """Return the app of optuna-dashboard for a storage, with an access policy.

    Args:
        store: the storage.
        artifacts: the folder of the artifact store.
        policy: decides which requests are answered.

    Returns:
        The WSGI app.
    """
    import optuna_dashboard

    # The path is absolute, because the working folder may change.
    inner = optuna_dashboard.wsgi(DashboardStorage(store.rdb), artifact_store=_Artifacts(artifacts.absolute()))
    return AccessMiddleware(_without_missing_files(_without_formulas(inner), artifacts), policy)


class _Artifacts(FileSystemArtifactStore):
    """An artifact store in which a missing file is no error. So a study can be deleted although a file of it is missing."""

    def remove(self, artifact_id: str) -> None:
        with suppress(ArtifactNotFound):
            super().remove(artifact_id)


class Server:
    """A server that already listens. `run` answers requests until it is interrupted.

    The server is waitress. It is one process with a few threads, in pure Python, and is made for production. The servers
    of the standard library and of bottle are made for development. gunicorn forks its process, and an open database
    connection does not work after a fork.

    Raises:
        UsageError: the server cannot listen on the address.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        from waitress.channel import HTTPChannel
        from waitress.server import TcpWSGIServer, create_server

        class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
            def __init__(self, server: Any, *arguments: Any, **options: Any) -> None:
                super().__init__(server, *arguments, **options)
                if len(server.active_channels) > CONNECTIONS:
                    next(iter(server.active_channels.values())).handle_close()

        # waitress would log each request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        sockets: dict[int, Any] = {}
        try:
            self._server = create_server(
                app,
                sockets,
                host="127.0.0.1" if host == "localhost" else host,
                port=port,
                threads=THREADS,
                max_request_body_size=LARGEST_REQUEST,
                ident=None,
                connection_limit=4 * CONNECTIONS,  # never reached, because waitress would then accept no connection
            )
        except (OSError, ValueError) as error:
            raise _cannot_listen(host, port, error) from error
        for each in sockets.values():
            if isinstance(each, TcpWSGIServer):
                each.channel_class = Channel
        listening = getattr(self._server, "effective_listen", None) or [(host, self._server.effective_port)]
        self.host = host
        self.port = int(listening[0][1])

    def address(self, path: str = "/dashboard", *, token: str | None = None) -> str:
        """Return an address that a person can open.

        Args:
            path: path of the page.
            token: the token that is added to the address; None adds no token.

        Returns:
            The URL.
        """
        name = self.host
        if name in ("0.0.0.0", "::"):
            name = socket.gethostname()
        elif ":" in name:
            name = f"[{name}]"
        return f"http://{name}:{self.port}{path}" + (f"?token={token}" if token else "")

    def run(self) -> None:
        """Answer requests until KeyboardInterrupt or SystemExit. Then finish the open requests."""
        self._server.run()
        self._server.close()


def _cannot_listen(host: str, port: int, error: Exception) -> UsageError:
    code = error.errno if isinstance(error, OSError) else None
    other = "Choose another with --port; --port 0 takes one that is free."
    if code == errno.EADDRINUSE:
        return UsageError(f"port {port} of {host} is taken", hint=other)
    if code == errno.EACCES:
        return UsageError(f"this user may not listen on port {port}", hint=other)
    return UsageError(
        f"cannot listen on {show(host)}, which must be an address of this machine", hint="127.0.0.1 is reached from here alone."
    )


def _without_formulas(app: App) -> App:
    """Wrap an app so that no cell of its CSV files is a formula."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not CSV_PATH.fullmatch(str(environ.get("PATH_INFO", ""))):
            return app(environ, start_response)
        begun: list[Any] = []
        body = app(environ, lambda *head: begun.append(head))
        content = b"".join(body)
        status, headers, *more = begun[-1]
        kinds = [value for name, value in headers if name.lower() == "content-type"]
        if kinds and kinds[0].startswith("text/csv"):
            content = escape_csv(content.decode("utf-8")).encode("utf-8")
            own = {"content-type": "text/csv; charset=utf-8", "content-length": str(len(content))}
            headers = [(name, own.get(name.lower(), value)) for name, value in headers]
        start_response(status, headers, *more)
        return [content]

    return answer


def _without_missing_files(app: App, artifacts: Path) -> App:
    """Wrap an app so that it answers 404 for an artifact whose file is missing."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = ARTIFACT_PATH.fullmatch(str(environ.get("PATH_INFO", "")))
        if asked is None or (artifacts / asked["number"]).exists():
            return app(environ, start_response)
        content = f"This file is not in {artifacts}. Was it made with another folder of runs? --runs says which.\n".encode()
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(content)))])
        return [content]

    return answer
