"""Renders blocks as lines of text for a terminal.

A line is not wider than the terminal. A word is broken only if it is wider than a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len, chop_cells
from rich.text import Text

from hpsearch.report.blocks import Block, Bullets, Chart, Code, Column, Paragraph, Table

GAP = 2
"""Spaces between two columns."""
INDENT = 6
"""Spaces before the line below a row."""
DETAIL_LINES = 2
"""Maximum number of lines for the details below a row."""
SHORTEST_TEXT = 8
"""Minimum width of a column of texts. A shorter text would say nothing."""
NARROWEST_PROSE = 12
"""Columns are left out before a column of prose becomes narrower than this width."""
STYLES = {"lead": "bold", "warning": "yellow", "aside": "dim", "plain": ""}


def render(blocks: Iterable[Block], width: int | None, *, unknown_width: int) -> list[Text]:
    """Return blocks as lines of text. Pictures are left out.

    Args:
        blocks: what to print.
        width: width of the terminal in characters; None keeps each sentence on one line.
        unknown_width: width of tables if `width` is None.

    Returns:
        The lines without line ends.
    """
    lines: list[Text] = []
    before: Block | None = None
    for block in blocks:
        shown = _block_lines(block, width, width or unknown_width)
        if lines and shown and (isinstance(block, Table | Chart | Code) or isinstance(before, Table | Chart)):
            lines.append(Text())
        lines += shown
        before = block
    return lines


def _block_lines(block: Block, width: int | None, table_width: int) -> list[Text]:
    if isinstance(block, Paragraph):
        return [Text(line, style=STYLES[block.kind]) for line in _sentence(block.text, width)]
    if isinstance(block, Bullets):
        return [
            Text(("  " if index else "• ") + line)
            for item in block.items
            for index, line in enumerate(_sentence(item, width and width - 2))
        ]
    if isinstance(block, Code):
        return [Text(line) for line in block.text.splitlines()]
    if isinstance(block, Chart):
        return [] if block.table is None else _table_lines(block.table, table_width)
    return _table_lines(block, table_width) if isinstance(block, Table) else []


def _sentence(text: str, width: int | None) -> list[str]:
    """Return the lines of a text. A number and its percent sign stay on one line."""
    if width is None:
        return [text]
    return [line.replace("\u00a0", " ") for line in wrap(text.replace(" %", "\u00a0%").split(" "), width)]


def wrap(words: Sequence[str], width: int) -> list[str]:
    """Return words as lines. A word is broken only if it is wider than a line, after a slash if possible.

    Args:
        words: the words, in order.
        width: maximum width of a line, in cells of the terminal.

    Returns:
        The lines. There is at least one line.
    """
    lines = [""]
    for word in words:
        for number, piece in enumerate(_pieces(word, width)):
            glue = " " if lines[-1] and number == 0 else ""
            if lines[-1] and cell_len(lines[-1] + glue + piece) > width:
                lines.append(piece)
            else:
                lines[-1] += glue + piece
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """Return the word in pieces that fit into a line.

    A long word is broken after each slash. A piece that is still too long is broken at the width of a line.
    """
    if cell_len(word) <= width:
        return [word]
    return [piece for part in re.findall(r"[^/]*/|[^/]+$", word) for piece in chop_cells(part, max(width, 1))]


def cut(text: str, width: int) -> str:
    """Return a text, or its first words and an ellipsis if the text is too wide.

    Args:
        text: any text.
        width: maximum width, in cells of the terminal.

    Returns:
        The text, or its beginning and an ellipsis.
    """
    if cell_len(text) <= width:
        return text
    kept = ""
    for word in text.split():
        if cell_len(kept) + cell_len(word) + 2 > width:
            break
        kept += f"{word} "
    return f"{kept}…"


def _table_lines(table: Table, width: int) -> list[Text]:
    lines = [Text(line, style="bold") for line in wrap(table.caption.split(), width)] if table.caption else []
    shown, widths = _fit(table, width)
    columns = [table.columns[index] for index in shown]
    headings = [wrap(column.heading.split(), room) for column, room in zip(columns, widths, strict=True)]
    if any(column.heading for column in columns):
        lines += [Text(line, style="bold") for line in _row_lines(headings, columns, widths, bottom=True)]
    for number, row in enumerate(table.rows):
        cells = [_cell_lines(row[index], column, room) for index, column, room in zip(shown, columns, widths, strict=True)]
        lines += map(Text, _row_lines(cells, columns, widths))
        if table.details:
            lines += map(Text, _detail_lines(table.details[number], width - INDENT))
    left_out = ", ".join(column.heading for index, column in enumerate(table.columns) if index not in shown and column.heading)
    if left_out:
        lines += [Text(line, style="dim") for line in wrap(f"Columns left out: {left_out}.".split(), width)]
    return lines


def _cell_lines(text: str, column: Column, width: int) -> list[str]:
    if column.kind == "prose":
        return [line for part in text.split("\n") for line in wrap(part.split(), width)]
    return [cut(text, width) if column.kind == "text" else text]


def _row_lines(cells: Sequence[Sequence[str]], columns: Sequence[Column], widths: Sequence[int], *, bottom: bool = False) -> list[str]:
    """Return the lines of a row. A cell may have several lines.

    Args:
        bottom: align the cells at the bottom of the row. Headings use this.
    """
    height = max(map(len, cells), default=0)
    padded = [[""] * (height - len(cell)) + list(cell) for cell in cells] if bottom else cells
    return [
        (" " * GAP)
        .join(
            " " * (room - cell_len(line)) + line if column.kind == "number" else line + " " * (room - cell_len(line))
            for line, column, room in zip(parts, columns, widths, strict=True)
        )
        .rstrip()
        for parts in zip_longest(*padded, fillvalue="")
    ]


def _detail_lines(words: Sequence[str], width: int) -> list[str]:
    lines = [line for line in wrap(words, width) if line]
    if len(lines) > DETAIL_LINES:
        lines = [*lines[: DETAIL_LINES - 1], cut(" ".join(lines[DETAIL_LINES - 1 :]), width)]
    return [" " * INDENT + line for line in lines]


def _fit(table: Table, width: int) -> tuple[list[int], list[int]]:
    """Return the indices of the columns that fit, and the width of each of these columns.

    If the table is too wide, headings are wrapped first. Then columns are left out. Then texts are cut.
    """
    wide, narrow = _natural_widths(table, wrapped=False), _natural_widths(table, wrapped=True)
    shown = list(range(len(table.columns)))
    if _total(wide, shown) <= width:
        return shown, [wide[index] for index in shown]
    for index in sorted(shown, key=lambda index: (-table.columns[index].drop, -index)):
        if _total(narrow, shown) <= width or table.columns[index].drop == 0:
            break
        shown.remove(index)
    _cut_texts(table, narrow, shown, width)
    while len(shown) > 1 and _total(narrow, shown) > width:
        del shown[-1]
    # The remaining space goes to columns that are narrower than their texts.
    for index in sorted(shown, key=lambda index: table.columns[index].kind != "prose"):
        narrow[index] += max(0, min(wide[index] - narrow[index], width - _total(narrow, shown)))
    return shown, [min(narrow[index], width) for index in shown]


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + GAP * (len(shown) - 1)


def _natural_widths(table: Table, *, wrapped: bool) -> list[int]:
    """Return the width of each column.

    Args:
        wrapped: return the smallest widths that break no word of a heading or of prose.
    """
    widths = []
    for index, column in enumerate(table.columns):
        cells = [line for row in table.rows for line in row[index].split("\n")]
        heading = [column.heading]
        if wrapped:
            heading = column.heading.split()
            if column.kind == "prose":
                longest = max(map(cell_len, cells), default=0)
                word = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
                widths.append(max(word, min(NARROWEST_PROSE, longest), *map(cell_len, heading), 0))
                continue
        widths.append(max(map(cell_len, [*heading, *cells]), default=0))
    return widths


def _cut_texts(table: Table, widths: list[int], shown: Sequence[int], width: int) -> None:
    """Make columns of texts narrower until the table fits. Columns of prose become narrower only if this is not enough."""
    for kind in ("text", "prose"):
        least = {
            index: max([SHORTEST_TEXT, *(cell_len(word) for word in table.columns[index].heading.split())])
            for index in shown
            if table.columns[index].kind == kind
        }
        while (excess := _total(widths, shown) - width) > 0:
            wide = max((index for index in least if widths[index] > least[index]), key=lambda index: widths[index], default=None)
            if wide is None:
                break
            second = max((widths[index] for index in least if index != wide), default=0)
            widths[wide] = max(least[wide], widths[wide] - excess, min(second, widths[wide] - 1))
