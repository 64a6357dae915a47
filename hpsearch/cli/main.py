"""The command `hpsearch`. It has the table of all commands, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hpsearch import __version__
from hpsearch.cli.console import note, prepare_streams, separate_results
from hpsearch.cli.options import expand_options
from hpsearch.errors import HpsearchError, UsageError, did_you_mean
from hpsearch.formatting import hide_credentials, one_line, show_path

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells. It is the sum of 128 and the number of SIGINT."""

TOO_MANY_FILES = os.strerror(errno.EMFILE)
OUT_OF_MEMORY = (os.strerror(errno.ENOMEM), "can't allocate memory", "CUDA out of memory", "can't start new thread")
"""How Python, the system's loader and torch say it. They raise errors of many types: ImportError, OSError, RuntimeError."""


@dataclass(frozen=True)
class Entry:
    """A command in the table.

    Attributes:
        summary: the line in `hpsearch --help`, maximum 60 characters. The help of the command is the docstring of `function`.
        function: the place of the command in this package, as `module:function`.
    """

    summary: str
    function: str


GROUPS: dict[str, dict[str, Entry]] = {
    "Set up": {
        "init": Entry("Write a commented study file to start from", "study_commands:init"),
        "check": Entry("Check a study file and print its search space", "study_commands:check"),
        "data": Entry("Find and verify a data set, and draw some of its images", "tool_commands:data"),
        "doctor": Entry("Check that this machine has what a search needs", "doctor_command:doctor"),
    },
    "Search": {
        "run": Entry("Run the search of a study, or continue it", "search_commands:run"),
        "try": Entry("Train one configuration that you choose", "search_commands:try_"),
        "stop": Entry("Stop a running search from another terminal", "control_commands:stop"),
        "finalists": Entry("Repeat the best trials with new seeds to find the winner", "repeat_commands:finalists"),
        "explain": Entry("Measure which settings made the winner better", "repeat_commands:explain"),
        "worker": Entry("Start one more worker for a study, on any machine", "worker_command:worker"),
    },
    "Look at results": {
        "show": Entry("Show a study's leaderboard, or one trial in detail", "show_commands:show"),
        "ls": Entry("List the studies in a storage", "show_commands:ls"),
        "report": Entry("Write an HTML report of one or more studies", "report_command:report"),
        "dashboard": Entry("Serve optuna-dashboard for the studies in a storage", "dashboard_command:dashboard"),
        "compare": Entry("Test whether one of two models is really better", "compare_command:compare"),
        "reproduce": Entry("Train a stored trial again and compare every epoch", "reproduce_command:reproduce"),
    },
    "Final model": {
        "export": Entry("Write the configuration of the best trial to a file", "export_command:export"),
        "train": Entry("Train a configuration; --final makes the final model", "train_command:train"),
        "predict": Entry("Classify images with a final model", "predict_command:predict"),
    },
    "Tools": {
        "summary": Entry("Print a model's layers, parameters and FLOPs", "tool_commands:summary"),
        "rm": Entry("Delete a study with its logs and checkpoints", "control_commands:rm"),
    },
}
"""All commands, in the groups and the order of `hpsearch --help`."""
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Settings of typer. Help texts have no markup, and `main` reports errors instead of typer."""


class Command(TyperCommand):
    """A command whose usage line shows the metavars of the arguments unchanged, such as `STUDY [N]`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return ["[OPTIONS]", *(str(parameter.metavar) for parameter in self.params if parameter.param_type_name == "argument")]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Only hpsearch itself prints on standard output."""
        with separate_results():
            return super().invoke(ctx)


class LazyGroup(TyperGroup):
    """The group of all commands in `GROUPS`. The module of a command is only imported when the command is called.

    The parameter `ctx` is typer's context. Its type is `Any`, because the class has no public name in all supported versions.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Import a command and return it, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].function.partition(":")
        command = getattr(importlib.import_module(f"hpsearch.cli.{module}"), function)
        single = typer.Typer(**PLAIN)
        single.command(cmd_name, cls=Command)(expand_options(command))
        return typer.main.get_command(single)  # type: ignore[return-value]  # for an app with one command, typer returns a command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in groups, each with its summary."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                # The names are padded to one width, so that the summaries of all groups begin in one column.
                formatter.write_dl([(name.ljust(max(map(len, COMMANDS))), entry.summary) for name, entry in commands.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name. Exit with the closest known name if the command is unknown."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. typer prints its own errors about wrong arguments, so passwords in them are hidden here."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):
                error.message = hide_credentials(message)  # type: ignore[attr-defined]  # the class has no public name
            raise


app = typer.Typer(
    name="hpsearch",
    cls=LazyGroup,
    help="Hyperparameter search for small image classifiers in PyTorch, built on Optuna.",
    epilog="hpsearch COMMAND --help explains a command.",
    no_args_is_help=True,
    **PLAIN,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"hpsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. It may stand anywhere.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    The exit codes are: 0 done, 1 failed, 2 wrong usage or study file, 3 no database, 130 after Ctrl-C.
    """
    prepare_streams()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        try:
            app(args=[argument for argument in arguments if argument != "--debug"], prog_name="hpsearch")
        finally:
            sys.stdout.flush()
    except HpsearchError as error:
        if debug:
            raise
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as error:
        if (fault := _fault_of_user_code(error)) is None or debug:
            raise
        _fail(fault)
    except Exception as error:
        if debug:
            raise
        if type(error).__name__ == "StorageInternalError" or type(error).__module__.startswith("sqlalchemy."):
            from hpsearch.storage.database import database_error  # loads Optuna, which `--help` does not need

            _fail(database_error(error))
        _fail(_explained(error))


def _fault_of_user_code(error: BaseException) -> HpsearchError | None:
    """Return the error for a fault of a component file, or None. `--help` loads no such file, nor the module that loads them."""
    registration: Any = sys.modules.get("hpsearch.config.registration")
    fault: HpsearchError | None = registration and registration.component_fault(error)
    return fault


def _explained(error: Exception) -> HpsearchError:
    """Return an error that hpsearch did not raise with a hint on its cause: this machine, user code, a file, or hpsearch itself."""
    said = one_line(str(error))
    if isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY):
        return HpsearchError("there is not enough memory", hint="Free some, or raise the limit of this process (`ulimit -v`).")
    if TOO_MANY_FILES in said:
        return HpsearchError("this process may not open more files", hint="Raise the limit, for example `ulimit -n 1024`.")
    if (fault := _fault_of_user_code(error)) is not None:
        return fault
    if isinstance(error, UnicodeEncodeError) and "surrogates" in said:  # Python reads bytes that are not UTF-8 as surrogates
        return UsageError("a name holds bytes that are not UTF-8", hint="Rename the file or the folder, or give another name.")
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{show_path(Path(os.fsdecode(error.filename)))}: "
        return UsageError(f"{where}{error.strerror}") if error.errno == errno.ENAMETOOLONG else HpsearchError(f"{where}{error.strerror}")
    hint = "This is a fault of hpsearch. The same command with --debug shows where."
    return HpsearchError(f"{type(error).__name__}: {said}", hint=hint)


def _fail(error: HpsearchError) -> None:
    """Print an error with its hint and exit with its code."""
    note(f"error: {error.message}", style="red")
    if error.hint:
        note(f"  hint: {error.hint}")
    sys.exit(error.exit_code)
