"""Adds the pages that lie outside of docs/ to the site, and makes links between these folders work there.

mkdocs calls `on_files` and `on_page_markdown`; see `hooks` in mkdocs.yml.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"README.md": "index.md"}
"""Pages that have another name on the site."""
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README, the guide for contributors, the changelog and the results of the benchmarks."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *results]:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, NAMES.get(name, name), content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point each link at a page of the site; a link to another file of the repository becomes its path in the text."""
    source = page.file.src_uri
    outside = source in ("index.md", "CONTRIBUTING.md", "CHANGELOG.md") or source.startswith("benchmarks/")
    folder = (ROOT if outside else ROOT / "docs") / Path(source).parent
    up = "../" * source.count("/")

    def rewritten(link: re.Match[str]) -> str:
        path, _, anchor = link[2].partition("#")
        target = (folder / path).resolve().relative_to(ROOT).as_posix()
        inside = NAMES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(inside) is None:
            return f"{link[1]} (`{target}`)"
        return f"[{link[1]}]({up}{inside}{'#' if anchor else ''}{anchor})"

    return LINK.sub(rewritten, markdown)
