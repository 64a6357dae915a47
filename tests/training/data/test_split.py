"""The split, the batches, and user-defined data sets."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hpsearch
from hpsearch.errors import DataError
from hpsearch.training.data import split as data_module
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.held_out import load_test_images
from hpsearch.training.data.split import allocate, batches, channel_statistics, count_batches, load_split, make_split, validation_indices


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.fixture(scope="module")
def made() -> Images:
    """600 different images in 3 classes of 300, 200 and 100."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (600, 1, 6, 6), dtype=torch.uint8, generator=generator)
    labels = torch.tensor([0] * 300 + [1] * 200 + [2] * 100)
    return Images(images=images, labels=labels, classes=("a", "b", "c"))


def test_fashion_mnist_splits_into_the_documented_numbers(data_root: Path) -> None:
    split = load_split("fashion-mnist", validation_images=10_000, seed=1, folder=data_root)
    assert split.train_images.shape == (50_000, 1, 28, 28)
    assert split.train_images.dtype == torch.uint8
    assert split.train_labels.dtype == torch.int64
    assert torch.bincount(split.validation_labels).tolist() == [1_000] * 10
    assert split.mean[0] == pytest.approx(0.2860, abs=5e-4)
    assert split.std[0] == pytest.approx(0.3530, abs=5e-4)
    assert split.classes[9] == "Ankle boot"


def test_split_parts_are_disjoint_and_together_the_whole(made: Images) -> None:
    split = make_split(made, validation_images=100, seed=1)
    train, validation = rows(split.train_images), rows(split.validation_images)
    assert not train & validation
    assert train | validation == rows(made.images)


def test_split_repeats_for_a_seed_and_differs_for_another(made: Images) -> None:
    first, again, other = (make_split(made, validation_images=100, seed=seed) for seed in (1, 1, 2))
    assert first.hash == again.hash != other.hash
    assert torch.equal(first.validation_images, again.validation_images)


FROZEN = [52, 85, 155, 300, 384, 516]


def test_split_stays_the_same_over_releases(made: Images) -> None:
    indices = {image.numpy().tobytes(): index for index, image in enumerate(made.images)}
    split = make_split(made, validation_images=6, seed=17)
    assert [indices[image.numpy().tobytes()] for image in split.validation_images] == FROZEN


def test_validation_images_do_not_depend_on_how_many_train(made: Images) -> None:
    few, all_of_them = (make_split(made, validation_images=100, seed=1, train_images=number) for number in (50, None))
    assert torch.equal(few.validation_images, all_of_them.validation_images)
    assert rows(few.train_images) < rows(all_of_them.train_images)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any), st.data())
def test_largest_remainder_is_fair(sizes: list[int], draw: st.DataObject) -> None:
    total = draw.draw(st.integers(0, sum(sizes)))
    shares = allocate(total, sizes)
    assert sum(shares) == total
    for share, size in zip(shares, sizes, strict=True):
        assert 0 <= share <= size
        assert abs(share - total * size / sum(sizes)) < 1


