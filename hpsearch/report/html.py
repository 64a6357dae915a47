"""Renders a page as one HTML file that loads nothing from the network.

The templates are in `web/`. Jinja2 escapes all text.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hpsearch.report.blocks import Chart, Page
from hpsearch.report.figures.style import compact

WEB = Path(__file__).resolve().parent / "web"
LONGEST_TEXT = 20_000
"""Maximum number of characters of one text on a page. A browser cannot lay out a longer text at once."""


def render(page: Page) -> str:
    """Return a page as HTML.

    Args:
        page: the content of the page.

    Returns:
        One file that loads nothing from the network.
    """
    # Many figures show the same trials, so the page has each text of a point once. A figure has the text's position in this list.
    positions: dict[str, int] = {}
    blocks = [block for each in page.sections for part in each.parts for block in part.blocks]
    # The figures come first, because they fill the list of texts.
    figures = {id(block): _figure(block.figure, positions) for block in blocks if isinstance(block, Chart)}
    environment = Environment(
        loader=FileSystemLoader(WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    environment.filters["figure"] = lambda block: figures[id(block)]
    environment.filters["shortened"] = shortened
    environment.filters["with_commands"] = with_commands
    return environment.get_template("page.html").render(
        page=page,
        words=_json(list(positions)),
        style=_web("page.css"),
        script=_web("page.js"),
        plotly=_plotly() if figures else "",
    )


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text. If the text is too long, return its beginning and its length.

    Args:
        text: any text.
        longest: maximum number of characters.

    Returns:
        The text.
    """
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters in all)"


def with_commands(text: str) -> Markup:
    """Return a text as HTML. Text between two backticks becomes code.

    Args:
        text: any text.

    Returns:
        Escaped HTML.
    """
    parts = shortened(text).split("`")
    if len(parts) % 2 == 0:
        return escape(shortened(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if workspace % 2 else escape(part) for workspace, part in enumerate(parts)
    )


def _figure(figure: go.Figure, positions: dict[str, int]) -> Markup:
    """Return a figure as JSON in which the texts of points are replaced by their positions. New texts are added to `positions`."""
    plain = compact(figure)
    for trace in plain["data"]:
        text = trace.get("text")
        if isinstance(text, list) and all(isinstance(each, str) for each in text):
            trace["text"] = [positions.setdefault(each, len(positions)) for each in text]
    return _json(plain)


def _json(value: Any) -> Markup:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # the text has no HTML tags any more


@cache
def _web(name: str) -> Markup:
    return Markup((WEB / name).read_text(encoding="utf-8"))  # a file of hpsearch needs no escaping


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # a file of plotly needs no escaping
