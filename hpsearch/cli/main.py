"""The command `hpsearch`: all commands by name, and how any of them ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hpsearch import __version__
from hpsearch.cli import compare_command as compare
from hpsearch.cli import dashboard_command as dashboard
from hpsearch.cli import repeat_commands as rerun
from hpsearch.cli import report_command as report
from hpsearch.cli import reproduce_command as reproduce
from hpsearch.cli import search_commands as search
from hpsearch.cli import show_commands as look
from hpsearch.cli import study_commands as study
from hpsearch.cli import tool_commands as machine
from hpsearch.cli import train_commands as train
from hpsearch.cli.console import note
from hpsearch.errors import HpsearchError

INTERRUPTED = 130
BROKEN_PIPE = 141

app = typer.Typer(
    name="hpsearch",
    help="Hyperparameter search for small image classifiers in PyTorch, on top of Optuna.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hpsearch {__version__}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    pass


# The order of a user's way.
app.command()(study.init)
app.command()(study.check)
app.command()(search.run)
app.command("try")(search.try_)
app.command()(search.stop)
app.command()(look.show)
app.command()(rerun.finalists)
app.command()(rerun.explain)
app.command()(report.report)
app.command()(dashboard.dashboard)
app.command()(compare.compare)
app.command()(reproduce.reproduce)
app.command()(look.ls)
app.command()(look.export)
app.command()(train.train)
app.command()(train.predict)
app.command()(study.rm)
app.command()(machine.data)
app.command()(machine.summary)
app.command()(machine.doctor)
app.command()(search.worker)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or study file, 3 no database, 130 after Ctrl-C."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app(args=[argument for argument in arguments if argument != "--debug"])
    except HpsearchError as error:
        if debug:
            raise
        fail(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe, `head` for example, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if debug:
            raise
        if type(error).__name__ == "StorageInternalError" or type(error).__module__.startswith("sqlalchemy."):
            from hpsearch.storage.database import database_error

            fail(database_error(error))
        note(f"error: {type(error).__name__}: {error}", style="red")
        note("  hint: This is a fault of hpsearch. The same command with --debug shows where.")
        sys.exit(HpsearchError.exit_code)


def fail(error: HpsearchError) -> None:
    """Say what went wrong and exit with the error's code."""
    note(f"error: {error.message}", style="red")
    if error.hint:
        note(f"  hint: {error.hint}")
    sys.exit(error.exit_code)