@pytest.mark.parametrize(
    ("validation", "train", "message"),
    [
        (0, None, "validation_images must be at least 1 and below the 600 training images, but got 0"),
        (-5, None, "but got -5"),
        (600, None, "but got 600"),
        (100, 0, "train_images must be at least 1 and at most 500"),
        (100, 501, "but got 501"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(made: Images, validation: int, train: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_split(made, validation_images=validation, seed=1, train_images=train)


def test_channel_statistics_are_those_of_the_training_images_alone() -> None:
    images = torch.randint(0, 256, (40, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images[:, 2] = 7
    mean, std = channel_statistics(images)
    shares = images.double() / 255
    assert mean == pytest.approx(shares.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert std[:2] == pytest.approx(shares.std((0, 2, 3), correction=0).tolist()[:2], abs=1e-12)
    assert std[2] == 1


def test_a_split_holds_no_test_image(fashion: Images, data_root: Path) -> None:
    split = make_split(fashion, validation_images=10_000, seed=1)
    test = load_test_images("fashion-mnist", folder=data_root)
    assert test.images.shape == (10_000, 1, 28, 28)
    shared = rows(test.images) & (rows(split.train_images) | rows(split.validation_images))
    # No test image of Fashion-MNIST is also a training image.
    assert not shared


def test_the_loader_of_search_has_no_way_to_ask_for_test_images() -> None:
    public = [getattr(data_module, name) for name in vars(data_module) if not name.startswith("_")]
    own = [function for function in public if inspect.isfunction(function) and function.__module__ == data_module.__name__]
    assert own
    assert not any({"train", "test", "part"} & set(inspect.signature(function).parameters) for function in own)
    tree = ast.parse(inspect.getsource(data_module))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "read_images"]
    assert [ast.unparse(next(word.value for word in call.keywords if word.arg == "train")) for call in calls] == ["True"]


@pytest.mark.parametrize(("images", "size"), [(10, 3), (10, 5), (10, 10), (10, 64), (1, 1), (1, 4), (7, 1), (7, 2)])
def test_batches_are_a_permutation_without_a_single_image_left_over(images: int, size: int) -> None:
    made = list(batches(images, size, torch.Generator().manual_seed(1)))
    assert sorted(torch.cat(made).tolist()) == list(range(images))
    assert len(made) == count_batches(images, size)
    assert size == 1 or images == 1 or all(len(batch) > 1 for batch in made)


def test_batches_follow_their_generator() -> None:
    one, same, other = (torch.cat(list(batches(50, 8, torch.Generator().manual_seed(seed)))) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_users_data_set_is_split_like_any_other(tmp_path: Path) -> None:
    seen: list[tuple[Path, bool]] = []

    @hpsearch.dataset("squares")
    def squares(root: Path, *, train: bool) -> Any:
        seen.append((root, train))
        pixels = numpy.arange(20 * 3 * 4 * 5, dtype=numpy.uint8).reshape(20, 3, 4, 5)
        return pixels, [0, 1] * 10, ["even", "odd"]

    split = load_split("squares", validation_images=4, seed=1, folder=tmp_path)
    assert split.input_shape == (3, 4, 5)
    assert torch.bincount(split.validation_labels).tolist() == [2, 2]
    assert len(load_test_images("squares", folder=tmp_path).labels) == 20
    assert seen == [(tmp_path, True), (tmp_path, False)]


GOOD = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "must return"),
        ((GOOD, [0, 1]), "must return"),
        ((GOOD.float(), [0, 1, 0, 1], "ab"), "must be uint8 from 0 to 255, but are torch.float32"),
        ((GOOD[0, 0], [0, 1, 0], "ab"), r"must be \[N, C, H, W\] or \[N, H, W\]"),
        ((GOOD[:0], [], "ab"), "not empty"),
        ((GOOD, [0, 1, 0], "ab"), "4 images, but 3 labels"),
        ((GOOD, [0.5, 1, 0, 1], "ab"), "must be whole numbers"),
        ((GOOD, [[0], [1], [0], [1]], "ab"), "must be whole numbers"),
        ((GOOD, [0, 1, 2, 1], "ab"), "must lie from 0 to 1 for 2 classes, but range from 0 to 2"),
        ((GOOD, [0, -1, 0, 1], "ab"), "but range from -1 to 1"),
        ((GOOD, [0, 0, 0, 0], "a"), "at least 2 classes"),
        ((GOOD, [0, 1, 0, 1], "aa"), "each once"),
        (("no images", [0, 1, 0, 1], "ab"), "must be a tensor or an array"),
        ((GOOD, [0, 1, 0, 1], 2), "the class names of 'broken' must be a list, but are 2"),
        ((GOOD, [0, 1, 0, 1], None), "the class names of 'broken' must be a list"),
        ((GOOD, [0, 1, 0, 1], ("a\n", "b")), r"must be one line of text, but is 'a\\x0a'"),
        ((GOOD, [0, 1, 0, 1], ("a", " ")), "must be one line of text, but is ' '"),
        ((GOOD, [0, 1, 0, 1], ("a\udcff", "b")), r"must be one line of text, but is 'a\\xdcff'"),
        ((torch.zeros(4, 28, 28, 3, dtype=torch.uint8), [0, 1, 0, 1], "ab"), "channels seem to be last\nWrite .*permute"),
        ((torch.zeros(4, 28, 20, 3, dtype=torch.uint8), [0, 1, 0, 1], "ab"), "channels seem to be last"),
        ((torch.zeros(4, 28, 28, 1, dtype=torch.uint8), [0, 1, 0, 1], "ab"), "channels seem to be last"),
    ],
)
def test_what_a_users_data_set_returns_is_checked(returned: object, message: str) -> None:
    hpsearch.dataset("broken")(lambda root, *, train: returned)
    with pytest.raises(DataError, match=message):
        load_split("broken", validation_images=1, seed=1)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 16, 100, 1), (4, 4, 28, 3), (4, 1, 28, 1)])
def test_channels_that_may_be_first_are_accepted(shape: tuple[int, ...]) -> None:
    hpsearch.dataset("signals")(lambda root, *, train: (torch.zeros(shape, dtype=torch.uint8), [0, 1, 0, 1], [0, 1]))
    split = load_split("signals", validation_images=2, seed=1)
    assert (split.input_shape, split.classes) == (shape[1:], ("0", "1"))


def test_unknown_data_set_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="Did you mean 'fashion-mnist'"):
        load_split("fashion_mnist", validation_images=1, seed=1)


def _numbered(images: int) -> Images:
    pixels = torch.arange(images).reshape(images, 1, 1, 1).expand(images, 1, 2, 2).to(torch.uint8)
    return Images(images=pixels, labels=torch.tensor([0, 1] * (images // 2)), classes=("even", "odd"))


def test_a_fresh_split_validates_on_none_of_the_images_that_the_search_did() -> None:
    data = _numbered(200)
    searched_on = validation_indices(data, validation_images=60, seed=1)
    search = make_split(data, validation_images=60, seed=1)
    assert sorted(search.validation_images[:, 0, 0, 0].tolist()) == sorted(searched_on.tolist())
    fresh = [make_split(data, validation_images=60, seed=seed, exclude_from_validation=searched_on) for seed in (2, 3)]
    for split in fresh:
        validated = set(split.validation_images[:, 0, 0, 0].tolist())
        assert not validated & set(searched_on.tolist())
        assert set(searched_on.tolist()) <= set(split.train_images[:, 0, 0, 0].tolist())
        assert torch.bincount(split.validation_labels).tolist() == [30, 30]
    assert fresh[0].hash != fresh[1].hash


def test_fewer_training_images_of_a_fresh_split_are_drawn_from_all_that_are_left() -> None:
    data = _numbered(200)
    searched_on = set(validation_indices(data, validation_images=60, seed=1).tolist())
    split = make_split(data, validation_images=60, seed=2, train_images=70, exclude_from_validation=torch.tensor(sorted(searched_on)))
    shared = searched_on & set(split.train_images[:, 0, 0, 0].tolist())
    assert 15 < len(shared) < 45  # 70 of 60 excluded and 80 other images are drawn: 30 are expected


def test_a_fresh_split_needs_images_that_the_search_did_not_validate_on() -> None:
    data = _numbered(100)
    searched_on = validation_indices(data, validation_images=60, seed=1)
    with pytest.raises(DataError, match="validation_images must be less than half"):
        make_split(data, validation_images=60, seed=2, exclude_from_validation=searched_on)
