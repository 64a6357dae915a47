"""Documents agree with the code."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from hpsearch.config.study_file import json_schema, shipped_study_files

ROOT = Path(__file__).resolve().parent.parent
STUDIES = shipped_study_files()


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "study-file.md"])
def test_generated_page_is_up_to_date(generate: ModuleType, name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == generate.PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_schema_accepts_the_shipped_studies(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(tomllib.loads(path.read_text()), json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"prunner": {}},
        {"budget": {"trials": "many"}},
        {"budget": {"time": "1h"}},
        {"sampler": {"kind": "grid"}},
        {"space": {"lr": {"flaot": [0, 1]}}},
    ],
)
def test_the_schema_refuses_what_hpsearch_refuses(change: dict[str, object]) -> None:
    table = {"name": "x", "budget": {"trials": 3}, "space": {}, **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(table, json.loads(json.dumps(json_schema())))


def test_links_between_documents_have_a_target() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_in_the_readme_names_every_package() -> None:
    readme = (ROOT / "README.md").read_text()
    packages = {path.name for path in (ROOT / "hpsearch").iterdir() if (path / "__init__.py").exists()}
    assert packages <= set(re.findall(r"^  (\w+)/ ", readme, re.MULTILINE))
