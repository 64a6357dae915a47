"""Finding, verifying and unpacking the files of a data set."""

from __future__ import annotations

import errno
import gzip
import hashlib
import math
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from hpsearch.errors import DataError
from hpsearch.training.data import files

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def raw(data_root: Path, tmp_path: Path) -> Path:
    """A new folder with links to the four good files."""
    folder = tmp_path / "a root with 'quotes'"
    for name in files.SHAPES:
        target = files.raw_file(folder, "fashion-mnist", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(files.raw_file(data_root, "fashion-mnist", name))
    return folder


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def idx(name: str, fill: bytes = b"\0") -> bytes:
    shape = files.SHAPES[name]
    return bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape) + fill * math.prod(shape)


def test_importing_files_loads_no_torch() -> None:
    code = "import sys, hpsearch.training.data.files; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_given_folder_with_good_files_is_the_root(raw: Path) -> None:
    assert files.prepare("fashion-mnist", raw) == raw


def test_torchvision_takes_the_root_without_a_download(data_root: Path) -> None:
    from hpsearch.training.data import download as vision

    data = vision._datasets.FashionMNIST(data_root, train=False, download=False)
    assert (len(data), tuple(data.classes)) == (10_000, files.CLASS_NAMES["fashion-mnist"])


@pytest.mark.parametrize("train", [True, False])
def test_the_images_read_are_those_that_torchvision_reads(data_root: Path, train: bool) -> None:
    from hpsearch.training.data import download as vision
    from hpsearch.training.data.datasets import read_images

    theirs = vision._datasets.FashionMNIST(data_root, train=train, download=False)
    ours = read_images("fashion-mnist", train=train, folder=data_root)
    assert torch.equal(ours.images, theirs.data.unsqueeze(1))
    assert torch.equal(ours.labels, theirs.targets)


def test_reading_some_files_opens_no_others(raw: Path) -> None:
    replace(files.raw_file(raw, "fashion-mnist", "t10k-labels-idx1-ubyte"), b"damaged")
    (labels,) = files.read("fashion-mnist", (LABELS,), raw)
    assert len(labels) == 60_000
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte should hold 10,008 bytes"):
        files.prepare("fashion-mnist", raw)


def test_reading_without_files_says_where_they_were_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPSEARCH_DATA", "elsewhere")
    with pytest.raises(DataError, match="kmnist was not found; looked in elsewhere, data"):
        files.read("kmnist", (LABELS,))


