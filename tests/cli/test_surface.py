"""The command line as a set: a command or an option appears or goes on purpose, never in passing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from hpsearch.cli.main import COMMANDS, GROUPS, app
from hpsearch.cli.options import Options, expand_options

LONGEST_SUMMARY = 60

WORKSPACE = {"--storage", "--runs"}
ENGINE = {"--engine", "--address", "--cpus-per-worker", "--gpus-per-worker"}
SURFACE: dict[str, set[str]] = {
    "init": {"[FILE]", "--from"},
    "check": {"FILE", "--estimate", "--data", "--json"},
    "data": {"[NAME]", "--data", "--index", "--picture", "--seed", "--json"},
    "doctor": {*WORKSPACE, "--data", "--json"},
    "run": {"STUDY", "--trials", "--epochs", "--time", "--workers", *WORKSPACE, "--data", "--device", *ENGINE, "--retry-failed", "--json"},
    "try": {"STUDY", "[N] [NAME=VALUE]...", *WORKSPACE, "--data", "--device", "--json"},
    "stop": {"STUDY", *WORKSPACE},
    "finalists": {"STUDY", "--top", "--seeds", "--per", "--workers", *WORKSPACE, "--data", "--device", *ENGINE, "--json"},
    "explain": {"STUDY", "--seeds", "--trial", "--workers", *WORKSPACE, "--data", "--device", *ENGINE, "--json"},
    "worker": {
        "STUDY",
        "--name",
        "--trials",
        "--epochs",
        "--time",
        *WORKSPACE,
        "--data",
        "--device",
        "--only",
        "--order",
    },
    "show": {"STUDY", "[N]", *WORKSPACE, "--json", "--csv", "--watch"},
    "ls": {*WORKSPACE, "--json"},
    "report": {"STUDY...", "--output", "-o", "--open", "--pdf", *WORKSPACE},
    "dashboard": {"[STUDY]", *WORKSPACE, "--host", "--port", "--open", "--allow-edit", "--token", "--allow-host"},
    "compare": {"FIRST", "SECOND", "--trust", *WORKSPACE, "--data", "--device", "--json"},
    "reproduce": {"STUDY", "N", "--trust", *WORKSPACE, "--data", "--device", "--json"},
    "export": {"STUDY", "--output", "-o", "--trial", "--top", "--per", *WORKSPACE},
    "train": {"FILE", "--final", "--seeds", "--output", "-o", "--force", "--onnx", "--trust", *WORKSPACE, "--data", "--device", "--json"},
    "predict": {"MODEL", "PICTURE...", "--trust", "--json"},
    "summary": {"MODEL", "[NAME=VALUE]...", "--use", "--json"},
    "rm": {"STUDY", *WORKSPACE, "--yes", "-y"},
}


def command_of(name: str) -> Any:
    """A command as typer builds it."""
    group: Any = typer.main.get_command(app)
    return group.get_command(typer.Context(group), name)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], env={"PATH": "", **environment}
    )


def test_commands_are_these() -> None:
    assert list(COMMANDS) == list(SURFACE)


def test_no_command_stands_in_two_groups() -> None:
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)


@pytest.mark.parametrize("name", SURFACE)
def test_arguments_and_options_are_these(name: str) -> None:
    found: set[str] = set()
    for parameter in command_of(name).params:
        argument = parameter.param_type_name == "argument"
        found |= {str(parameter.metavar)} if argument else {*parameter.opts, *parameter.secondary_opts}
    assert found - {"--help"} == SURFACE[name]


@pytest.mark.parametrize("name", SURFACE)
def test_command_and_its_options_have_help(name: str) -> None:
    command = command_of(name)
    assert command.name == name
    assert command.help
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", SURFACE)
def test_summary_is_one_short_line(name: str) -> None:
    summary = COMMANDS[name].summary
    assert 0 < len(summary) <= LONGEST_SUMMARY
    assert "\n" not in summary
    assert not summary.endswith(("…", ".", ":"))


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_help_shows_every_group_and_whole_summaries(columns: int) -> None:
    shown = run_python(
        "import sys; sys.argv = ['hpsearch', '--help']; import hpsearch.cli.main as m; m.main()", COLUMNS=str(columns)
    ).stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert max(map(len, shown.splitlines())) <= columns
    assert "..." not in shown.replace("[ARGS]...", "")
    assert [line.removesuffix(":") for line in lines if line.removesuffix(":") in GROUPS] == list(GROUPS)
    assert [line for line in lines if line.partition(" ")[0] in COMMANDS] == [
        f"{name:<{max(map(len, COMMANDS))}}  {entry.summary}" for name, entry in COMMANDS.items()
    ]


def test_help_loads_no_command() -> None:
    code = (
        "import sys; sys.argv = ['hpsearch', '--help']; import hpsearch.cli.main as m\n"
        "try:\n    m.main()\nfinally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    loaded = run_python(code).stderr.split()
    commands = {f"hpsearch.cli.{entry.function.partition(':')[0]}" for entry in COMMANDS.values()}
    assert "hpsearch.cli.main" in loaded
    heavy = {"torch", "optuna", "numpy", "pydantic", "sqlalchemy", "hpsearch.config.registration"}
    assert sorted((heavy | commands).intersection(loaded)) == []


@pytest.mark.parametrize(
    ("typed", "says"), [("chekc", "Did you mean 'check'?"), ("finalist", "Did you mean 'finalists'?"), ("xyzzy", "Known: init, check")]
)
def test_unknown_command_is_answered_with_the_closest_one(typed: str, says: str) -> None:
    done = run_python(f"import sys; sys.argv = ['hpsearch', {typed!r}]; import hpsearch.cli.main as m; m.main()")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"No such command '{typed}'. {says}" in " ".join(done.stderr.split())


def make_pair(
    *, first: Annotated[int, typer.Option("--first")] = 1, second: Annotated[int, typer.Option("--second")] = 2
) -> tuple[int, int]:
    return first, second


def command_with_a_bundle(name: str, *, pair: Annotated[tuple[int, int], Options(make_pair)], last: bool = False) -> None:
    typer.echo((name, pair, last))


def test_options_of_a_bundle_become_one_value() -> None:
    single = typer.Typer()
    single.command()(expand_options(command_with_a_bundle))
    result = CliRunner().invoke(single, ["here", "--second", "5", "--last"])
    assert result.output == "('here', (1, 5), True)\n"
