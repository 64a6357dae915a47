"""The study's note in optuna-dashboard. hpsearch writes between two marks and keeps all text outside the marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hpsearch.report.blocks import Block, Bullets, Paragraph, Table, text_column

BEGIN = "[//]: # (hpsearch: what stands from here to the end mark is written anew; words of your own go above or below)"
END = "[//]: # (hpsearch: end)"
"""The two marks are Markdown link definitions. No link uses them, so Markdown does not show them."""
SPECIAL = re.compile(r"([\\*_{}\[\]<>#|~!&])")
PLAIN = re.compile(r"[\w .,:;%()+±/-]*", re.ASCII)
"""Pattern of table cells that have no special characters of Markdown."""
LONGEST_CELL = 200
NARROW = 16
"""Cells up to this number of characters stay on one line."""


def with_block(body: str, block: str) -> str:
    """Return a note with its marked block replaced. If the note has no marked block, the new block is added at the end.

    Args:
        body: the text of the note.
        block: the new content of the block.

    Returns:
        The new note.
    """
    marked = f"{BEGIN}\n\n{block.strip()}\n\n{END}"
    end = body.find(END)
    begin = body.rfind(BEGIN, 0, end) if end >= 0 else -1
    if begin >= 0:
        return body[:begin] + marked + body[end + len(END) :]
    return f"{body.rstrip()}\n\n{marked}" if body.strip() else marked


def markdown(title: str, blocks: Iterable[Block], links: Mapping[str, str]) -> str:
    """Return blocks as Markdown. All texts are escaped.

    Args:
        title: the heading.
        blocks: the content. Only sentences, lists and tables are shown.
        links: address of each link, by its text. The links stand in a line below the title.

    Returns:
        The Markdown.
    """
    parts = [f"## {escape_markdown(title)}"]
    if links:
        parts.append(" · ".join(f"[{escape_markdown(text)}]({address})" for text, address in links.items()))
    for block in blocks:
        if isinstance(block, Paragraph):
            parts.append(f"**{escape_markdown(block.text)}**" if block.kind == "lead" else escape_markdown(block.text))
        elif isinstance(block, Bullets):
            parts.append("\n".join(f"* {escape_markdown(item)}" for item in block.items))
        elif isinstance(block, Table):
            parts.append(_table(block))
    return "\n\n".join(parts)


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows unchanged. Only text between two backticks becomes code.

    Args:
        text: any text.

    Returns:
        The escaped text.
    """
    pieces = " ".join(text.split()).split("`")
    # If the number of backticks is odd, the last backtick is text.
    paired = len(pieces) - (len(pieces) % 2 == 0)
    shown = [SPECIAL.sub(r"\\\1", piece) if index % 2 == 0 or index >= paired else piece for index, piece in enumerate(pieces)]
    return "`".join(shown[:paired]) + "".join(f"\\`{piece}" for piece in shown[paired:])


def _table(table: Table) -> str:
    columns, rows = table.columns, table.rows
    if table.details:
        columns = (*columns, text_column("settings"))
        rows = tuple((*row, " ".join(words)) for row, words in zip(rows, table.details, strict=True))
    lines = [
        [escape_markdown(column.heading) for column in columns],
        ["---:" if column.kind == "number" else ":---" for column in columns],
        *([_cell(text) for text in row] for row in rows),
    ]
    return f"{escape_markdown(table.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    short = " ".join(text[:LONGEST_CELL].split())
    if PLAIN.fullmatch(short):
        # Non-breaking spaces keep an interval on one line.
        return short.replace(" ", "\u00a0") if len(short) <= NARROW else short
    return "`" + short.replace("`", "'").replace("|", "\\|") + "`"
