"""Component files and the decorators that register components."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

import hpsearch
from hpsearch.config import registration
from hpsearch.config.components import ComponentFile
from hpsearch.config.registration import (
    component_fault,
    component_hash,
    current_catalog,
    find_component_file,
    load_component_file,
    places_of,
    registered,
    short_names,
)
from hpsearch.config.trusted_files import remember
from hpsearch.errors import ComponentError

SOURCE = """
from dataclasses import dataclass
import hpsearch

@dataclass
class Width:
    value: int

@hpsearch.model("net", width=hpsearch.option(8, low=1, help="maps"))
def net(*, input_shape, classes, width):
    '''A network of its own.

    More.'''

@hpsearch.optimizer("slow", help="slowly", lr=hpsearch.option(0.1, above=0))
def slow(parameters, *, lr): ...

@hpsearch.dataset("pictures")
def pictures(root, *, train): ...
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my net.py"
    path.write_text(SOURCE)
    return path


def test_file_returns_its_components_with_their_options(file: Path) -> None:
    net, slow, pictures = load_component_file(file)
    assert [(found.kind, found.name) for found in (net, slow, pictures)] == [
        ("model", "net"),
        ("optimizer", "slow"),
        ("dataset", "pictures"),
    ]
    assert [(option.name, option.default, option.help) for option in net.options] == [("width", 8, "maps")]
    assert (net.help, slow.help) == ("A network of its own.", "slowly")


def test_component_knows_its_file_and_the_hash(file: Path) -> None:
    found = load_component_file(file)[0]
    assert found.file is not None
    assert (found.file.path, found.file.sha256) == (file, hashlib.sha256(file.read_bytes()).hexdigest())


def test_classes_of_a_file_can_be_pickled(file: Path) -> None:
    factory = load_component_file(file)[0].factory
    assert factory is not None
    width = factory.__globals__["Width"](3)
    assert pickle.loads(pickle.dumps(width)) == width


def test_file_may_be_loaded_again(file: Path) -> None:
    assert load_component_file(file) == load_component_file(file)
    assert current_catalog().get("model", "net")


def test_broken_file_registers_nothing(file: Path) -> None:
    file.write_text(SOURCE + "\n1 / 0\n")
    with pytest.raises(ComponentError, match="ZeroDivisionError"):
        load_component_file(file)
    assert registered("net") is None


def test_error_in_another_module_names_the_line_of_the_component_file(file: Path) -> None:
    file.write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(ComponentError, match="JSONDecodeError") as caught:
        load_component_file(file)
    assert caught.value.hint == "Look at line 3 of the file."


@pytest.mark.parametrize("line", ["import beside", "from beside.parts import x", "from folder import x", "from . import beside"])
def test_a_file_that_imports_its_neighbours_is_told_that_it_cannot(file: Path, line: str) -> None:
    (file.parent / "beside.py").touch()
    (file.parent / "folder").mkdir()
    file.write_text(f"import hpsearch\n{line}\n")
    with pytest.raises(ComponentError) as caught:
        load_component_file(file)
    assert caught.value.hint.startswith("Look at line 2 of the file. A component file cannot import files beside it")
    file.write_text("import nothing_that_exists\n")
    with pytest.raises(ComponentError) as caught:
        load_component_file(file)
    assert caught.value.hint == "Look at line 1 of the file."


@pytest.mark.parametrize(("code", "says"), [("return {}['gone']", "KeyError: 'gone'"), ("raise SystemExit(3)", "SystemExit: 3")])
def test_an_error_of_a_factory_names_the_line_of_the_component_file(file: Path, code: str, says: str) -> None:
    file.write_text(SOURCE.replace("def pictures(root, *, train): ...", f"def pictures(root, *, train):\n    {code}"))
    factory = load_component_file(file)[2].factory
    assert factory is not None
    with pytest.raises((KeyError, SystemExit)) as caught:
        factory(file, train=True)
    fault = component_fault(caught.value)
    assert fault is not None
    assert fault.message == f"component file '{file}' failed: {says}"
    assert fault.hint == f"Look at line {len(SOURCE.splitlines()) + 1} of the file."
    with pytest.raises(ZeroDivisionError) as other:
        1 / 0  # noqa: B018
    assert component_fault(other.value) is None


def test_line_ends_do_not_change_a_component_file(file: Path, nothing_run_before: None) -> None:
    first = load_component_file(file)[0].file
    assert first is not None
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_component_file(file)[0].file == first
    assert component_hash(file) == first.sha256
    assert find_component_file([file], first.sha256, owner="the config", beside="it", trust=False) == first


def test_interrupt_is_not_an_error_of_the_file(file: Path) -> None:
    file.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_component_file(file)


def test_notebook_registers_by_the_decorator_alone() -> None:
    @hpsearch.model("tiny", width=hpsearch.option(4))
    def tiny(**_: object) -> None: ...

    assert hpsearch.configure(model="tiny", width=5).model.options == {"width": 5}


def test_notebook_may_run_a_cell_again() -> None:
    for width in (4, 5):
        hpsearch.model("tiny", width=hpsearch.option(width))(lambda **_: None)
    assert hpsearch.configure(model="tiny").model.options == {"width": 5}


def test_notebook_cannot_replace_a_built_in() -> None:
    with pytest.raises(ComponentError, match="'cnn' is registered already"):
        hpsearch.model("cnn")(lambda **_: None)


@pytest.mark.parametrize("name", ["", "1net", "a b", "a.b", "../x", "x" * 65, "net\n", "ñ"])
def test_name_with_other_characters_is_refused(name: str) -> None:
    with pytest.raises(ComponentError, match="letters, digits"):
        hpsearch.model(name)


