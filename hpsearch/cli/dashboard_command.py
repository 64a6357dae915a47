"""The command dashboard: optuna-dashboard on a storage, kept to who may see it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from hpsearch.cli.console import note, say
from hpsearch.cli.options import RunsOption, StorageOption
from hpsearch.config.paths import DEFAULT_RUNS


def dashboard(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Open at this study: a name, or a study file.", show_default=False)
    ] = None,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    allow_edit: Annotated[bool, typer.Option("--allow-edit", help="Let notes be written, trials failed, studies deleted.")] = False,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="What a visitor must know. [default: $HPSEARCH_DASHBOARD_TOKEN, or made anew]"),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A host name by which it may be asked; may be repeated.")
    ] = None,
) -> None:
    """Serve optuna-dashboard for the studies of a storage: on this machine alone, and to look at only.

    On any other address than this machine's own it asks every visitor for a token. Ctrl-C ends it.
    """
    from hpsearch.report.dashboard.access import AccessPolicy, is_loopback, own_names
    from hpsearch.report.dashboard.server import TOKEN_VARIABLE, Server, choose_token, make_app
    from hpsearch.storage.optuna_internals import get_study_id
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.dashboard_sync import DashboardSync
    from hpsearch.workflows.run import study_name

    workspace = Workspace(storage=storage, runs=runs)
    secret = choose_token(token or os.environ.get(TOKEN_VARIABLE), host)
    # A study that is asked for exists; without one there may not even be a database yet.
    store, path = (workspace.open_or_create(), "/dashboard") if study is None else (workspace.open(), "")
    if study is not None:
        path = f"/dashboard/studies/{get_study_id(store.load(study_name(study)))}"
    names = frozenset(name.lower() for name in allow_host or []) | own_names(host)
    policy = AccessPolicy(host=host, names=names, token=secret, allow_edit=allow_edit)
    server = Server(make_app(store, workspace.paths.artifacts, policy), host, port)
    address = server.address(path, token=secret)
    sync = DashboardSync(workspace, store, only=None if study is None else study_name(study))
    try:
        with _signals() as received:
            say(address)
            sync.start()
            note(f"Serves {store}, {'to look at and to edit' if allow_edit else 'to look at only'}. Ctrl-C ends it.")
            if not is_loopback(host):
                note("Whoever has this address is let in, and it travels unencrypted: prefer a tunnel, ssh -L.", style="yellow")
            with _opened(address, secret=secret is not None, asked=open_browser):
                server.run()
    finally:
        sync.stop()
        store.dispose()
    if received:
        sys.exit(128 + received[0])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end this block, and are noted in the list."""
    received: list[int] = []

    def end(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _opened(address: str, *, secret: bool, asked: bool) -> Iterator[None]:
    """Open the address in the browser if that was asked for."""
    if not asked:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hpsearch-") as folder:
        if secret:  # a browser's command line is read by everybody, and the address holds the token
            page = Path(folder) / "dashboard.html"
            page.touch(mode=0o600)
            page.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={escape(address)}">\n', encoding="utf-8")
            address = page.as_uri()
        if not webbrowser.open(address):
            note("There is no browser to open it in; the address is above.")
        yield
