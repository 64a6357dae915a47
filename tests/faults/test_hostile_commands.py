"""Hostile arguments, options and component files: each command ends in words that help, and none says that hpsearch is at fault."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hpsearch.cli.main import COMMANDS
from tests.support.hostile_commands import VALID, hostile_commands, hostile_components
from tests.support.synthetic_data import command, write_tiny_study

COMMANDS_RUN = {"ci": 80}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 40)
"""Commands that are run, of some 8,000 that can be generated."""
COMPONENTS_RUN = {"ci": 10}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 5)
"""Component files that are run, of some 240."""
SERVES = "dashboard"
"""This command does not end by itself."""


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands in `VALID` name."""
    folder = tmp_path_factory.mktemp("hostile") / "folder"
    folder.mkdir()
    write_tiny_study(folder)
    for name in ("run", "finalists", "explain", "export", "train"):
        done = command(folder, name, *VALID[name], *(["--final"] if name == "train" else []))
        assert done.returncode == 0, done.stderr
    Image.new("L", (28, 28)).save(folder / "plain.png")
    (folder / "looped").symlink_to("looped")
    (folder / "dangling").symlink_to("nowhere/x")
    (folder / "not-text.toml").write_bytes(b"\xff\xfe\0")
    return folder


def test_every_command_has_valid_arguments() -> None:
    assert set(VALID) == set(COMMANDS)


def generated() -> Iterator[list[str]]:
    """Some commands of each kind, the same in each run."""
    commands = [words for words in hostile_commands() if words[0] != SERVES]
    return iter(random.Random(1).sample(commands, COMMANDS_RUN))


def faults(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Find what a command said or did that it must not."""
    said = done.stdout + done.stderr
    found = [word for word in ("fault of hpsearch", "Traceback", "Warning", "\x1b") if word in said]
    if done.returncode not in (0, 1, 2, 3):
        found.append(f"exit code {done.returncode}")
    if done.returncode and not re.search(r"error: |Error: |FIX|failed", said):
        found.append("no error is named")
    return [*found, said[-500:]] if found else []


def test_no_generated_command_is_a_fault_of_hpsearch(whole_folder: Path, tmp_path: Path) -> None:
    bad = {}
    for number, words in enumerate(generated()):
        folder = tmp_path / str(number) / "folder"
        shutil.copytree(whole_folder, folder, symlinks=True)
        bad[tuple(words)] = faults(command(folder, *words))
        shutil.rmtree(folder.parent)
    assert {words: found for words, found in bad.items() if found} == {}


def test_no_generated_component_file_is_a_fault_of_hpsearch(tmp_path: Path) -> None:
    bad = {}
    for place, value, source, study in random.Random(1).sample(list(hostile_components()), COMPONENTS_RUN):
        (tmp_path / "stripes.py").write_text(source)
        (tmp_path / "stripes.toml").write_text(study)
        done = command(tmp_path, "run", "stripes.toml", "--workers", "1")
        bad[place, value] = faults(done)
        assert "stripes.toml:" not in done.stderr, "the study file itself is valid"
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert {case: found for case, found in bad.items() if found} == {}
