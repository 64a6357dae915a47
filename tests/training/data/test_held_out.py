"""Only final training can load the test images: checked in the source code, and with a loader that raises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.imports import MAY_READ_TEST_IMAGES, TEST_IMAGES, file_of, imported, modules
from tests.support.synthetic_data import STRIPES, command

ROOT = Path(__file__).resolve().parents[3]
READER = "training.data.datasets"
"""The module with `read_images`, which accepts `train=False`."""

STUDY = """
name = "guarded"
use = ["stripes.py"]
keep = 2

[data]
dataset = "stripes"
validation_images = 50

[budget]
trials = 2

[space]
model = "lenet5"
epochs = 2
lr = { float = [1e-3, 1e-2], log = true }
"""
WORD = "the test split was read"


def _asks_for_test_images(module: str) -> bool:
    """Return whether a module passes a value other than `True` as `train=`."""
    tree = ast.parse(file_of(module).read_text(encoding="utf-8"))
    given = [keyword.value for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords if keyword.arg == "train"]
    return any(not (isinstance(value, ast.Constant) and value.value is True) for value in given if _is_flag(value))


def _is_flag(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id == "train")


def test_one_module_alone_asks_for_the_test_images() -> None:
    # The reader itself passes the flag to a user's factory.
    assert {module for module in modules() if _asks_for_test_images(module)} == {TEST_IMAGES, READER}


def test_what_reads_images_is_used_by_two_modules_alone() -> None:
    users = {module for module in modules() if READER in imported(module) and "read_images" in file_of(module).read_text(encoding="utf-8")}
    assert users == {"training.data.split", TEST_IMAGES}


def test_final_training_alone_imports_the_test_split() -> None:
    assert {module for module in modules() if TEST_IMAGES in imported(module)} == MAY_READ_TEST_IMAGES - {TEST_IMAGES}


@pytest.mark.slow
def test_every_command_but_the_last_works_where_the_test_images_raise(tmp_path: Path) -> None:
    guard = f"    if not train:\n        raise AssertionError({WORD!r})\n    draws"
    assert "    draws" in STRIPES
    (tmp_path / "stripes.py").write_text(STRIPES.replace("    draws", guard, 1))
    (tmp_path / "guarded.toml").write_text(STUDY)
    for arguments in (
        ("check", "guarded.toml", "--estimate"),
        ("run", "guarded.toml", "--workers", "1"),
        ("try", "guarded", "lr=0.002"),
        ("show", "guarded"),
        ("compare", "guarded/0", "guarded/1"),
        ("export", "guarded", "-o", "best.toml"),
        ("reproduce", "guarded", "0"),
        ("train", "best.toml"),
    ):
        done = command(tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    last = command(tmp_path, "train", "best.toml", "--final")
    assert last.returncode != 0
    assert WORD in last.stderr
