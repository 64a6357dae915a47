"""Rules of `hpsearch report`, and of its page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from tests.support.small_study import hpsearch
from tests.support.stored_study import leave_predictions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECRET = "correct-horse-battery"
PHONE = {"width": 390, "height": 844}
MIDDLE_OF_A_DIVERGING_SCALE = """() => {
  const scales = [...document.querySelectorAll(".plot")].flatMap((box) => box.data.map((trace) => trace.colorscale));
  const diverging = scales.find((scale) => Array.isArray(scale) && scale.length === 3);
  return [diverging[1][1], getComputedStyle(document.documentElement).getPropertyValue("--paper").trim()];
}"""
SCROLL_THROUGH = """async () => {
  const missing = [];
  for (const box of document.querySelectorAll(".plot")) {
    box.scrollIntoView({ behavior: "instant" });
    // A busy machine paints late: who scrolls on too soon has never shown the figure.
    for (let waited = 0; !box.dataset.drawn && waited < 6000; waited += 1) await new Promise((go) => setTimeout(go, 10));
    if (!box.dataset.drawn) missing.push(box.id);
  }
  return missing;
}"""
DRAWN = "[...document.querySelectorAll('.plot')].every((box) => box.dataset.drawn)"


@pytest.fixture(scope="session")
def reported(finished_search: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study was searched and reported on, predictions and all."""
    folder = tmp_path_factory.mktemp("reported") / "a 'folder' & more"
    shutil.copytree(finished_search[0], folder)
    for number in range(8):
        leave_predictions(folder / "runs" / "small" / "trials" / f"{number:05d}" / "predictions.npz", seed=number)
    done = hpsearch(folder, "report", "small")
    assert done.returncode == 0, done.stderr
    return folder


def wait_until(page: Page, expression: str) -> None:
    """playwright's own way would evaluate text in the page, which the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came true: {expression}")


def opened(page: Page, path: Path) -> tuple[list[str], list[str]]:
    """Open a report and scroll through all of it; returns what it asked the network for and what the console complained of."""
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    assert page.evaluate(SCROLL_THROUGH) == [], "figures that were never drawn"
    return requests, complaints


@pytest.fixture(scope="module")
def read_page(browser: Browser, reported: Path) -> Iterator[tuple[Page, list[str], list[str]]]:
    """The report as a reader has it who changed nothing: to open it takes seconds, so tests that only read share it."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    yield page, *opened(page, reported / "runs" / "small" / "report.html")
    context.close()


