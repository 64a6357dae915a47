"""The command line as a set: a command or an option appears or goes on purpose, never in passing."""

from __future__ import annotations

import pytest
import typer

from hpsearch.cli.main import app

PLACE = {"--storage", "--runs"}
ENGINE = {"--engine", "--address", "--cpus-per-worker", "--gpus-per-worker"}
SURFACE: dict[str, set[str]] = {
    "init": {"[FILE]", "--from"},
    "check": {"FILE", "--estimate", "--data", "--json"},
    "run": {"STUDY", "--trials", "--time", "--workers", *PLACE, "--data", "--device", *ENGINE, "--retry-failed", "--json"},
    "try": {"STUDY", "[N] [NAME=VALUE]...", *PLACE, "--data", "--device", "--json"},
    "stop": {"STUDY", *PLACE},
    "show": {"STUDY", "[N]", *PLACE, "--json", "--csv", "--watch"},
    "finalists": {"STUDY", "--top", "--seeds", "--per", "--workers", *PLACE, "--data", "--device", *ENGINE, "--json"},
    "explain": {"STUDY", "--seeds", "--trial", "--workers", *PLACE, "--data", "--device", *ENGINE, "--json"},
    "report": {"STUDY...", "--output", "-o", "--open", "--pdf", *PLACE},
    "dashboard": {"[STUDY]", *PLACE, "--host", "--port", "--open", "--allow-edit", "--token", "--allow-host"},
    "compare": {"FIRST", "SECOND", *PLACE, "--data", "--device", "--json"},
    "reproduce": {"STUDY", "N", "--trust", *PLACE, "--data", "--device", "--json"},
    "ls": {*PLACE, "--json"},
    "export": {"STUDY", "--output", "-o", "--trial", "--top", "--per", *PLACE},
    "train": {"FILE", "--final", "--seeds", "--output", "-o", "--force", "--onnx", "--trust", *PLACE, "--data", "--device", "--json"},
    "predict": {"MODEL", "PICTURE...", "--json"},
    "rm": {"STUDY", *PLACE, "--yes", "-y"},
    "data": {"[NAME]", "--data", "--index", "--picture", "--seed", "--json"},
    "summary": {"MODEL", "[NAME=VALUE]...", "--use", "--json"},
    "doctor": {*PLACE, "--data", "--json"},
    "worker": {
        "STUDY",
        "--name",
        "--trials",
        "--time",
        *PLACE,
        "--data",
        "--device",
        "--only",
        "--order",
    },
}


def commands() -> dict[str, typer.core.TyperCommand]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_commands_are_these() -> None:
    assert list(commands()) == list(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_arguments_and_options_are_these(name: str) -> None:
    found: set[str] = set()
    for parameter in commands()[name].params:
        argument = parameter.param_type_name == "argument"
        found |= {str(parameter.metavar)} if argument else {*parameter.opts, *parameter.secondary_opts}
    assert found == SURFACE[name]


@pytest.mark.parametrize("name", SURFACE)
def test_command_and_its_options_have_help(name: str) -> None:
    assert commands()[name].help
    for parameter in commands()[name].params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"
