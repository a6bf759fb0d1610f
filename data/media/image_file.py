"""Picture files: opened, checked, turned upright, and read as RGB.

    image = open_image("photo.jpg")     # a Pillow picture, RGB; raises BadImage(path, reason)
    crop = ImageFile("photo.jpg").region((10, 20, 410, 320), min_size=(224, 224))      # of 400x300

A picture is read as a person would see it: the camera's EXIF orientation is applied (the 2022 code ignored it), 16-bit
gray is scaled to 8 bits instead of clipped to white, CMYK becomes RGB. Palettes and alpha are converted as by Pillow's
plain `convert("RGB")`, which drops the alpha channel: the released models saw such pictures that way.
"""

import importlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from data.media.jpeg import decode_rgb
from files import open_regular
from settings import MissingFile, UnreadableFile, UserError

MAX_PIXELS = 178_956_970
"""Larger pictures are refused as decompression bombs: half a gigabyte of RGB, where Pillow itself refuses them."""
MAX_BYTES = 2**30
MAX_TEXT = 64 * 2**20
"""Bytes of text and of color profile, unpacked, that a PNG may hold beside its pixels."""
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = (
    MAX_TEXT  # Pillow's 1 MiB costs pictures with workflows
)

# What Pillow warns of leaves the picture as it is (a broken EXIF record or animation beside it, transparency, which is
# dropped here anyway), or is an error below (too many pixels). Loader workers import this module too.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler Python prints to standard error

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
NEEDS_PILLOW_HEIF = (
    "a HEIC picture, which needs the package pillow-heif (pip install pillow-heif), or convert it to JPEG"
)
NEEDS_PILLOW_JXL = "a JPEG XL picture, which needs the package pillow-jxl-plugin, or convert it to JPEG"
NEEDED = dict.fromkeys(HEIC_SUFFIXES, NEEDS_PILLOW_HEIF) | {".jxl": NEEDS_PILLOW_JXL}
"""Suffixes of pictures that Pillow reads with another package only -> what is said of them."""
_JXL_BEGINNINGS = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

Source = str | os.PathLike[str] | bytes | BinaryIO


class BadImage(UserError):
    """A picture or clip that cannot be read: which one (`path`), and why (`reason`)."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TooManyBadImages(UserError):
    """More training images cannot be read than the run accepts."""


def register_heic() -> bool:
    """Let Pillow read HEIC, the format of iPhones, if the package pillow-heif is installed; whether it is."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


READS_HEIC = register_heic()
with suppress(ImportError):  # JPEG XL's registers itself
    importlib.import_module("pillow_jxl")


def open_image(source: Source, name: str | None = None) -> Image.Image:
    """The whole picture of `source` (path, bytes or binary file) as upright RGB.

    Raises:
        BadImage: naming the path (or `name`, for sources without one) and the reason.
    """
    return ImageFile(source, name).read()


def upright_rgb(picture: Image.Image) -> Image.Image:
    """A Pillow picture as `open_image` gives its file: upright RGB.

    Raises:
        BadImage: it cannot be decoded, or is too large.
    """
    name = getattr(picture, "filename", "") or "the Pillow picture"
    with _errors_named(name):
        _check_size(name, picture.size)
        orientation = _orientation(picture)
        picture.load()
        return _to_rgb(picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture)