def test_a_search_ends_with_a_report(finished_search: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished_search
    assert "Report: runs/small/report.html" in done.stderr
    assert "Summary" in (folder / "runs" / "small" / "report.html").read_text()


def test_reports_are_refused_with_one_clear_line(searched_folder: Path) -> None:
    missing = hpsearch(searched_folder, "report", "smal")
    assert missing.returncode == 2
    assert "no study 'smal'" in missing.stderr
    (searched_folder / "taken").write_text("a file")
    nowhere = hpsearch(searched_folder, "report", "small", "-o", "taken/report.html")
    assert nowhere.returncode == 2
    assert "taken/report.html cannot be written" in nowhere.stderr
    blind = hpsearch(searched_folder, "report", "small", "--pdf", PATH="/nowhere")
    assert blind.returncode == 2
    assert "--pdf needs Chromium" in blind.stderr


def test_a_password_in_the_storages_address_appears_nowhere(searched_folder: Path) -> None:
    shutil.copy(searched_folder / "runs" / "hpsearch.db", searched_folder / "other.db")
    url = f"sqlite:///{searched_folder / 'other.db'}?password={SECRET}"
    done = hpsearch(searched_folder, "report", "small", "-o", "page.html", OPTUNA_STORAGE=url)
    assert SECRET not in done.stdout + done.stderr
    assert (done.returncode, (searched_folder / "page.html").exists()) in ((0, True), (2, False))
    assert not [path for path in searched_folder.rglob("*.html") if SECRET in path.read_text()]


def test_the_page_needs_no_network_and_complains_of_nothing(read_page: tuple[Page, list[str], list[str]]) -> None:
    _, requests, complaints = read_page
    assert (requests, complaints) == ([], [])


def test_every_section_has_what_its_link_promises(read_page: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = read_page
    links = page.eval_on_selector_all("nav a", "all => all.map((each) => each.getAttribute('href').slice(1))")
    assert len(links) >= 12
    for name in links:
        assert page.locator(f"section#{name} .blocks > *").count(), name
    assert page.locator(".js-plotly-plot .main-svg").count() >= 12


def test_the_winner_of_the_page_is_that_of_show(read_page: tuple[Page, list[str], list[str]], reported: Path) -> None:
    page, _, _ = read_page
    first = json.loads(hpsearch(reported, "show", "small", "--json").stdout)["leaderboard"][0]
    said = page.locator("#answer .lead").first.inner_text()
    assert f"Best: trial {first['trial']} ({first['model']}) classifies {100 * first['val_accuracy']:.2f} %" in said


def test_a_point_under_the_mouse_shows_its_configuration(read_page: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = read_page
    point = page.locator("#history .scatterlayer .trace .points path").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    page.wait_for_selector("#history .hoverlayer .hovertext")
    said = page.locator("#history .hoverlayer .hovertext").first.text_content() or ""
    assert re.search(r"trial \d+, (cnn|lenet5), [\d.]+ %", said)
    assert "lr=" in said


def test_no_button_of_a_figure_leads_elsewhere(read_page: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = read_page
    titles = page.eval_on_selector_all("#history .modebar-btn", "all => all.map((each) => each.dataset.title)")
    assert titles
    assert {title.split()[0] for title in titles} <= {"Download", "Zoom", "Pan", "Reset"}
    assert not page.locator("form, a[href^='http']").count()


def test_the_page_fits_a_phone(page: Page, reported: Path) -> None:
    page.set_viewport_size(PHONE)
    opened(page, reported / "runs" / "small" / "report.html")
    for details in page.locator("details").all():
        details.evaluate("each => { each.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    wide = page.evaluate(
        "[...document.querySelectorAll('.plot svg')].filter((each) => each.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    cut = page.evaluate(
        "[...document.querySelectorAll('caption > span')].filter((each) => each.getBoundingClientRect().right > innerWidth).length"
    )
    assert cut == 0, "a caption is read whole though its table is wider than the phone"


def test_the_page_is_used_by_keyboard(page: Page, reported: Path) -> None:
    # Not by `opened`: what was scrolled into view is where the next Tab begins.
    page.goto((reported / "runs" / "small" / "report.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"


def test_both_themes_draw_the_figures_in_their_own_colours(page: Page, reported: Path) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, reported / "runs" / "small" / "report.html")
    label = page.locator("#history .xtitle").first
    dark = label.evaluate("each => getComputedStyle(each).fill")
    page.locator("#theme").click()
    wait_until(page, f"getComputedStyle(document.querySelector('#history .xtitle')).fill !== '{dark}'")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_cells_without_a_difference_have_the_pages_own_ground(page: Page, reported: Path, theme: Literal["light", "dark"]) -> None:
    """Their numbers are in the page's ink: light on white they could not be read."""
    page.emulate_media(color_scheme=theme)
    opened(page, reported / "runs" / "small" / "report.html")
    scale, paper = page.evaluate(MIDDLE_OF_A_DIVERGING_SCALE)
    assert scale == paper


def test_pages_on_paper_hold_whole_figures(page: Page, reported: Path) -> None:
    """In print every figure is drawn, in light colours, no wider than the paper, and none may be broken across pages."""
    page.emulate_media(color_scheme="dark")
    page.goto((reported / "runs" / "small" / "report.html").as_uri())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wait_until(page, DRAWN)
    page.emulate_media(media="print")
    assert page.evaluate("[...document.querySelectorAll('figure')].every((each) => getComputedStyle(each).breakInside === 'avoid')")
    paper = 718  # pixels of A4 between its margins of 12 mm, rounded up; as the style sheet says
    assert (
        page.evaluate("Math.max(...[...document.querySelectorAll('.plot svg.main-svg')].map((each) => each.getBoundingClientRect().width))")
        <= paper
    )
    content = page.pdf(prefer_css_page_size=True)
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 5


def test_the_command_prints_a_pdf(reported: Path, browser: object) -> None:
    done = hpsearch(reported, "report", "small", "-o", "paper.html", "--pdf")
    assert done.returncode == 0, done.stderr
    assert (reported / "paper.pdf").read_bytes().startswith(b"%PDF")
