"""Commands with one hostile argument or option, for every parameter that the command line has, and hostile component files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from hpsearch.cli.main import COMMANDS, app
from hpsearch.config.components import SELECTORS
from tests.support.synthetic_data import STRIPES

VALID: dict[str, tuple[str, ...]] = {
    "init": ("new.toml",),
    "check": ("stripes.toml",),
    "data": (),
    "doctor": (),
    "run": ("stripes.toml",),
    "try": ("stripes", "0"),
    "stop": ("stripes",),
    "finalists": ("stripes", "--top", "1", "--seeds", "2"),
    "explain": ("stripes", "--seeds", "2"),
    "worker": ("stripes",),
    "show": ("stripes",),
    "ls": (),
    "report": ("stripes",),
    "dashboard": ("stripes", "--port", "0"),
    "compare": ("stripes/0", "stripes/1"),
    "reproduce": ("stripes", "0"),
    "export": ("stripes",),
    "train": ("best.toml",),
    "predict": ("best-final", "plain.png"),
    "summary": ("lenet5",),
    "rm": ("stripes", "--yes"),
}
"""Arguments of each command, in a folder that has all these files and studies."""

PLACES = (
    *("", ".", "..", "/", "/dev/null", "/dev/full", "/dev/stdout", "/nonexistent/x.png", "/proc/x.toml", "/sys/x.toml", "~", "-", "a/../b"),
    *("stripes.toml/x", "stripes.toml", "stripes.py", "runs", "plain.png", "best-final", "looped", "dangling", "not-text.toml", "x" * 300),
)
"""Paths: folders, devices, places that nobody may write to, files of another kind, links in a circle and to nothing."""
TEXTS = (
    *("a\nb", "\udcff", "\x1b[31m", "🎨", "%00", "*", "'", '"', "$(id)", "&amp;<b>", "[1]", "1979-05-27", "{a=1}", "[" * 3000, "a.b.c"),
    *("nan", "inf", "-1", "0", "1e400", "9" * 400, "0x10", "true", "stripes", "stripes.finalists", "stripes/0", "stripes/99", "a=1=2", "="),
    *("sqlite:///", "sqlite:///stripes.toml", "sqlite:///file:f.db?uri=true", "postgresql://", "http://[::1", "cpu", "cuda:99", "lenet5"),
)
"""Wrong texts: control characters, numbers, TOML values, URLs, and names of other things."""
ASSIGNED = ("model", "lr", "sgd.lr", "epochs", "batch_size", "optimizer", "activation", "nothing", "adam")
"""Names on the left of an assignment, of which each gets every text."""


def hostile_commands() -> Iterator[list[str]]:
    """Make commands in which one parameter is hostile and everything else is valid.

    Yields:
        The arguments of each command, without the name of the program.
    """
    group = typer.main.get_command(app)
    for name in COMMANDS:
        for parameter in group.get_command(None, name).params:  # type: ignore[attr-defined,arg-type]  # the class has no public name
            if parameter.name != "help":
                for words in _hostile_words(name, parameter):
                    yield [name, *words]


def _hostile_words(command: str, parameter: Any) -> Iterator[list[str]]:
    valid = list(VALID[command])
    if parameter.param_type_name == "argument":
        takes_assignments = "=" in str(parameter.metavar)
        position = min(
            sum(not word.startswith("-") for word in valid), 1 if parameter.name in ("settings", "second", "pictures", "trial") else 0
        )
        for value in (*PLACES, *TEXTS):
            yield ["--", *valid[:position], value, *(word for word in valid[position + 1 :] if not word.startswith("-"))]
        if takes_assignments:
            for name in ASSIGNED:
                for value in TEXTS:
                    yield [*valid, f"{name}={value}"]
    elif parameter.is_flag:
        yield [*valid, parameter.opts[0]]
    else:
        for value in (*PLACES, *TEXTS):
            yield [*valid, f"{parameter.opts[0]}={value}"]


RESULTS = (
    *("None", "5", "'text'", "()", "[]", "{}", "object()", "float('nan')", "(1, 2, 3)", "(None,) * 3", "iter(())", "print", "int"),
    *("torch.zeros(0)", "torch.zeros(3)", "torch.full((400, 1, 28, 28), float('nan'))", "torch.zeros(400, 28, 28, 1).byte()"),
    *(
        "1 / 0",
        "open('/nonexistent')",
        "__import__('sys').exit(3)",
        "__import__('sys').exit('gone')",
        "[][0]",
        "torch.zeros(2) @ torch.zeros(3)",
    ),
    *("print('\\x1b[31mred')", "(_ for _ in ()).throw(KeyboardInterrupt)", "(_ for _ in ()).throw(StopIteration)", "'\\udcff'"),
)
"""Expressions that no factory may return; some raise instead."""
_DATA_SET = "import hpsearch, torch\n\n@hpsearch.dataset('stripes')\ndef stripes(root, *, train):\n    return {parts}\n"
_IMAGES, _LABELS = "torch.zeros(400, 1, 28, 28, dtype=torch.uint8)", "torch.arange(400) % 2"
_OWN = STRIPES + "\n@hpsearch.{kind}('own')\ndef own({parameters}):\n    return {{result}}\n"
_OUTPUT = """
class Own(torch.nn.Module):
    def forward(self, images):
        return {result}

@hpsearch.model('own')
def own(*, input_shape, classes):
    return Own()
"""
_STUDY = """
name = "stripes"
use = ["stripes.py"]

[data]
dataset = "stripes"
validation_images = 50

[budget]
trials = 1

[space]
epochs = 1
"""
HOOKS = {
    "data set": _DATA_SET.format(parts="{result}"),
    "images": _DATA_SET.format(parts=f"{{result}}, {_LABELS}, ('a', 'b')"),
    "labels": _DATA_SET.format(parts=f"{_IMAGES}, {{result}}, ('a', 'b')"),
    "class names": _DATA_SET.format(parts=f"{_IMAGES}, {_LABELS}, {{result}}"),
    "class name": _DATA_SET.format(parts=f"{_IMAGES}, {_LABELS}, ('a', {{result}})"),
    "model": _OWN.format(kind="model", parameters="*, input_shape, classes"),
    "output": STRIPES + _OUTPUT,
    "optimizer": _OWN.format(kind="optimizer", parameters="parameters"),
    "schedule": _OWN.format(kind="schedule", parameters="optimizer, *, steps, steps_per_epoch"),
}
"""Component files by the value in them that is hostile."""


def hostile_components() -> Iterator[tuple[str, str, str, str]]:
    """Make component files.

    Yields:
        The place of the hostile value, the value as an expression, the component file, and the study file.
    """
    for place, source in HOOKS.items():
        selector = {"output": "model"}.get(place, place)
        chosen = {"model": "lenet5", **({selector: "own"} if selector in SELECTORS else {})}
        study = "".join((_STUDY, *(f'{key} = "{name}"\n' for key, name in chosen.items())))
        for value in RESULTS:
            yield place, value, source.replace("{result}", value), study