class ImageFile:
    """A picture file of which only the header has been read: its upright `size` is known before decoding.

    Raises:
        BadImage: here if the header is unreadable or the picture too large, in `read` and `region` if the pixels are
            (a PNG's may be found unreadable here).
        UserError: the machine's fault, not the picture's: too many files are open.
    """

    def __init__(self, source: Source, name: str | None = None) -> None:
        self.name = name or str(source if isinstance(source, str | os.PathLike) else getattr(source, "name", "<bytes>"))
        with _errors_named(self.name):
            self._data = _bytes_of(source, self.name)
        with self._errors_named():
            if not self._data:
                raise BadImage(self.name, "an empty file")
            self._image: Image.Image | None = Image.open(io.BytesIO(self._data))  # used up by the first decoding
            if self._image.format == "EPS":
                raise BadImage(self.name, "an EPS file, which Ghostscript would have to run as a program: convert it")
            width, height = self._image.size
            _check_size(self.name, self._image.size)
            self._orientation = _orientation(self._image)
            in_color = (self._image.format, self._image.mode) == ("JPEG", "RGB")
            self._is_plain_jpeg = in_color and self._orientation not in _UPRIGHT
        self.size: tuple[int, int] = (height, width) if self._orientation in _SIDEWAYS else (width, height)

    def read(self) -> Image.Image:
        """The whole picture, RGB."""
        with self._errors_named():
            return _to_rgb(self._decode(self.size))

    def region(self, box: tuple[int, int, int, int], min_size: tuple[int, int]) -> Image.Image | np.ndarray:
        """The part of the upright picture in `box` = (left, top, right, bottom), RGB, or its pixels uint8 [H, W, 3].

        A JPEG is decoded at a half, a quarter or an eighth of its size if the box then still has `min_size` (width,
        height), and its edges are rounded to whole pixels of that scale. The pixels are the same in both forms; which
        one it is depends on the file and on what is installed.
        """
        left, top, right, bottom = box
        needed_width = math.ceil(self.size[0] * min_size[0] / (right - left))
        needed_height = math.ceil(self.size[1] * min_size[1] / (bottom - top))
        with self._errors_named():
            decoded = self._decode_scaled((needed_width, needed_height))
            width, height = decoded.size if isinstance(decoded, Image.Image) else decoded.shape[1::-1]
            x, y = width / self.size[0], height / self.size[1]
            left, top, right, bottom = round(left * x), round(top * y), round(right * x), round(bottom * y)
            if isinstance(decoded, Image.Image):
                return _to_rgb(decoded.crop((left, top, right, bottom)))
            return decoded[top:bottom, left:right]

    def _decode_scaled(self, min_size: tuple[int, int]) -> Image.Image | np.ndarray:
        """As `_decode`; of an upright JPEG in color its pixels, where a faster decoder than Pillow's gives the same."""
        if self._is_plain_jpeg:
            scale = min(self.size[0] // min_size[0], self.size[1] // min_size[1])
            pixels = decode_rgb(self._data, self.size, next((s for s in (8, 4, 2) if s <= scale), 1))
            if pixels is not None:
                return pixels
        return self._decode(min_size)

    def _decode(self, min_size: tuple[int, int]) -> Image.Image:
        """The whole picture, upright, in its own mode, at the smallest scale whose size is at least `min_size`."""
        image, self._image = self._image or Image.open(io.BytesIO(self._data)), None
        if self._orientation in _SIDEWAYS:
            min_size = min_size[1], min_size[0]
        image.draft(None, min_size)  # for JPEG; no effect on others
        image.load()
        return image.transpose(_UPRIGHT[self._orientation]) if self._orientation in _UPRIGHT else image

    def _errors_named(self) -> AbstractContextManager[None]:
        return _errors_named(self.name, self._data)


@contextmanager
def _errors_named(name: str, data: bytes = b"") -> Iterator[None]:
    """Turn every error into a BadImage: on broken files, Pillow's readers raise errors of any type."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS
        jxl = data.startswith(_JXL_BEGINNINGS) and ".jxl" not in Image.registered_extensions()
        needed = NEEDS_PILLOW_HEIF if heic and not READS_HEIC else NEEDS_PILLOW_JXL if jxl else "not a picture"
        raise BadImage(name, needed) from error
    except OSError as error:
        raise BadImage(name, error.strerror or str(error)) from error
    except Exception as error:
        raise BadImage(name, f"{type(error).__name__}: {error}") from error


def _check_size(name: str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise BadImage(name, f"{size[0]}x{size[1]} pixels: more than {MAX_PIXELS:,} are refused as a bomb")


def _bytes_of(source: Source, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        return source.read()
    try:
        with open_regular(source) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise BadImage(name, f"{size / 2**30:.1f} GiB: too large to be a picture")
            return file.read()
    except MissingFile as error:
        raise BadImage(name, "No such file or directory") from error
    except UnreadableFile as error:
        raise BadImage(name, error.reason) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where there is none or it is broken."""
    if image.format == "TIFF":  # Pillow turns these itself while decoding, and states the size after it
        return 1
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # the record may follow the pixels, and `getexif` decodes them; their damage is not the record's
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken record beside a good picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; store 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16-bit gray: `convert` would clip it at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