@pytest.mark.parametrize("default", [None, [1], {"a": 1}, (1, 2), b"x"])
def test_default_that_a_study_file_cannot_hold_is_refused(default: object) -> None:
    with pytest.raises(ComponentError, match="the default of an option must be"):
        hpsearch.option(default)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["help", "when", "model", "optimizer", "schedule"])
def test_option_with_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(ComponentError, match="means something else"):
        hpsearch.model("net", **{name: hpsearch.option(1)})  # type: ignore[arg-type]


# The file that something was made with


def test_the_first_file_with_the_recorded_content_is_found(tmp_path: Path) -> None:
    changed, original = tmp_path / "beside.py", tmp_path / "original.py"
    changed.write_text("# changed")
    original.write_text("# original")
    recorded = component_hash(original)
    assert recorded is not None
    remember(recorded, original)
    found = find_component_file([tmp_path / "gone.py", changed, original], recorded, owner="the config", beside="best.toml", trust=False)
    assert (found.path, found.sha256) == (original, recorded)


@pytest.mark.parametrize("may_change", [False, True])
def test_a_file_with_other_content_is_refused_before_it_runs(may_change: bool, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("raise SystemExit")
    with pytest.raises(ComponentError, match=r"own\.py' is not the one that the model was made with") as caught:
        find_component_file([path], "0" * 64, owner="the model", beside="the model", trust=not may_change, may_change=may_change)
    assert ("--trust" in caught.value.hint) is may_change


def test_a_file_with_other_content_is_accepted_by_trust(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("# changed")
    found = find_component_file([path], "0" * 64, owner="the config", beside="best.toml", trust=True, may_change=True)
    assert (found.path, found.sha256) == (path, component_hash(path))


def test_a_missing_component_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"component file '.*own\.py' is missing\nPut it beside best\.toml"):
        find_component_file([tmp_path / "own.py"], "0" * 64, owner="the config", beside="best.toml", trust=True)


# What this user has run


NET = "import hpsearch\nhpsearch.model('net')(lambda **_: None)\n"


def _find(path: Path, *, trust: bool = False) -> ComponentFile:
    sha256 = component_hash(path)
    assert sha256 is not None
    return find_component_file([path], sha256, owner="the model", beside="the model", trust=trust)


def test_a_file_that_this_user_has_not_run_is_named_and_refused(tmp_path: Path, nothing_run_before: None) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET)
    with pytest.raises(ComponentError, match=r"the model would run the program '.*net\.py', which you have not run") as caught:
        _find(path)
    assert "--trust" in caught.value.hint
    assert _find(path, trust=True).path == path


def test_a_file_that_was_run_is_known_by_its_content(tmp_path: Path, nothing_run_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy = tmp_path / "net.py", tmp_path / "copy.py"
    path.write_text(NET)
    load_component_file(path)
    copy.write_text(NET)
    monkeypatch.setattr(registration, "_registered", {})  # as in another process
    assert _find(copy).path == copy
    copy.write_text(NET + "# changed\n")
    with pytest.raises(ComponentError, match="have not run"):
        _find(copy)


def test_without_a_folder_for_the_record_a_process_knows_what_it_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET)
    monkeypatch.setenv("XDG_STATE_HOME", str(path))  # no folder can be made below a file
    load_component_file(path)
    assert _find(path).path == path


def test_a_record_that_came_with_the_model_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    path = tmp_path / "net.py"
    path.write_text(NET)
    record = tmp_path / "state" / "hpsearch" / "trusted" / str(component_hash(path))
    record.parent.mkdir(parents=True)
    record.touch()
    with pytest.raises(ComponentError, match="have not run"):
        _find(path)


# Files that are no files


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", ".", "loop", "x" * 300, "a\0b", "a\udc00b"])
def test_what_is_no_file_has_no_hash_and_is_not_read(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert component_hash(tmp_path / name) is None
    with pytest.raises(ComponentError, match="cannot be read") as caught:
        load_component_file(tmp_path / name)
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    "source", ["class Own(BaseException): pass\nraise Own('a\\nb\\x1b[31m')", "raise GeneratorExit", f"x = {'(' * 999}"]
)
def test_whatever_a_file_raises_is_one_line(source: str, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(source)
    with pytest.raises(ComponentError, match="does not import") as caught:
        load_component_file(path)
    assert caught.value.message.isprintable()


# Files of one name


def _file(path: str) -> ComponentFile:
    return ComponentFile(path=Path(path), sha256=path)


def test_short_names_tell_files_apart() -> None:
    files = [_file(path) for path in ("/s/own.py", "/s/models/parts.py", "/s/data/parts.py", "/s/data/x/deep.py", "/t/data/x/deep.py")]
    assert list(short_names(files).values()) == ["own.py", "models/parts.py", "data/parts.py", "s/data/x/deep.py", "t/data/x/deep.py"]


@pytest.mark.parametrize("recorded", ["/s/models/parts.py", "models/parts.py"])
def test_a_file_is_looked_for_under_each_short_name(recorded: str, tmp_path: Path) -> None:
    places = places_of(Path(recorded), tmp_path)
    assert places[-3:] == [tmp_path / "models" / "parts.py", tmp_path / "parts.py", Path(recorded)]


def test_no_place_beside_a_result_is_outside_its_folder(tmp_path: Path) -> None:
    assert places_of(Path("../../a/x.py"), tmp_path) == [tmp_path / "a" / "x.py", tmp_path / "x.py", Path("../../a/x.py")]
