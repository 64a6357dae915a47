"""The command dashboard: optuna-dashboard on a storage, with access control."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import note, say
from hpsearch.cli.signals import collect_signals
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.errors import StudyNotFoundError
from hpsearch.report.dashboard.access import AccessPolicy, is_loopback, own_names
from hpsearch.report.dashboard.server import TOKEN_VARIABLE, Server, choose_token, make_app
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.workflows.dashboard_sync import DashboardSync
from hpsearch.workflows.run import study_name


def dashboard(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="The study to open: its name, or a study file.", show_default=False),
    ] = None,
    *,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="The port to listen on; 0 chooses a free one.")] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the dashboard in the browser.")] = False,
    allow_edit: Annotated[bool, typer.Option("--allow-edit", help="Let visitors write notes, fail trials and delete studies.")] = False,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="The secret of visitors. [default: $HPSEARCH_DASHBOARD_TOKEN, or a new one]"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A host name that browsers may use for the server; may be repeated."),
    ] = None,
    workspace: StoredWorkspace,
) -> None:
    """Serve optuna-dashboard for the studies in a storage, on this machine alone and read-only.

    On another address than this machine's own, every visitor must give a token. Ctrl-C stops the server.
    """
    secret = choose_token(token or os.environ.get(TOKEN_VARIABLE), host)
    name = None if study is None else study_name(study)
    try:
        store = workspace.open(read_only=not allow_edit)
    except StudyNotFoundError:
        if name is not None:
            raise
        workspace.open_or_create().dispose()  # the dashboard may be started before the first search
        store = workspace.open(read_only=not allow_edit)
    path = "/dashboard" if name is None else f"/dashboard/studies/{get_study_id(store.load(name))}"
    names = frozenset(each.lower() for each in allow_host or []) | own_names(host)
    policy = AccessPolicy(host=host, names=names, token=secret, allow_edit=allow_edit)
    server = Server(make_app(store, workspace.paths.artifacts, policy), host, port)
    address = server.address(path, token=secret)
    sync = DashboardSync(workspace, only=name)
    with collect_signals() as received:
        try:
            say(address)
            sync.start()
            note(f"Serving {store}, {'with editing' if allow_edit else 'read-only'}. Ctrl-C stops the server.")
            if not is_loopback(host):
                note("This address gives access, and it travels unencrypted. A tunnel is safer: ssh -L.", style="yellow")
            with tempfile.TemporaryDirectory(prefix="hpsearch-") as folder:
                if open_browser:
                    _open(address, secret=secret is not None, folder=Path(folder))
                server.run()
        except KeyboardInterrupt:
            pass
        finally:
            sync.stop()
            store.dispose()
    if received:
        sys.exit(128 + received[0])


def _open(address: str, *, secret: bool, folder: Path) -> None:
    """Open the address in the browser. The folder must exist as long as the server runs."""
    if secret:  # every user of the machine can read the browser's command line, which must not have the token
        page = folder / "dashboard.html"
        page.touch(mode=0o600)
        page.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={escape(address)}">\n', encoding="utf-8")
        address = page.as_uri()
    if not webbrowser.open(address):
        note("No browser was found. Open the address above yourself.")
