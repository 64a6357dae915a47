"""Conversion of picture files into the input of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from hpsearch.errors import DataError
from hpsearch.training.input_image import read_picture

GREY = (1, 28, 28)


def _write(path: Path, pixels: numpy.ndarray, mode: str | None = None) -> Path:
    made = Image.fromarray(pixels)
    (made.convert(mode) if mode else made).save(path)
    return path


def _shape_on(ground: int, figure: int, size: int = 28) -> numpy.ndarray:
    pixels = numpy.full((size, size), ground, dtype=numpy.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = figure
    return pixels


def test_a_picture_that_fits_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = _shape_on(0, 200)
    read = read_picture(_write(tmp_path / "a.png", pixels), GREY)
    assert read.done == ()
    assert numpy.array_equal(read.image[0].numpy(), pixels)


def test_a_bright_ground_is_inverted_and_said(tmp_path: Path) -> None:
    read = read_picture(_write(tmp_path / "a.png", _shape_on(255, 20)), GREY)
    assert read.done == ("inverted, since its ground is bright",)
    assert read.image[0, 0, 0] == 0
    assert read.image[0, 14, 14] == 235


def test_colour_and_size_are_changed_and_said(tmp_path: Path) -> None:
    colour = numpy.stack([_shape_on(0, 200, 100)] * 3, axis=-1)
    read = read_picture(_write(tmp_path / "a.png", colour), GREY)
    assert read.done == ("made grey", "scaled from 100 × 100 to 28 × 28")
    assert tuple(read.image.shape) == GREY


def test_sides_stay_in_proportion(tmp_path: Path) -> None:
    wide = numpy.full((10, 40), 100, dtype=numpy.uint8)
    read = read_picture(_write(tmp_path / "a.png", wide), GREY)
    rows = (read.image[0] > 0).any(dim=1).sum().item()
    assert rows == 7


def test_what_is_transparent_stands_on_white(tmp_path: Path) -> None:
    pixels = numpy.zeros((28, 28, 4), dtype=numpy.uint8)
    pixels[10:18, 10:18] = (0, 0, 0, 255)
    read = read_picture(_write(tmp_path / "a.png", pixels), GREY)
    assert read.done[0] == "put on white"
    assert "inverted, since its ground is bright" in read.done
    assert read.image[0, 14, 14] == 255


def test_a_model_of_colours_gets_colours(tmp_path: Path) -> None:
    read = read_picture(_write(tmp_path / "a.png", _shape_on(0, 9)), (3, 28, 28))
    assert tuple(read.image.shape) == (3, 28, 28)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\ncut"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(path, GREY)
    with pytest.raises(DataError, match="there is no picture"):
        read_picture(tmp_path / "gone.png", GREY)
    with pytest.raises(DataError, match="cannot be read as a picture: Is a directory\n"):
        read_picture(tmp_path, GREY)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_ask(tmp_path: Path, kind: str, tag: int) -> None:
    pixels = numpy.zeros((40, 20), dtype=numpy.uint8)
    pixels[:8, 1:6] = 200  # in the upper left corner
    # The tag names the change that turns the stored pixels back.
    stored = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T, 6: pixels.T[::-1]}
    stored |= {7: pixels.T[::-1, ::-1], 8: pixels.T[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"a.{kind}"
    Image.fromarray(numpy.ascontiguousarray(stored[tag])).convert("RGB").save(path, exif=exif, quality=95)
    read = read_picture(path, (1, 40, 20))
    assert read.done == (("turned as its EXIF data ask",) if tag > 1 else ()) + ("made grey",)
    assert numpy.abs(read.image[0].numpy().astype(int) - pixels).mean() < 3


@pytest.mark.parametrize(("kind", "order"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("pgm", "<u2")])
def test_greys_of_16_bits_keep_their_shades(tmp_path: Path, kind: str, order: str) -> None:
    pixels = numpy.arange(28 * 28, dtype=numpy.uint16).reshape(28, 28) % 120
    path = _write(tmp_path / f"a.{kind}", (pixels * 257).astype(order))
    read = read_picture(path, GREY)
    assert read.done == ("reduced to 8 bits",)
    assert numpy.array_equal(read.image[0].numpy(), pixels)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_greys_without_a_known_scale_are_refused(tmp_path: Path, dtype: str) -> None:
    path = _write(tmp_path / "a.tif", _shape_on(0, 1).astype(dtype))
    with pytest.raises(DataError, match="greys that cannot be converted to 8 bits with certainty"):
        read_picture(path, GREY)


def test_greys_of_16_bits_with_white_as_zero_or_a_transparent_value_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(_shape_on(0, 200).astype(numpy.uint16) * 257)
    deep.save(tmp_path / "a.tif", tiffinfo={262: 0})
    deep.save(tmp_path / "a.png", transparency=0)
    for name in ("a.tif", "a.png"):
        with pytest.raises(DataError, match="with certainty"):
            read_picture(tmp_path / name, GREY)


def test_colours_are_those_that_a_person_sees(tmp_path: Path) -> None:
    red = Image.new("RGB", (28, 28), (200, 10, 10))
    palette = red.quantize(4)
    palette.info["transparency"] = bytes([0] * 256)
    palette.save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.tif")
    seen, printed = (read_picture(tmp_path / name, (3, 28, 28)) for name in ("palette.png", "cmyk.tif"))
    assert (seen.done, printed.done) == (("put on white",), ("converted from CMYK",))
    assert seen.image.min() == 255
    assert numpy.abs(printed.image[:, 0, 0].numpy().astype(int) - (200, 10, 10)).max() <= 2


def test_the_first_frame_of_several_is_taken_and_said(tmp_path: Path) -> None:
    first, second = (Image.fromarray(_shape_on(0, figure)) for figure in (200, 90))
    for kind in ("gif", "png", "tif"):
        first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second])
        read = read_picture(tmp_path / f"a.{kind}", GREY)
        assert "took the first of its frames" in read.done
        assert read.image.max() == 200


def _profile(gamma: float) -> bytes:
    """A colour profile with the primary colours of sRGB and a curve of its own."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"s\0R\0G\0B", b"t\0E\0S\0T"))
    at = content.index(b"para", 128 + 12 * 20)
    content[at : at + 16] = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + b"\0\0"
    return bytes(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    colour = Image.new("RGB", (28, 28), (64, 64, 64))
    grey = colour.quantize(4) if mode == "P" else colour.convert(mode)
    linear = _profile(1.0)
    grey.save(tmp_path / "linear.png", icc_profile=linear)
    grey.save(tmp_path / "srgb.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    grey.save(tmp_path / "odd.png", icc_profile=b"no profile")
    found = {path.stem: read_picture(path, (3, 28, 28)) for path in tmp_path.iterdir()}
    assert {name: (read.done, int(read.image.max())) for name, read in found.items()} == {
        "linear": (("converted to sRGB from its colour profile",), 137),
        "srgb": ((), 64),
        "odd": (("left out its colour profile, which cannot be used",), 64),
    }


def test_a_gamma_is_corrected_unless_it_is_that_of_the_screen(tmp_path: Path) -> None:
    for name, gamma in (("linear", 100_000), ("screen", 45_455)):
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"gAMA", gamma.to_bytes(4, "big"))
        Image.new("L", (28, 28), 64).save(tmp_path / f"{name}.png", pnginfo=chunks)
    linear, screen = (read_picture(tmp_path / f"{name}.png", GREY) for name in ("linear", "screen"))
    assert linear.done[0] == "corrected its gamma of 1"
    assert (screen.done, int(screen.image.max())) == ((), 64)


def test_too_many_pixels_and_odd_channels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.png", _shape_on(0, 9))
    with pytest.raises(DataError, match="takes images of 2 channels"):
        read_picture(path, (2, 28, 28))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns beyond this, and raises an error beyond its double
    read_picture(path, GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(DataError, match="decompression bomb"):
        read_picture(path, GREY)


def test_damaged_pictures_end_in_one_line(tmp_path: Path) -> None:
    draws: Any = numpy.random.default_rng(3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("png", "gif", "tif", "jpg", "webp", "ppm", "bmp", "ico", "tga", "pcx"):
        path = tmp_path / f"a.{kind}"
        Image.fromarray(_shape_on(0, 200, 32)).convert("RGB").save(
            path, **({"exif": exif} if kind in ("png", "tif", "jpg", "webp") else {})
        )
        whole = path.read_bytes()
        for _ in range(40):
            content = bytearray(whole[: draws.integers(1, len(whole) + 1)])
            for position in draws.integers(0, min(len(content), 120), 3):
                content[position] = draws.integers(256)
            path.write_bytes(content)
            try:
                read_picture(path, GREY)
            except DataError as error:
                assert str(path) in error.message  # noqa: PT017
