"""Rules of the command line about component files that fail or print. The commands run in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.cli.main import main

STUDY = """
name = "own"
use = ["own.py"]
data = { dataset = "own", validation_images = 20 }
budget = { trials = 3 }

[space]
model = "own_net"
epochs = 1
batch_size = { choices = [8, 16] }
"""
OWN = """
import sys
import torch
import hpsearch

print("imported")

@hpsearch.dataset("own")
def own(root, *, train):
    print("read")
    {dataset}
    return torch.zeros(60, 1, 8, 8, dtype=torch.uint8), torch.arange(60) % 2, ("a", "b")

@hpsearch.model("own_net")
class OwnNet(torch.nn.Module):
    def __init__(self, *, input_shape, classes):
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)
        {build}

    def forward(self, images):
        print("called")
        {forward}
        return self.layer(images.flatten(1))
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(STUDY)

    def call(*arguments: str, dataset: str = "pass", build: str = "pass", forward: str = "pass") -> tuple[int, str, str]:
        (tmp_path / "own.py").write_text(OWN.format(dataset=dataset, build=build, forward=forward))
        monkeypatch.setattr(sys, "argv", ["hpsearch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.mark.parametrize("command", [("check",), ("check", "--estimate")])
def test_what_a_component_file_prints_does_not_spoil_the_result(run: Run, command: tuple[str, ...]) -> None:
    code, out, err = run(*command, "own.toml", "--json")
    assert code == 0, err
    assert json.loads(out)["study"] == "own"
    assert "imported" in err
    assert ("read" in err and "called" in err) == ("--estimate" in command)


@pytest.mark.parametrize("hook", ["dataset", "build", "forward"])
@pytest.mark.parametrize(
    ("line", "says"),
    [("raise KeyError('gone')", "KeyError: 'gone'"), ("sys.exit(3)", "SystemExit: 3"), ("open('/gone')", "FileNotFoundError"), ("1 / 0", "ZeroDivisionError")],
)  # fmt: skip
def test_an_error_of_a_hook_is_not_a_fault_of_hpsearch(run: Run, hook: str, line: str, says: str) -> None:
    code, out, err = run("check", "--estimate", "own.toml", "--json", **{hook: line})
    assert (code, out) == (2, ""), err
    assert "own.py' failed: " in err
    assert says in err
    assert "  hint: Look at line " in err
    assert "fault of hpsearch" not in err
