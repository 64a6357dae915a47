"""Values, paths, counts and durations as text, for messages, tables and CSV files."""

from __future__ import annotations

import csv
import io
import re
import sys
from datetime import date, time
from pathlib import Path
from typing import Any

LONGEST_SHOWN, DEEPEST_SHOWN, MOST_SHOWN = 80, 3, 20
"""Maximum number of characters, levels and items of a value in an error message. A value in a file can have any size."""
LONGEST_PATH = 500
"""Maximum number of characters of a path in an error message."""
CREDENTIALS = re.compile(r"(:/+)\S*@")
"""The part of a URL that may hold a user and a password. An `@` in a password may be unquoted. A `Path` has one slash of the two."""
FORMULA_BEGINS = "=+-@\t\r"
"""A spreadsheet takes a cell for a formula if the cell begins with one of these characters (OWASP, CSV Injection)."""


def show(value: object) -> str:
    """Return a value as a study file writes it, short enough for an error message.

    Args:
        value: any value that TOML can hold, or another object.

    Returns:
        At most `LONGEST_SHOWN` characters; control characters appear as `\\x0a`.
    """
    text = printable(_written(value, DEEPEST_SHOWN))
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:60]}… ({len(value)} characters)" if isinstance(value, str) else f"{text[:60]}…"


def show_loss(loss: float) -> str:
    """Return a loss as text.

    Args:
        loss: a loss, which may be of any size or not finite.

    Returns:
        Four decimals, or four digits and an exponent.
    """
    return f"{loss:.4f}" if loss < 1e6 else f"{loss:.4g}"


def show_path(path: Path) -> str:
    """Return a path in quotes. A path of more than `LONGEST_PATH` characters is shortened in the middle.

    Args:
        path: the path; its end is always shown, because the end tells files apart.

    Returns:
        The path in single quotes.
    """
    text = hide_credentials(str(path))
    return f"'{printable(text if len(text) <= LONGEST_PATH else f'{text[:60]}…{text[-60:]}')}'"


def one_line(text: str) -> str:
    """Return a text from outside, such as the message of a foreign error, as one short line without control characters.

    Args:
        text: any text.

    Returns:
        At most `LONGEST_PATH` characters.
    """
    line = " ".join(text[: 2 * LONGEST_PATH].split())
    return printable(line if len(line) <= LONGEST_PATH else f"{line[:LONGEST_PATH]}…")


def printable(text: str) -> str:
    """Return a text in which control characters and broken characters appear as `\\x1b`. A terminal would obey them.

    Args:
        text: any text.

    Returns:
        The text.
    """
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def hide_credentials(text: str) -> str:
    """Return a text in which no URL has a user or a password.

    Args:
        text: any text, for example a message with what a user typed.

    Returns:
        The text. In each URL, `***@` stands for everything up to the last `@`.
    """
    return CREDENTIALS.sub(r"\1***@", text)


def str_of(value: bool | int | float | str) -> str:
    """Return a value as text for a table or a list.

    The text has no quotes. A boolean is written as in TOML, and a float with six significant digits.

    Args:
        value: one value of a study file.

    Returns:
        The text.
    """
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def show_duration(seconds: float) -> str:
    """Return a duration as `1h 30m`, `2m 5s` or `9s`.

    Args:
        seconds: the duration, at least 0.

    Returns:
        Hours and minutes, or minutes and seconds.
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest and not hours else ""]
    return " ".join(part for part in parts if part) or "0s"


def many(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 trial`, `2 trials`, `1,200 trials`.

    Args:
        count: the number of things.
        noun: the noun in the singular.
        plural: the noun in the plural; by default the singular with an `s`.

    Returns:
        The count and the noun.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def times(count: int) -> str:
    """Return `once` for 1, else `2 times`.

    Args:
        count: the number of times.

    Returns:
        The text.
    """
    return "once" if count == 1 else f"{count} times"


def escape_cell(value: Any) -> Any:
    """Return a CSV cell that no spreadsheet takes for a formula.

    Args:
        value: the cell's value.

    Returns:
        The value. If it is a text that begins like a formula, an apostrophe is put before the text.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple(FORMULA_BEGINS)) else value


def escape_csv(text: str) -> str:
    """Return the content of a CSV file in which a spreadsheet finds no formula.

    Args:
        text: the content of the file.

    Returns:
        The content. Every cell that is not a number is escaped.
    """
    csv.field_size_limit(sys.maxsize)
    written = io.StringIO()
    writer = csv.writer(written)
    for row in csv.reader(io.StringIO(text, newline="")):
        writer.writerow([cell if _is_number(cell) else escape_cell(cell) for cell in row])
    return written.getvalue()


def _written(value: object, depth: int) -> str:
    if isinstance(value, str):
        return f"'{hide_credentials(value[:LONGEST_PATH])[: LONGEST_SHOWN + 1]}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of some {value.bit_length() * 3 // 10:,} digits"
    if isinstance(value, list | dict) and not depth:
        return "…"
    if isinstance(value, list):
        return f"[{', '.join(_written(item, depth - 1) for item in value[:MOST_SHOWN])}]"
    if isinstance(value, dict):
        items = [f"{key[: LONGEST_SHOWN + 1]} = {_written(item, depth - 1)}" for key, item in list(value.items())[:MOST_SHOWN]]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    return str(value) if isinstance(value, date | time) else repr(value)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
