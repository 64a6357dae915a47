"""Study files with something changed in them: bytes, tokens, lines or values."""

from __future__ import annotations

import random
import re
import tomllib
from datetime import date
from typing import Any

TOKEN = re.compile(r'"[^"\n]*"|[\w.+-]+|\s+|.', re.DOTALL)

ODD_VALUES: tuple[Any, ...] = (
    0, 1, -1, 2**53, 2**53 + 1, 10**400, 0.0, -0.0, 0.5, 1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), True, False,
    "", "cnn", "adam", "sgd", "x" * 300, "\0", "../..", "2h", "1e-3", [], [[]], [0, 1], [1, 0], [0.1, 0.3], ["cnn"], [True, 1],
    {}, {"float": [0.0, 0.6]}, {"int": [1, 8], "step": 2}, {"choices": ["relu"]}, {"choices": [1, 1]}, {"float": [0, 1], "int": [0, 1]},
    {"float": [1e-300, 1e300], "step": 1e-300}, {"when": {"model": "cnn"}}, {"when": {}, "lr": 1}, {"when": {"model": {}}, "flip": True},
    {"float": {"low": 0}}, {"int": [1, 2], "log": True, "step": 1}, date(2020, 2, 29),
)  # fmt: skip

ODD_KEYS = (
    "", "epochs", "lr", "model", "optimizer", "when", "float", "int", "choices", "step", "log", "kind", "cnn", "sgd", "adam", "mnist", "lenet5",
    "a.b", "cnn.dense", "momentum", "\n", "batch_size", "space", "dropout", "shift", "gamma", "x" * 200,
)  # fmt: skip


def mutated(text: str, generator: random.Random) -> str:
    """The text with one to three changes of one kind."""
    change = generator.choice((_characters, _tokens, _lines, _values, _values))
    for _ in range(generator.randint(1, 3)):
        text = change(text, generator)
    return text


def _characters(text: str, generator: random.Random) -> str:
    workspace = generator.randrange(len(text) + 1)
    odd = generator.choice("\0\n\r\t \"'\\#[]{}=,.-+_:0129aeé€𝄞\ufeff\u2028\x7f")
    return generator.choice(
        (
            text[:workspace] + odd + text[workspace:],
            text[:workspace] + odd + text[workspace + 1 :],
            text[:workspace] + text[workspace + 1 :],
            text[:workspace],
        )
    )


def _tokens(text: str, generator: random.Random) -> str:
    tokens = TOKEN.findall(text)
    if not tokens:
        return text
    one, other = generator.randrange(len(tokens)), generator.randrange(len(tokens))
    match generator.randrange(4):
        case 0:
            tokens[one], tokens[other] = tokens[other], tokens[one]
        case 1:
            tokens[one] = tokens[other]
        case 2:
            del tokens[one]
        case _:
            tokens[one] = _write(generator.choice(ODD_VALUES))
    return "".join(tokens)


def _lines(text: str, generator: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    one, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    match generator.randrange(3):
        case 0:
            lines.insert(one, lines[other])
        case 1:
            lines[one], lines[other] = lines[other], lines[one]
        case _:
            del lines[one]
    return "".join(lines)


def _values(text: str, generator: random.Random) -> str:
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return text
    # Down to any table or list, where one entry is replaced, dropped or added.
    places = [workspace for workspace in _containers(table) if workspace]
    if not places:
        return text
    workspace = generator.choice(places)
    value = generator.choice(ODD_VALUES)
    if isinstance(workspace, list):
        workspace[generator.randrange(len(workspace))] = value
    else:
        key = generator.choice([*workspace, generator.choice(ODD_KEYS)])
        if generator.random() < 0.25 and key in workspace:
            del workspace[key]
        else:
            workspace[key] = value
    return "".join(f"{_key(key)} = {_write(value)}\n" for key, value in table.items())


def _containers(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict | list) else []) + [found for item in inner for found in _containers(item)]


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_write(item)}' for key, item in value.items())}}}"
    return hex(value) if isinstance(value, int) and value > 2**64 else str(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _quoted(key)


def _quoted(text: str) -> str:
    escaped = (f"\\u{ord(letter):04x}" if letter < " " or letter in '"\\\x7f' else letter for letter in text)
    return f'"{"".join(escaped)}"'
