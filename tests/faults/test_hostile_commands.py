"""Commands with hostile arguments and options: each ends in words that help, and no command says that hpsearch is at fault."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hpsearch.cli.main import COMMANDS
from tests.support.forkserver import shared_server
from tests.support.hostile_commands import VALID, hostile_commands
from tests.support.synthetic_data import write_tiny_study

COUNT = {"default": 60, "ci": 200}.get(os.environ.get("HYPOTHESIS_PROFILE", "default"), 60)
"""Commands that are run, of some 8,000 that can be generated."""
SERVES = "dashboard"
"""This command does not end by itself."""


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands in `VALID` name."""
    folder = tmp_path_factory.mktemp("hostile") / "folder"
    folder.mkdir()
    write_tiny_study(folder)
    for name in ("run", "finalists", "explain", "export", "train"):
        done = shared_server("real").run(folder, name, *VALID[name], *(["--final"] if name == "train" else []))
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
    return iter(random.Random(1).sample(commands, COUNT))


def test_no_generated_command_is_a_fault_of_hpsearch(whole_folder: Path, tmp_path: Path) -> None:
    bad = []
    for number, words in enumerate(generated()):
        folder = tmp_path / str(number) / "folder"
        shutil.copytree(whole_folder, folder, symlinks=True)
        done = shared_server("real").run(folder, *words)
        said = done.stdout + done.stderr
        reasons = [word for word in ("fault of hpsearch", "Traceback", "Warning", "\x1b") if word in said]
        if done.returncode not in (0, 1, 2, 3):
            reasons.append(f"exit code {done.returncode}")
        if done.returncode in (1, 2, 3) and not re.search(r"error: |Error: |^✗", said, re.MULTILINE):
            reasons.append("no error is named")
        if reasons:
            bad.append((words, reasons, said[-300:]))
        shutil.rmtree(folder.parent)
    assert bad == []
