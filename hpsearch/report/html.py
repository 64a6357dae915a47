"""A page of HTML that stands alone: sections of sentences, tables, pictures and figures; it asks the network for nothing.

What a page says is plain data here; how it looks is in `web/`. All text is escaped by Jinja2.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

WEB = Path(__file__).resolve().parent / "web"
SIGNIFICANT_DIGITS = 6
"""Of a number in a figure: more than a screen can show, and a third of the size."""
LONGEST_TEXT = 20_000
"""Characters of one piece of text on a page: a browser lays out no more at once, and no person reads it."""


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence or some.

    Attributes:
        kind: `plain`, `lead` for what everybody should read, `warning`, or `aside` for small print.
    """

    text: str
    kind: Literal["plain", "lead", "warning", "aside"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Sentences in a list."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        columns: heading to justification, `left` or `right`.
        folded: shown only when it is asked for.
    """

    caption: str
    columns: Mapping[str, str]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure, what it shows in words, and its numbers as a table for who cannot see it.

    Attributes:
        says: the text alternative, shown below the figure too.
        narrow: two of them stand side by side where there is room.
    """

    title: str
    figure: go.Figure
    says: str
    table: Table | None = None
    narrow: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG and its text alternative; small ones are shown with their pixels."""

    png: bytes = field(repr=False)
    alternative: str
    caption: str = ""

    @property
    def source(self) -> str:
        """As a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Small pictures in a row or several."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text as it was written: a file, a command."""

    text: str
    label: str
    folded: bool = False


Block = Paragraph | Bullets | Table | Chart | Picture | Gallery | Code


@dataclass(frozen=True, kw_only=True)
class Part:
    """Blocks that belong together: one study's share of a section.

    Attributes:
        title: empty where the page is about one thing only.
    """

    blocks: tuple[Block, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page.

    Attributes:
        name: of the anchor, unique on the page.
    """

    name: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str


def section(name: str, title: str, *blocks: Block | None) -> Section:
    """A section about one thing; blocks that are None are left out."""
    return Section(name=name, title=title, parts=(Part(blocks=tuple(block for block in blocks if block is not None)),))


def render(page: Page) -> str:
    """The page as HTML."""
    words = _Words()
    # All of them first: only then is the table of words complete.
    figures = {id(block): words.figure(block.figure) for block in _blocks(page) if isinstance(block, Chart)}
    environment = Environment(
        loader=FileSystemLoader(WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    environment.filters["figure"] = lambda block: figures[id(block)]
    environment.filters["shortened"] = shortened
    environment.filters["with_commands"] = with_commands
    return environment.get_template("page.html").render(
        page=page,
        words=words.json(),
        style=_web("page.css"),
        script=_web("page.js"),
        plotly=_plotly() if figures else "",
    )


def _blocks(page: Page) -> Iterator[Block]:
    for each in page.sections:
        for part in each.parts:
            yield from part.blocks


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters in all)"


def with_commands(text: str) -> Markup:
    """The text, escaped, in which what stands between two backticks is set as code."""
    parts = shortened(text).split("`")
    if len(parts) % 2 == 0:
        return escape(shortened(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if workspace % 2 else escape(part) for workspace, part in enumerate(parts)
    )


class _Words:
    """Each text of a figure's points once for the whole page: the same trials stand in many figures."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def figure(self, figure: go.Figure) -> Markup:
        """The figure as JSON that can stand in a script element."""
        plain = figure.to_plotly_json()
        plain["layout"].pop("template", None)
        for trace in plain["data"]:
            text = trace.get("text")
            if isinstance(text, list | tuple) and text and all(isinstance(each, str) for each in text):
                trace["text"] = [self._places.setdefault(each, len(self._places)) for each in text]
        return _json({"data": plain["data"], "layout": plain["layout"]})

    def json(self) -> Markup:
        """All of them in their places."""
        return _json(list(self._places))


def _json(value: Any) -> Markup:
    text = json.dumps(_compact(value), separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # no markup is left in it


def _compact(value: Any) -> Any:
    """Plain values in which floats are short and those that are not finite None."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _compact(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_compact(each) for each in value]
    return _compact(value.tolist()) if hasattr(value, "tolist") else value


@cache
def _web(name: str) -> Markup:
    return Markup((WEB / name).read_text(encoding="utf-8"))  # our own file


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # the library's own file
