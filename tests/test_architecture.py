"""Which package may import which, what stays unloaded, and what `hpsearch` exports."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpsearch
from tests.support.imports import MAY_READ_TEST_IMAGES, PACKAGE, TEST_IMAGES, file_of, imported, modules

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("formatting",),
    ("config",),
    ("storage", "training"),
    ("analysis",),
    ("search", "report"),
    ("workflows",),
    ("cli",),
    ("__main__",),
)
"""The packages from the bottom up. A package imports from lower layers only, so two of one layer do not know each other."""

MOST_ENTRIES = 12
"""At the top of the package, `__init__` and `__main__` included."""


def package_of(module: str) -> str:
    return module.partition(".")[0]


def layer_of(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def test_top_level_is_short() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries - {"__init__"} <= {name for layer in LAYERS for name in layer}
    assert len(entries) <= MOST_ENTRIES


def test_no_file_name_occurs_twice() -> None:
    stems = [module.rpartition(".")[2] for module in modules() if not module.endswith("__init__")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []


@pytest.mark.parametrize("module", [module for module in modules() if module != "__init__"])
def test_imports_go_down_only(module: str) -> None:
    own = package_of(module)
    upward = [name for name in imported(module) if package_of(name) != own and layer_of(package_of(name)) >= layer_of(own)]
    assert sorted(upward) == []


@pytest.mark.parametrize("module", modules())
def test_only_final_training_reaches_the_test_images(module: str) -> None:
    assert module in MAY_READ_TEST_IMAGES or TEST_IMAGES not in imported(module)


@pytest.mark.parametrize("module", modules())
def test_no_two_modules_import_each_other(module: str) -> None:
    assert [name for name in imported(module) if name != module and name in modules() and module in imported(name)] == []


@pytest.mark.parametrize("module", modules())
def test_module_says_in_one_sentence_what_it_is_for(module: str) -> None:
    said = ast.get_docstring(ast.parse(file_of(module).read_text(encoding="utf-8"))) or ""
    assert said.splitlines()
    assert said.splitlines()[0].endswith((".", ":"))


OPTUNA_ADAPTER = "storage.optuna_internals"
NOT_OF_OPTUNA = {"os._exit"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_parts(tree: ast.AST) -> Iterator[str]:
    """Private attributes of anything but the object, class or base class itself, and private parts of Optuna that are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) not in ("self", "cls", "super()"):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if is_private(name))


@pytest.mark.parametrize("module", [module for module in modules() if module != OPTUNA_ADAPTER])
def test_only_the_adapter_touches_private_parts_of_optuna(module: str) -> None:
    assert set(private_parts(ast.parse(file_of(module).read_text(encoding="utf-8")))) <= NOT_OF_OPTUNA


# What is loaded

WATCHED = ("torch", "torchvision", "scipy", "optuna", "numpy", "pydantic", "typer", "rich", "sqlalchemy")


