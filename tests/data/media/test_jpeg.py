"""A picture is the same whether simplejpeg, where it is installed, or Pillow decodes it."""

import io

import numpy as np
import pytest
from PIL import Image

from data.media import jpeg
from data.media.image_file import BadImage, ImageFile
from transform.image import TrainTransform, resize

needs_simplejpeg = pytest.mark.skipif(not jpeg.READS_JPEG, reason="simplejpeg is not installed")


def photo(width: int, height: int) -> Image.Image:
    """Colors that change slowly, under noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = rng.integers(-40, 41, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def regions(data: bytes, monkeypatch: pytest.MonkeyPatch, box, min_size) -> tuple[np.ndarray, np.ndarray]:
    """The region by the faster decoder, and by Pillow."""
    by_simplejpeg = ImageFile(data).region(box, min_size)
    assert isinstance(by_simplejpeg, np.ndarray)
    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "_decode", None)
        by_pillow = ImageFile(data).region(box, min_size)
    assert isinstance(by_pillow, Image.Image)
    return by_simplejpeg, np.asarray(by_pillow)


@needs_simplejpeg
@pytest.mark.parametrize("size", [(320, 240), (317, 211), (17, 16)])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 75},
        {"quality": 95, "subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2, "progressive": True},
        {"restart_marker_rows": 1},
        {"optimize": True, "quality": 20},
    ],
)
def test_both_decoders_give_the_same_pixels_at_every_scale(size, options, monkeypatch):
    data, (width, height) = encoded(photo(*size), **options), size
    for scale in (1, 2, 3, 4, 8):
        box = (width // 5, height // 7, width, height - height // 9)
        needed = max((box[2] - box[0]) // scale, 1), max((box[3] - box[1]) // scale, 1)
        ours, pillow = regions(data, monkeypatch, box, needed)
        assert np.array_equal(ours, pillow)


@needs_simplejpeg
def test_a_training_picture_does_not_depend_on_the_decoder(monkeypatch):
    data, transform = encoded(photo(320, 240)), TrainTransform(48, 0.5)
    for seed in range(8):
        ours = transform(ImageFile(data), np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "_decode", None)
            assert transform(ImageFile(data), np.random.default_rng(seed)).equal(ours)


@needs_simplejpeg
def test_of_a_damaged_file_both_decoders_say_and_show_the_same(monkeypatch):
    """Bits flipped, bytes left out and files cut: the same pixels, or the same reason."""
    data, rng = encoded(photo(64, 48)), np.random.default_rng(0)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(2, len(damaged)))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.3:
            del damaged[int(rng.integers(2, len(damaged))) :]

        def result(content=bytes(damaged)):
            try:
                return np.asarray(ImageFile(content).region((0, 0, 64, 48), (32, 24))).tobytes()
            except BadImage as error:
                return error.reason

        ours = result()
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "_decode", None)
            assert result() == ours
        outcomes.add(type(ours))
    assert outcomes == {bytes, str}


def test_what_the_faster_decoder_refuses_is_decoded_by_pillow(monkeypatch):
    """Stands in for simplejpeg: a decoder that finds every file damaged, or of another size than its header says."""
    data, box = encoded(photo(64, 48)), (8, 8, 56, 40)
    expected = np.asarray(ImageFile(data).read().crop(box))

    def damaged(data: bytes, **options):
        raise ValueError("Corrupt JPEG data")

    for stand_in in (damaged, lambda data, **options: np.zeros((4, 4, 3), np.uint8)):
        monkeypatch.setattr(jpeg, "_decode", stand_in)
        assert np.array_equal(np.asarray(ImageFile(data).region(box, (48, 32))), expected)


@pytest.mark.parametrize(("mode", "turned"), [("L", False), ("CMYK", False), ("RGB", True)])
def test_gray_print_colors_and_turned_pictures_are_decoded_by_pillow(mode, turned, monkeypatch):
    def unwanted(*args, **options):
        raise AssertionError("decoded without Pillow")

    monkeypatch.setattr(jpeg, "_decode", unwanted)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    file = ImageFile(encoded(photo(64, 48).convert(mode), exif=exif))
    box = (4, 6, 40, 46)
    assert np.array_equal(np.asarray(file.region(box, (40, 40))), np.asarray(file.read().crop(box)))


def test_pixels_are_resized_like_the_picture_they_are_of():
    image = photo(64, 48)
    pixels = np.asarray(image).copy()
    assert resize(pixels[3:40, 5:60], 24).equal(resize(image.crop((5, 3, 60, 40)), 24))