def test_the_split_of_a_built_in_data_set_is_loaded_without_torchvision(data_root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hpsearch.training.data.split import load_split; "
        "load_split(validation_images=100, seed=1, folder=Path(sys.argv[1])); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(data_root)], check=False).returncode == 0


Fault = tuple[str, Callable[[Path], None], str]

FAULTS: list[Fault] = [
    ("missing file", lambda raw: (raw / LABELS).unlink(), f"holds 3 of the 4 files of fashion-mnist; missing: {LABELS}"),
    ("empty file", lambda raw: replace(raw / LABELS, b""), "should hold 60,008 bytes of fashion-mnist, but holds 0 bytes"),
    (
        "cut file",
        lambda raw: replace(raw / IMAGES, (raw / IMAGES).read_bytes()[:-1]),
        "should hold 47,040,016 bytes of fashion-mnist, but holds 47,040,015 bytes",
    ),
    ("long file", lambda raw: replace(raw / LABELS, (raw / LABELS).read_bytes() + b"x"), "but holds more than that"),
    (
        "wrong header",
        lambda raw: replace(raw / LABELS, b"\1" + (raw / LABELS).read_bytes()[1:]),
        "should begin with the IDX header 000008010000ea60",
    ),
    (
        "changed byte",
        lambda raw: replace(raw / LABELS, (raw / LABELS).read_bytes()[:-1] + b"\7"),
        f"should have SHA-256 {files.FASHION_SHA256[LABELS]}",
    ),
    ("no gzip", lambda raw: ((raw / LABELS).unlink(), (raw / f"{LABELS}.gz").write_bytes(b"no gzip"))[0], "does not unpack"),
    (
        "cut gzip",
        lambda raw: ((raw / f"{LABELS}.gz").write_bytes(gzip.compress((raw / LABELS).read_bytes())[:-9]), (raw / LABELS).unlink())[1],
        "does not unpack",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_damaged_given_folder_is_an_error_that_names_the_file(raw: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(raw / "FashionMNIST" / "raw")
    with pytest.raises(DataError) as caught:
        files.prepare("fashion-mnist", raw)
    assert message in caught.value.message
    assert str(raw) in caught.value.message
    assert "apt-get install dataset-fashion-mnist" in caught.value.hint


@pytest.mark.parametrize("state", ["does not exist", "is empty", "holds other files", "is not a folder"])
def test_given_folder_without_the_files_is_never_passed_over(tmp_path: Path, state: str) -> None:
    folder = tmp_path / "given"
    if state in ("is empty", "holds other files"):
        folder.mkdir()
    if state == "holds other files":
        (folder / "notes.txt").touch()
    if state == "is not a folder":
        folder.touch()
    with pytest.raises(DataError, match=state):
        files.prepare("fashion-mnist", folder)


def test_a_folder_that_may_not_be_read_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", deny)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        files.find("fashion-mnist", tmp_path)


def test_packed_files_are_unpacked_into_a_given_writable_folder(raw: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in files.SHAPES:
        (packed / f"{name}.gz").write_bytes(gzip.compress(files.raw_file(raw, "fashion-mnist", name).read_bytes(), compresslevel=1))
    assert files.prepare("fashion-mnist", packed) == packed
    content = files.raw_file(packed, "fashion-mnist", IMAGES).read_bytes()
    assert hashlib.sha256(content).hexdigest() == files.FASHION_SHA256[IMAGES]
    assert not list(packed.rglob(".*"))


def test_several_processes_may_unpack_at_once(raw: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(raw / "FashionMNIST" / "raw", packed)
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        roots = list(pool.map(files.prepare, ["fashion-mnist"] * 8, [packed] * 8))
    assert roots == [packed] * 8
    assert files.prepare("fashion-mnist", packed) == packed


def test_a_damaged_own_folder_is_passed_over_with_a_warning(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    working = tmp_path / "working"
    own = working / "data" / "FashionMNIST" / "raw"
    own.mkdir(parents=True)
    (own / LABELS).write_bytes(b"cut")
    monkeypatch.chdir(working)
    monkeypatch.delenv("HPSEARCH_DATA", raising=False)
    monkeypatch.setattr(files, "DEBIAN_FOLDER", raw)
    assert files.prepare("fashion-mnist") == raw
    assert "holds 1 of the 4 files" in caplog.text


def test_nothing_anywhere_names_the_places_and_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(files, "DEBIAN_FOLDER", tmp_path / "debian")
    with pytest.raises(DataError, match=r"looked in .*elsewhere, data, .*debian") as caught:
        files.read("fashion-mnist", (LABELS,))
    assert "--data" in caught.value.hint
    assert "hpsearch data" in caught.value.hint


def test_a_failed_download_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpsearch.training.data import download as vision

    def fail(name: str, root: Path) -> None:
        raise OSError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPSEARCH_DATA", raising=False)
    monkeypatch.setattr(vision, "download", fail)
    with pytest.raises(DataError, match="could not be downloaded to data: no route to host"):
        files.prepare("kmnist")


def test_a_download_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpsearch.training.data import download as vision

    def fetch(folder: str, root: Path) -> None:
        for name in files.SHAPES:
            target = root / folder / "raw" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(idx(name))

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPSEARCH_DATA", raising=False)
    monkeypatch.setattr(vision, "download", fetch)
    assert files.prepare("mnist") == Path("data")
    files.raw_file(Path("data"), "mnist", LABELS).write_bytes(b"")
    with pytest.raises(DataError, match="but holds 0 bytes"):
        files.prepare("mnist")


def test_fashion_mnist_is_not_taken_for_mnist(raw: Path) -> None:
    (raw / "FashionMNIST").rename(raw / "MNIST")
    with pytest.raises(DataError, match="should be mnist, but is Fashion-MNIST"):
        files.prepare("mnist", raw)


def test_every_built_in_data_set_has_ten_class_names() -> None:
    assert {name: len(set(classes)) for name, classes in files.CLASS_NAMES.items()} == dict.fromkeys(files.FOLDERS, 10)


def test_unknown_data_set_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="Did you mean 'kmnist'"):
        files.find("kmnits")