def loaded_by(*names: str, warm: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Which of the watched packages are there once a module is imported by itself: one fork a module.

    Args:
        warm: packages that the process has before, which saves their time in every fork.
    """
    code = f"""
import importlib, json, os, sys
for name in {warm!r}:
    importlib.import_module(name)
for name in {list(names)!r}:
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            found = [package for package in {WATCHED!r} if package in sys.modules]
        except BaseException as error:
            found = [repr(error)]
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        print(json.dumps([name, json.load(pipe)]))
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def public(name: str) -> str:
    return "hpsearch" if name == "__init__" else f"hpsearch.{name.removesuffix('.__init__')}"


TRAINS = ("workflows.worker_process", "workflows.final_training", "workflows.estimate")
"""Modules outside of `training` that load torch."""


WITHOUT_TORCH = ("training.data.files", "training.data.image_grid")
"""Modules of `training` that do not load torch: the commands that read use them."""


def light(module: str) -> bool:
    """Whether a module must not load torch."""
    return module in WITHOUT_TORCH or (package_of(module) != "training" and module not in (*TRAINS, "cli.train_model"))


LIGHT = [module for module in modules() if light(module) and module != "__main__"]
NO_OPTUNA = [
    module
    for module in modules()
    if package_of(module) in ("__init__", "errors", "formatting", "config") or module in ("training.data.files", "cli.main")
]


THIRD_PARTY = (
    *("optuna.storages", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "plotly.graph_objects"),
    *("typer", "pydantic", "rich.progress", "rich.live", "rich.table", "jinja2", "psutil", "PIL.Image", "PIL.ImageDraw"),
)
"""Packages that light modules may load."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    cold = [module for module in LIGHT if module in NO_OPTUNA]
    rest = [module for module in LIGHT if module not in NO_OPTUNA]
    return loaded_by(*map(public, cold)) | loaded_by(*map(public, rest), warm=THIRD_PARTY)


@pytest.mark.slow
@pytest.mark.parametrize("module", LIGHT)
def test_module_imports_alone_and_without_torch(module: str, loaded: dict[str, list[str]]) -> None:
    assert not {"torch", "torchvision", "scipy"} & set(loaded[public(module)])
    assert set(loaded[public(module)]) <= set(WATCHED), "does not import"


@pytest.mark.slow
@pytest.mark.parametrize("module", [module for module in NO_OPTUNA if module in LIGHT])
def test_what_needs_no_study_loads_no_optuna(module: str, loaded: dict[str, list[str]]) -> None:
    assert not {"optuna", "sqlalchemy"} & set(loaded[public(module)])


@pytest.mark.slow
def test_package_itself_costs_nothing(loaded: dict[str, list[str]]) -> None:
    assert loaded["hpsearch"] == []


@pytest.mark.slow
def test_training_imports_alone_and_without_optuna() -> None:
    """One process imports torch, then forks for each module of the package."""
    names = [public(module) for module in modules() if package_of(module) == "training"]
    code = f"""
import torch, importlib, os, sys
assert not any(name.startswith("hpsearch") for name in sys.modules)
for name in {names!r}:
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            strangers = [module for module in sys.modules if module.startswith(("optuna", "sqlalchemy", "hpsearch.search", "hpsearch.storage"))]
        except BaseException as error:
            strangers = [repr(error)]
        os.write(1, "".join(f"{{name}}: {{stranger}}\\n" for stranger in strangers).encode())
        os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["check", "studies/quickstart.toml"],
        ["ls"],
        ["show", "quickstart"],
        ["show", "quickstart", "0", "--json"],
    ],
    ids=" ".join,
)
def test_command_that_reads_loads_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['hpsearch', *{arguments!r}]\n"
        "from hpsearch.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code or 0\n"
        "print([name for name in ('torch', 'torchvision') if name in sys.modules], code, file=sys.stderr)\n"
    )
    environment = {**os.environ, "OPTUNA_STORAGE": f"sqlite:///{tmp_path}/study.db"}
    if arguments[0] in ("ls", "show"):
        make_study(tmp_path / "study.db")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, env=environment)
    assert done.stderr.splitlines()[-1] == "[] 0", done.stderr


def make_study(database: Path) -> None:
    """A stored study with one trial, as a search leaves it."""
    from hpsearch.config.study_file import load_study_file
    from hpsearch.storage.database import open_store
    from hpsearch.storage.records import write_study

    file = load_study_file(PACKAGE.parent / "studies" / "quickstart.toml")
    store = open_store(f"sqlite:///{database}", create=True)
    study = store.create(file.name)
    write_study(study, text=file.text, path=file.path, comparable=file.comparable)
    study.tell(study.ask(), 0.5)
    store.dispose()


# What it offers


def test_all_is_exact() -> None:
    assert sorted(hpsearch.__all__) == hpsearch.__all__
    assert set(hpsearch.__all__) == {*hpsearch._HOMES, *hpsearch._MODULES, "__version__"}


@pytest.mark.parametrize("name", hpsearch.__all__)
def test_offered_name_resolves_to_what_its_home_defines(name: str) -> None:
    found = getattr(hpsearch, name)
    if name in hpsearch._MODULES:
        assert found is importlib.import_module(hpsearch._MODULES[name])
    elif name != "__version__":
        assert found is getattr(importlib.import_module(hpsearch._HOMES[name]), name)
        assert found.__module__ == hpsearch._HOMES[name]
        assert found.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hpsearch.trian  # noqa: B018


def test_public_names_are_those_offered_for_types() -> None:
    tree = ast.parse(file_of("__init__").read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {*hpsearch._HOMES, *hpsearch._MODULES}


def test_every_module_is_found_by_its_package() -> None:
    found = {module.name.removeprefix("hpsearch.") for module in pkgutil.walk_packages([str(PACKAGE)], "hpsearch.")}
    assert {module.removesuffix(".__init__") for module in modules()} - {"__init__"} == found


def test_what_benchmarks_import_from_the_tests_is_there() -> None:
    # No test runs a benchmark, so a helper that moved would be missed when somebody measures.
    missing = []
    for path in sorted((PACKAGE.parent / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests."):
                module = importlib.import_module(node.module)
                missing += [f"{path.name}: {node.module}.{alias.name}" for alias in node.names if not hasattr(module, alias.name)]
    assert missing == []
