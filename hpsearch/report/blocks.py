"""The content of a report as plain data. `html`, `terminal` and `dashboard.note` show the same blocks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A text of one or more sentences.

    Attributes:
        kind: `plain`, `lead` (the main result), `warning` or `aside` (a remark in small print).
    """

    text: str
    kind: Literal["plain", "lead", "warning", "aside"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Sentences in a list."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        kind: a `number` is aligned at the right. A terminal cuts a `text` that is too long, and wraps `prose`.
        drop: a narrow terminal leaves out the columns with the highest number first. 0 keeps the column.
    """

    heading: str
    kind: Literal["text", "number", "prose"] = "text"
    drop: int = 0

    @property
    def side(self) -> str:
        """The side at which the texts are aligned, `left` or `right`."""
        return "right" if self.kind == "number" else "left"


Item = TypeVar("Item")
Cells = Mapping[Column, Callable[[Item], str]]
"""The columns of a table, each with a function that returns the text of one item."""


def text_column(heading: str, drop: int = 0) -> Column:
    """Return a column of short texts.

    Args:
        heading: the column's heading.
        drop: a narrow terminal leaves out the columns with the highest number first. 0 keeps the column.

    Returns:
        The column.
    """
    return Column(heading=heading, drop=drop)


def number_column(heading: str, drop: int = 0) -> Column:
    """Return a column of numbers.

    Args:
        heading: the column's heading.
        drop: a narrow terminal leaves out the columns with the highest number first. 0 keeps the column.

    Returns:
        The column.
    """
    return Column(heading=heading, kind="number", drop=drop)


def prose_column(heading: str, drop: int = 0) -> Column:
    """Return a column of texts that may need several lines.

    Args:
        heading: the column's heading.
        drop: a narrow terminal leaves out the columns with the highest number first. 0 keeps the column.

    Returns:
        The column.
    """
    return Column(heading=heading, kind="prose", drop=drop)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        caption: the title; empty if there is no title.
        details: for each row, the words that stand below the row; empty if no row has details.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    details: tuple[tuple[str, ...], ...] = ()


def tabulate(caption: str, items: Iterable[Item], cells: Cells[Item]) -> Table:
    """Return a table with one row for each item.

    Args:
        caption: the title.
        items: the things that the table shows.
        cells: the columns from left to right. Each column has a function that returns an item's text in this column.

    Returns:
        The table.
    """
    rows = tuple(tuple(cell(item) for cell in cells.values()) for item in items)
    return Table(caption=caption, columns=tuple(cells), rows=rows)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure with a text and a table. The table has its numbers for readers who cannot see the figure.

    Attributes:
        says: a text that says what the figure shows. It is the text alternative and stands below the figure.
        narrow: whether two such charts stand side by side if there is enough space.
    """

    title: str
    figure: go.Figure
    says: str
    table: Table | None = None
    narrow: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG and its text alternative."""

    png: bytes = field(repr=False)
    alternative: str
    caption: str = ""

    @property
    def source(self) -> str:
        """The PNG as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Small pictures in rows."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text that is shown unchanged, such as a file or a command."""

    text: str
    label: str


Block = Paragraph | Bullets | Table | Chart | Picture | Gallery | Code


@dataclass(frozen=True, kw_only=True)
class Part:
    """The blocks of one study in a section.

    Attributes:
        title: the name of the study; empty if the page has only one study.
    """

    blocks: tuple[Block, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page.

    Attributes:
        name: the anchor of the section. It must be unique on the page.
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
    """Return a section that has one part.

    Args:
        name: the anchor of the section.
        title: the heading.
        blocks: the content of the section. None is left out.

    Returns:
        The section.
    """
    return Section(name=name, title=title, parts=(Part(blocks=tuple(block for block in blocks if block is not None)),))


def paragraphs(lines: Iterable[str]) -> list[Paragraph]:
    """Return each line as a plain paragraph.

    Args:
        lines: the sentences.

    Returns:
        The paragraphs.
    """
    return [Paragraph(text=line) for line in lines]
