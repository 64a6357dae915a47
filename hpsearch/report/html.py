"""Renders a page as one HTML file that loads nothing from the network.

The templates are in `web/`. Jinja2 escapes all text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hpsearch.report.blocks import Block, Chart, Page

WEB = Path(__file__).resolve().parent / "web"
SIGNIFICANT_DIGITS = 6
"""Significant digits of a number in a figure. More digits cannot be seen and would make the figures three times as large."""
LONGEST_TEXT = 20_000
"""Maximum number of characters of one text on a page. A browser cannot lay out a longer text at once."""


def render(page: Page) -> str:
    """Return a page as HTML.

    Args:
        page: the content of the page.

    Returns:
        One file that loads nothing from the network.
    """
    words = _SharedTexts()
    # The figures come first, because they fill the list of texts.
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


class _SharedTexts:
    """Stores each text of a point only once for the whole page, because many figures show the same trials."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def figure(self, figure: go.Figure) -> Markup:
        """Return a figure as JSON for a script element.

        Args:
            figure: a figure of plotly.

        Returns:
            JSON in which a text is replaced by its position in the list of all texts.
        """
        plain = figure.to_plotly_json()
        plain["layout"].pop("template", None)
        for trace in plain["data"]:
            text = trace.get("text")
            if isinstance(text, list | tuple) and text and all(isinstance(each, str) for each in text):
                trace["text"] = [self._places.setdefault(each, len(self._places)) for each in text]
        return _json({"data": plain["data"], "layout": plain["layout"]})

    def json(self) -> Markup:
        """Return the list of all texts.

        Returns:
            A JSON list.
        """
        return _json(list(self._places))


def _json(value: Any) -> Markup:
    text = json.dumps(_compact(value), separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # the text has no HTML tags any more


def _compact(value: Any) -> Any:
    """Return plain values with rounded floats. A float that is not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _compact(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_compact(each) for each in value]
    return _compact(value.tolist()) if hasattr(value, "tolist") else value


@cache
def _web(name: str) -> Markup:
    return Markup((WEB / name).read_text(encoding="utf-8"))  # a file of hpsearch needs no escaping


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # a file of plotly needs no escaping
