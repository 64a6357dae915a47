"""Rules of a page that stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from hpsearch.report.blocks import Bullets, Chart, Code, Gallery, Page, Paragraph, Part, Picture, Section, Table, section, text_column
from hpsearch.report.figures.style import escape_label
from hpsearch.report.html import render

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; --",
    "</script><b>",
    "Ω≈ç 日本語 עברית",
    "{{ 7 * 7 }}",
    "a\x00b",
]


class _Reader(HTMLParser):
    """What a browser makes of a page: its elements and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader


def page(*blocks: object, title: str = "A title") -> Page:
    return Page(title=title, subtitle="about it", sections=(section("one", "One", *blocks),), footer="the end")  # type: ignore[arg-type]


def chart(text: str = "a point") -> Chart:
    return Chart(title=text, figure=go.Figure(go.Scatter(x=[1, 2], y=[1 / 3, float("nan")], text=[text, text])), says=text)


def figures(html: str) -> list[dict[str, object]]:
    return [json.loads(found) for found in re.findall(r'<script type="application/json" data-for="[^"]*">(.*?)</script>', html, re.DOTALL)]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_stays_text(text: str) -> None:
    table = Table(caption=text, columns=(text_column(text),), rows=((text,),), details=((text,),))
    blocks = [
        Paragraph(text=text),
        Bullets(items=(text,)),
        table,
        Code(text=text, label=text),
        chart(text),
        Gallery(pictures=(Picture(png=b"x", alternative=text, caption=text),)),
    ]
    html = render(
        Page(
            title=text,
            subtitle=text,
            sections=(Section(name="one", title=text, parts=(Part(blocks=tuple(blocks), title=text),)),),
            footer=text,
        )
    )
    harmless = read(render(page(*[type(block)(**vars(block)) for block in blocks])))
    found = read(html)
    assert [tag for tag, _ in found.elements].count("script") == [tag for tag, _ in harmless.elements].count("script") == 4
    assert not [attrs for _, attrs in found.elements if any(name.startswith("on") for name in attrs)]
    assert sum(text in each for each in found.texts) >= 10


def test_text_that_is_too_long_is_cut_and_says_so() -> None:
    html = render(page(Paragraph(text="x" * 100_000)))
    assert "(100,000 characters in all)" in html
    assert "x" * 20_001 not in html


def test_a_command_between_backticks_is_set_as_code() -> None:
    html = render(page(Paragraph(text="Try `hpsearch ls <name>`, then see.")))
    assert "Try <code>hpsearch ls &lt;name&gt;</code>, then see." in html
    assert "a lonely ` &lt;b&gt;" in render(page(Paragraph(text="a lonely ` <b>")))


def test_a_page_asks_the_network_for_nothing() -> None:
    found = read(render(page(chart())))
    sources = [attrs[name] for _, attrs in found.elements for name in ("src", "href") if attrs.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    policy = next(attrs["content"] for tag, attrs in found.elements if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_plotly_stands_on_a_page_once_and_only_where_there_is_a_figure() -> None:
    assert render(page(chart(), chart())).count("plotly.js v") == 1
    assert "plotly.js v" not in render(page(Paragraph(text="no figure")))


def test_each_figure_says_in_words_what_it_shows() -> None:
    found = read(render(page(chart("it falls"))))
    plot = next(attrs for _, attrs in found.elements if attrs.get("class") == "plot")
    assert plot["role"] == "img"
    assert "it falls" in (plot["aria-label"] or "")
    assert "it falls" in found.texts


def test_numbers_of_a_figure_are_short_and_finite() -> None:
    (figure,) = figures(render(page(chart())))
    assert figure["data"][0]["y"] == [0.333333, None]  # type: ignore[index]


def test_a_text_of_many_points_is_stored_once() -> None:
    html = render(page(chart("the same long text"), chart("the same long text")))
    assert [figure["data"][0]["text"] for figure in figures(html)] == [[0, 0], [0, 0]]  # type: ignore[index]
    assert html.count('["the same long text"]') == 1


def test_every_section_can_be_reached_by_its_link() -> None:
    found = read(render(page(Paragraph(text="x"))))
    anchors = {attrs["id"] for _, attrs in found.elements if attrs.get("id")}
    assert {attrs["href"].removeprefix("#") for tag, attrs in found.elements if tag == "a" and attrs.get("href")} <= anchors  # type: ignore[union-attr]


def test_plotly_reads_no_markup_out_of_a_label() -> None:
    assert escape_label("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"
    assert len(escape_label("y" * 100_000)) == 60
