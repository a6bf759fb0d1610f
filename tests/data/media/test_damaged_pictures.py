"""Pictures with a changed byte: taken or refused as plain Pillow does it, and read to the same pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.media.image_file import BadImage, open_image

WHOLE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
ANIMATED = {"save_all": True, "append_images": [WHOLE.rotate(90), WHOLE.rotate(180)]}
ENCODINGS = {
    "png": ("PNG", {}),
    "apng": ("PNG", ANIMATED),
    "palette png": ("PNG", {"transparency": 0}),
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {"lossless": True}),
    "animated webp": ("WEBP", ANIMATED),
    "gif": ("GIF", {}),
    "animated gif": ("GIF", ANIMATED),
    "tiff": ("TIFF", {}),
    "packed tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "avif": ("AVIF", {}),
}
CHANGES = 80  # of each


def encoded(name: str) -> bytes:
    format, options = ENCODINGS[name]
    if format == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    buffer = io.BytesIO()
    (WHOLE.quantize(16) if name == "palette png" else WHOLE).save(buffer, format, **options)
    return buffer.getvalue()


def plainly_read(data: bytes) -> np.ndarray | None:
    """The pixels as plain Pillow reads them; None where it refuses."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def read(source: bytes | Path) -> np.ndarray | BadImage:
    """The pixels as we read them, or why we refuse them."""
    try:
        return np.asarray(open_image(source))
    except BadImage as error:
        return error


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.filterwarnings("ignore")
def test_a_changed_byte_is_refused_where_plain_pillow_refuses_it_and_else_read_to_the_same_pixels(name: str) -> None:
    whole, rng, refused = encoded(name), np.random.default_rng(7), 0
    for _ in range(CHANGES):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        expected, found = plainly_read(bytes(data)), read(bytes(data))
        if isinstance(found, BadImage):
            assert expected is None, f"only we refuse it: {found}"
            refused += 1
        else:
            assert expected is not None, "only we take it"
            assert np.array_equal(found, expected)
    assert refused < CHANGES


def test_most_changed_bytes_of_a_png_are_refused() -> None:
    whole, rng, refused = encoded("png"), np.random.default_rng(7), 0
    for position in rng.integers(len(whole), size=240):
        data = bytearray(whole)
        data[position] ^= 255
        refused += isinstance(read(bytes(data)), BadImage)
    assert refused > 200


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.filterwarnings("ignore")
def test_garbage_anywhere_and_cuts_end_in_a_picture_or_a_reason(name: str, tmp_path: Path) -> None:
    whole, rng, path = encoded(name), np.random.default_rng(8), tmp_path / "a.img"
    for _ in range(CHANGES // 2):
        data = bytearray(whole)
        start, length = rng.integers(len(data)), rng.integers(1, 40)
        data[start : start + length] = rng.bytes(length)
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        found = read(path)
        if isinstance(found, BadImage):
            assert found.path == str(path)
            assert found.reason
        else:
            assert found.ndim == 3
