"""Converts picture files into the input of a model, and reports each change."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageCms, ImageOps
from PIL.ExifTags import Base as Tag
from torch import Tensor

from hpsearch.errors import DataError
from hpsearch.formatting import show_path

LARGEST_PICTURE = 50_000_000
"""Largest number of pixels in a picture. A file with more pixels is probably an error or an attack."""
BRIGHT = 127.5
"""The background is bright if the mean of the border is higher. This is the middle of the scale from 0 to 255."""
SIXTEEN_BITS = ("JPEG2000", "PNG", "PPM", "TIFF")
"""The formats of which Pillow reads 16-bit greys without a sign. It scales the greys of PPM and JPEG 2000 to 16 bits."""
SCREEN_GAMMA = 2.2
"""The gamma for which pixels without a colour profile are meant, as a power function (the gamma of sRGB)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InputImage:
    """A picture in the shape that a model needs.

    Attributes:
        image: uint8 [C, H, W].
        done: the changes in order, in words; empty if no change was needed.
    """

    image: Tensor
    done: tuple[str, ...]


def read_picture(path: Path, input_shape: tuple[int, int, int]) -> InputImage:
    """Read a picture file of any size, colour or grey, as a person sees it.

    It is turned as its EXIF data ask, its colours become sRGB, and greys of 16 bits become greys of
    8 bits. It is converted to the model's number of channels. It is scaled without changing its
    aspect ratio. A grey picture with a bright background is inverted, because the images of the
    MNIST family have a black background.

    Args:
        path: the file.
        input_shape: channels, height and width of the model's input.

    Returns:
        The image and the changes.

    Raises:
        DataError: the file is missing or is not a picture, its greys have no known scale, or the model takes no pictures.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise DataError(f"the model takes images of {channels} channels, but a picture has 1 (grey) or 3 (colour)")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
            if opened.width * opened.height > LARGEST_PICTURE:
                raise DataError(f"{show_path(path)} has {opened.width} × {opened.height} pixels, which is too many")
            mode = opened.mode
            picture, done = _as_seen(opened, path)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {show_path(path)}") from error
    except Exception as error:  # Pillow's readers raise errors of many types for a damaged file
        cause = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{show_path(path)} cannot be read as a picture: {cause}", hint="PNG and JPEG are, among others.") from error
    size = picture.size
    if numpy.asarray(picture.getchannel("A")).min() < 255:
        picture = Image.alpha_composite(Image.new("RGBA", size, "white"), picture)
        done.append("put on white")
    picture = picture.convert("L" if channels == 1 else "RGB")
    if channels == 1 and mode not in ("1", "L", "LA", "I") and not mode.startswith("I;16"):
        done.append("made grey")
    if channels == 1 and _border_mean(picture) > BRIGHT:
        picture = Image.eval(picture, lambda value: 255 - value)
        done.append("inverted, since its ground is bright")
    if size != (width, height):
        picture = _fitted(picture, width, height)
        done.append(f"scaled from {size[0]} × {size[1]} to {width} × {height}")
    pixels = torch.from_numpy(numpy.array(picture, dtype=numpy.uint8))
    return InputImage(image=pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous(), done=tuple(done))


def _as_seen(opened: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
    """Return a picture as RGBA in the colours and the position that a person sees, and the changes."""
    done = []
    if getattr(opened, "is_animated", False):
        done.append("took the first of its frames")
    if opened.getexif().get(Tag.Orientation, 1) in range(2, 9):  # Pillow removes the tag of a TIFF file when it loads the file
        done.append("turned as its EXIF data ask")
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith(("I", "F")):
        picture = _with_8_bits(picture, opened, path)
        done.append("reduced to 8 bits")
    if picture.mode in ("CMYK", "LAB"):
        done.append(f"converted from {picture.mode}")
    seen = picture.convert("RGBA")
    profile, gamma = opened.info.get("icc_profile"), opened.info.get("gamma", 1 / SCREEN_GAMMA)
    if profile:
        seen, change = _in_srgb(picture, seen, profile)
        done += change
    elif "srgb" not in opened.info and gamma > 0 and abs(gamma * SCREEN_GAMMA - 1) > 0.05:
        curve = [round(255 * (value / 255) ** (1 / (gamma * SCREEN_GAMMA))) for value in range(256)]
        seen = seen.point([*curve * 3, *range(256)])
        done.append(f"corrected its gamma of {gamma:g}")
    return seen, done


def _with_8_bits(picture: Image.Image, opened: Image.Image, path: Path) -> Image.Image:
    """Scale greys of 16 bits to 8 bits. Raise an error for greys of another kind: which value is white would be a guess."""
    tags = getattr(opened, "tag_v2", {})  # a TIFF file may have 12 bits, and may have white as zero
    known = picture.mode.startswith("I;16") or (picture.mode == "I" and opened.format in ("PNG", "PPM"))
    if not known or opened.format not in SIXTEEN_BITS or tags.get(Tag.PhotometricInterpretation) == 0 or "transparency" in opened.info:
        raise DataError(
            f"{show_path(path)} has greys that cannot be converted to 8 bits with certainty (format {opened.format}, mode {picture.mode})",
            hint="Save it as a PNG file with greys of 8 or 16 bits.",
        )
    white = 2 ** tags.get(Tag.BitsPerSample, (16,))[0] - 1
    return Image.fromarray(numpy.round(numpy.asarray(picture) * (255 / white)).astype(numpy.uint8))


def _in_srgb(picture: Image.Image, seen: Image.Image, profile: bytes) -> tuple[Image.Image, list[str]]:
    """Convert a picture from its colour profile to sRGB, as viewers do. `seen` is the picture as RGBA."""
    plain = picture if picture.mode in ("L", "RGB", "CMYK", "LAB") else seen.convert("L" if picture.mode in ("1", "LA") else "RGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return seen, []
        converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError):  # Pillow may be built without a colour management
        return seen, ["left out its colour profile, which cannot be used"]
    assert converted is not None  # it is None only for a change in place
    converted.putalpha(seen.getchannel("A"))
    return converted, ["converted to sRGB from its colour profile"]


def _border_mean(picture: Image.Image) -> float:
    pixels = numpy.asarray(picture, dtype=numpy.float64)
    return float(numpy.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean())


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to the largest size that fits, and centre it on a black canvas."""
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    canvas = Image.new(picture.mode, (width, height))
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas
