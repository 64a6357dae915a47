"""Finds, verifies and reads the files of a data set, and writes them in torchvision's layout. Does not load torch.

`datasets.py` makes images from the contents.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import math
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpsearch.config.paths import write_atomically
from hpsearch.errors import DataError, DiskError, did_you_mean

DATA_VARIABLE = "HPSEARCH_DATA"
"""Environment variable that names the folder to search first."""

DEFAULT_FOLDER = Path("data")
"""The folder in which files are unpacked or downloaded by default."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian's package `dataset-fashion-mnist` installs its four `*.gz` files."""

FOLDERS: Mapping[str, str] = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
"""torchvision reads a data set from `<root>/<this name>/raw/`."""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "mnist": tuple("0123456789"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}  # fmt: skip

SHAPES: Mapping[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
"""Shapes of the four files of each data set. A file has an IDX header and then one byte for each number."""

FASHION_SHA256: Mapping[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the unpacked files of Fashion-MNIST."""

_IDX_UINT8 = 0x08

_log = logging.getLogger("hpsearch")


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """The files of a data set in one folder.

    Attributes:
        paths: paths of all four files, by the names of the unpacked files. A file may be compressed (`.gz`).
        contents: contents of the requested files, unpacked and verified.
        root: the root folder for torchvision; None if the files are not in its layout.
    """

    paths: Mapping[str, Path]
    contents: Mapping[str, bytes]
    root: Path | None


def find(dataset: str, folder: Path | None = None, *, names: Collection[str] = tuple(SHAPES)) -> DataFiles | None:
    """Find the files of a data set in the first folder that has them.

    Args:
        dataset: name of a built-in data set.
        folder: the only folder to search; None to search the default folders.
        names: the files to read and verify. The other files must exist, but are not read.

    Returns:
        The files; None if no folder has them.

    Raises:
        DataError: the data set is unknown, or the given folder does not have the files. Also if the
            files are damaged or incomplete, and no other folder has complete files.
    """
    if dataset not in FOLDERS:
        raise DataError(f"no files are known for the data set '{dataset}'", hint=did_you_mean(dataset, FOLDERS))
    if folder is not None:
        found = _look_in(folder, dataset, names)
        if found is None:
            raise DataError(
                f"{_describe(folder)}, but the four files of {dataset} were expected there: {', '.join(f'{name}[.gz]' for name in SHAPES)}",
                hint=f"{_how_to_get(dataset)}; or set {DATA_VARIABLE}={folder} to have it downloaded there.",
            )
        return found
    faults: list[DataError] = []
    for place in _places(dataset):
        try:
            found = _look_in(place, dataset, names)
        except DataError as fault:
            faults.append(fault)
            continue
        if found is not None:
            for passed in faults:
                _log.warning("passed over: %s; taking %s instead", passed.message, place)
            return found
    if faults:
        raise faults[0]
    return None


def prepare(dataset: str, folder: Path | None = None) -> Path:
    """Return the root folder from which torchvision reads the data set.

    If necessary, download the files with torchvision, or unpack them into the root folder. Several processes may do this at once,
    because each file is written atomically.

    Args:
        dataset: name of a built-in data set.
        folder: the only folder to search. If it is None, `$HPSEARCH_DATA`, `data/` and Debian's
            folder are searched in this order.

    Returns:
        The root folder.

    Raises:
        DataError: the files are missing or damaged, or cannot be written or downloaded.
    """
    found = find(dataset, folder)
    if found is None:
        root = default_root()
        _download(dataset, root)
        found = find(dataset, root)
        assert found is not None
    return found.root if found.root is not None else _unpack(dataset, found, _root_to_write(folder))


def read(dataset: str, names: Collection[str], folder: Path | None = None) -> list[memoryview]:
    """Return the verified contents of files without their IDX headers. Other files are not opened.

    Args:
        dataset: name of a built-in data set.
        names: the files to read.
        folder: the only folder to search; None to search the default folders.

    Returns:
        The contents in the order of `names`.

    Raises:
        DataError: the files are missing or damaged.
    """
    found = find(dataset, folder, names=names)
    if found is None:
        raise _not_found(dataset)
    return [memoryview(found.contents[name])[len(_header(name)) :] for name in names]


def default_root() -> Path:
    """Return the folder in which hpsearch writes data sets: `$HPSEARCH_DATA` or `data/`.

    Returns:
        The folder, which may not exist.
    """
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER)


def raw_file(root: Path, dataset: str, name: str) -> Path:
    """Return the path from which torchvision reads a file.

    Args:
        root: the root folder.
        dataset: name of a built-in data set.
        name: name of the unpacked file.

    Returns:
        The path.
    """
    return root / FOLDERS[dataset] / "raw" / name


def _places(dataset: str) -> Iterator[Path]:
    if os.environ.get(DATA_VARIABLE):
        yield Path(os.environ[DATA_VARIABLE])
    yield DEFAULT_FOLDER
    if dataset == "fashion-mnist":
        yield DEBIAN_FOLDER


def _root_to_write(folder: Path | None) -> Path:
    # Do not write to Debian's folder, because it belongs to the package. The user root could write to it.
    if folder is not None and os.access(folder, os.W_OK) and folder.resolve() != DEBIAN_FOLDER:
        return folder
    return default_root()


def _look_in(folder: Path, dataset: str, names: Collection[str]) -> DataFiles | None:
    """Return the files in a folder, or None if the folder has none of the files.

    Raise an error if only some of the files are there, or if a file is damaged.
    """
    for place in (folder / FOLDERS[dataset] / "raw", folder):
        try:
            paths = {name: path for name in SHAPES for path in (place / f"{name}.gz", place / name) if path.is_file()}
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}", hint=_how_to_get(dataset)) from error
        if not paths:
            continue
        missing = [name for name in SHAPES if name not in paths]
        if missing:
            raise DataError(
                f"{place} holds {len(paths)} of the 4 files of {dataset}; missing: {', '.join(missing)}", hint=_how_to_get(dataset)
            )
        contents = {name: _verified(dataset, name, paths[name]) for name in names}
        ready = place != folder and all(path.suffix != ".gz" for path in paths.values())
        return DataFiles(paths=paths, contents=contents, root=folder if ready else None)
    return None


def _verified(dataset: str, name: str, path: Path) -> bytes:
    """Return the unpacked content of a file after checking size, header and SHA-256."""
    shape, header = SHAPES[name], _header(name)
    size = len(header) + math.prod(shape)
    hint = f"Delete {path} and get it again: {_how_to_get(dataset)}"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} should be a gzip file of {size:,} bytes, but does not unpack: {error}", hint=hint) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from error
    if len(content) != size:
        found = f"{len(content):,} bytes" if len(content) < size else "more than that"
        raise DataError(f"{path} should hold {size:,} bytes of {dataset}, but holds {found}", hint=hint)
    if content[: len(header)] != header:
        raise DataError(
            f"{path} should begin with the IDX header {header.hex()} ({'×'.join(map(str, shape))} bytes), "
            f"but begins with {content[: len(header)].hex()}",
            hint=hint,
        )
    digest = hashlib.sha256(content).hexdigest()
    if dataset == "fashion-mnist" and digest != FASHION_SHA256[name]:
        raise DataError(f"{path} should have SHA-256 {FASHION_SHA256[name]}, but has {digest}", hint=hint)
    if dataset != "fashion-mnist" and digest == FASHION_SHA256[name]:
        raise DataError(f"{path} should be {dataset}, but is Fashion-MNIST", hint=hint)
    return content


def _header(name: str) -> bytes:
    shape = SHAPES[name]
    return bytes((0, 0, _IDX_UINT8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)


def _unpack(dataset: str, found: DataFiles, root: Path) -> Path:
    for name, content in found.contents.items():
        target = raw_file(root, dataset, name)
        try:
            if not (target.is_file() and target.read_bytes() == content):
                write_atomically(target, content)
        except (OSError, DiskError) as error:
            raise DataError(
                error.message if isinstance(error, DiskError) else f"{target} cannot be read: {error.strerror}",
                hint=f"Set {DATA_VARIABLE} to a folder with 60 MB of space that you may write to.",
            ) from error
    return root


def _download(dataset: str, root: Path) -> None:
    from hpsearch.training.data import download as vision

    try:
        vision.download(FOLDERS[dataset], root)
    # torchvision raises RuntimeError if a mirror fails or a checksum is wrong.
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(f"{dataset} could not be downloaded to {root}: {error}", hint=_how_to_get(dataset)) from error


def _not_found(dataset: str) -> DataError:
    places = ", ".join(str(place) for place in _places(dataset))
    return DataError(f"{dataset} was not found; looked in {places}", hint=f"{_how_to_get(dataset)}; or download it with `hpsearch data`.")


def _describe(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return f"{folder} is empty" if not any(folder.iterdir()) else f"{folder} holds other files"


def _how_to_get(dataset: str) -> str:
    debian = f"`apt-get install dataset-fashion-mnist` puts it into {DEBIAN_FOLDER}; or "
    return f"{debian if dataset == 'fashion-mnist' else ''}name a folder that has the four files with `--data`"
