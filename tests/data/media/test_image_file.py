"""Picture files as people have them: each odd or broken kind is made on the spot and read, or refused by name."""

import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.media import image_file
from data.media.folder import find_pictures
from data.media.image_file import BadImage, ImageFile, open_image
from files import REPOSITORY
from settings import UserError

RED, GREEN, BLUE, WHITE = (250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 250)


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green / blue, white: a picture whose orientation shows."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, WHITE
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colors well inside the four quadrants, row by row."""
    w, h = image.size
    return [image.getpixel((x, y)) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def assert_quadrants(image: Image.Image, tolerance: int = 8) -> None:
    assert image.mode == "RGB"
    np.testing.assert_allclose(corners(image), [RED, GREEN, BLUE, WHITE], atol=tolerance)


@pytest.mark.parametrize("name", ["rgb", "gray", "rgba", "palette", "rgb_exact"])
def test_modes_become_rgb_as_in_the_fixtures(golden, name) -> None:
    expected = np.load(golden("image_preprocessing/expected.npz"))[f"{name}_rgb"]
    image = open_image(golden(f"image_preprocessing/{name}.png"))
    assert image.mode == "RGB"
    assert (np.asarray(image) == expected).all()


def test_path_bytes_and_file_give_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)
    with path.open("rb") as file:
        images = [open_image(path), open_image(str(path)), open_image(path.read_bytes()), open_image(file)]
    assert all(np.array_equal(np.asarray(image), np.asarray(quadrants())) for image in images)


def test_cmyk_jpeg_is_read_in_its_colors() -> None:
    data = encoded(quadrants().convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert_quadrants(open_image(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the turn that the record asks for, backwards
    stored = quadrants()
    if orientation > 1:
        stored = stored.transpose(image_file._UPRIGHT[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        file = ImageFile(encoded(stored, format, exif=exif))
        assert file.size == (64, 48)
        assert_quadrants(file.read(), tolerance=20)
        green = np.asarray(file.region((32, 0, 64, 24), min_size=(4, 4)))[1:-1, 1:-1]
        np.testing.assert_allclose(green, np.broadcast_to(GREEN, green.shape), atol=30)


def test_a_broken_exif_record_does_not_cost_the_picture() -> None:
    data = encoded(quadrants(), "JPEG", quality=95, exif=b"Exif\x00\x00nonsense")
    assert_quadrants(open_image(data))


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for format in ("PNG", "TIFF"):
        image = open_image(encoded(Image.fromarray(ramp), format))
        assert image.mode == "RGB"
        np.testing.assert_allclose(np.asarray(image)[..., 1], ramp / 257, atol=1)


def test_float_pixels_are_refused() -> None:
    with pytest.raises(BadImage, match="floating-point pixels have no agreed range"):
        open_image(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_palette_with_transparency_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    quadrants().quantize(8).save(path, transparency=0)
    assert_quadrants(open_image(path))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused_by_name(tmp_path: Path, format: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImage, match="cut.img: .+"):
        open_image(path)
    with pytest.raises(BadImage, match="cut.img: .+"):
        ImageFile(path).region((0, 0, 32, 32), min_size=(8, 8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"<html><body>404 Not Found</body></html>", "not a picture"),
        (b"\xff\xd8\xff\xe0", "not a picture"),
        (bytes(1000), "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_plain_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(BadImage) as caught:
            open_image(source, name="a.jpg")
        assert (caught.value.path, caught.value.reason) == ("a.jpg", reason)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="nothing.jpg: No such file"):
        open_image(tmp_path / "nothing.jpg")
    with pytest.raises(BadImage, match="a folder, not a file"):
        open_image(tmp_path)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="pipe.jpg: a named pipe, not a file"):
        open_image(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="/dev/zero: a device, not a file"):
        open_image("/dev/zero")


def test_too_few_file_handles_do_not_make_a_picture_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_none(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", open_none)
    with pytest.raises(UserError, match="too many files are open") as caught:
        open_image(tmp_path / "a.png")
    assert not isinstance(caught.value, BadImage)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(data: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with more chunks, before its first one of a kind."""
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "extra",
    [
        [chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000)))],
        [chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3_000_000)))],
        [chunk(b"tEXt", b"workflow\0" + b"{" * 3_000_000)],
        [chunk(b"tEXt", b"a%d\0" % i + b"{" * 9_000_000) for i in range(7)],
        [chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000)))],
    ],
    ids=["zTXt", "iTXt", "tEXt", "many", "iCCP"],
)
def test_a_png_beside_large_texts_is_read(extra: list[bytes], before: bytes) -> None:
    data = with_chunks(encoded(quadrants(), "PNG"), *extra, before=before)
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(quadrants()))


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_text_that_unpacks_without_end_is_refused(kind: bytes) -> None:
    bomb = chunk(kind, b"bomb\0\0" + zlib.compress(bytes(image_file.MAX_TEXT + 1)))
    assert len(bomb) < 100_000
    with pytest.raises(BadImage, match="too large"):
        open_image(with_chunks(encoded(quadrants(), "PNG"), bomb))


def test_a_png_with_its_exif_record_behind_the_pixels_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    record = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = with_chunks(encoded(quadrants().transpose(Image.Transpose.ROTATE_90), "PNG"), record, before=b"IEND")
    assert ImageFile(data).size == (64, 48)
    assert_quadrants(open_image(data))


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_broken_exif_record_does_not_cost_a_png(before: bytes) -> None:
    data = with_chunks(encoded(quadrants(), "PNG"), chunk(b"eXIf", b"nonsense"), before=before)
    assert_quadrants(open_image(data))


def animation(format: str, count: int = 3) -> bytes:
    """Frames of which the first is the quadrants."""
    others = [quadrants().rotate(90 * i) for i in range(1, count)]
    return encoded(quadrants(), format, save_all=True, append_images=others, lossless=True)


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(format: str) -> None:
    assert_quadrants(open_image(animation(format)))


def test_a_stated_number_of_frames_is_not_waited_for() -> None:
    data = animation("PNG")
    at = data.index(b"acTL")
    data = data[: at - 4] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + data[at + 16 :]
    assert_quadrants(open_image(data))


def test_eps_is_refused_for_it_is_run_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(encoded(quadrants(), "EPS"))
    with pytest.raises(BadImage, match="a.eps: an EPS file, which Ghostscript would have to run"):
        open_image(tmp_path / "a.eps")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_is_named_with_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "READS_HEIC", False)
    (tmp_path / "IMG_2.HEIC").write_bytes(HEIC)
    with pytest.raises(BadImage, match=r"IMG_2.HEIC: a HEIC picture, which needs the package pillow-heif"):
        open_image(tmp_path / "IMG_2.HEIC")


@pytest.mark.skipif(".jxl" in Image.registered_extensions(), reason="its package is installed")
@pytest.mark.parametrize("beginning", [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jpeg_xl_is_named_with_the_package_that_reads_it(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "a.jxl").write_bytes(beginning)
    with pytest.raises(BadImage, match=r"a.jxl: a JPEG XL picture, which needs the package pillow-jxl-plugin"):
        open_image(tmp_path / "a.jxl")
    with pytest.raises(UserError, match=r"1 of 1 pictures: a JPEG XL picture"):
        find_pictures([str(tmp_path)])


def test_heic_is_read_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("pillow_heif")
    calls = []
    package.register_heif_opener = lambda: calls.append("registered")
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert image_file.register_heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    assert not image_file.register_heic()
    assert calls == ["registered"]


def png_header(width: int, height: int) -> bytes:
    """A few hundred bytes of PNG that state any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(14_000, 13_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="bomb"):
        ImageFile(png_header(*size))


def test_a_large_picture_within_the_limit_is_read() -> None:
    data = encoded(quadrants(6000, 4000), "JPEG")
    assert_quadrants(open_image(data))
    assert np.asarray(ImageFile(data).region((0, 0, 6000, 4000), min_size=(224, 224))).shape == (500, 750, 3)


def test_a_jpeg_is_decoded_at_the_smallest_scale_that_suffices() -> None:
    data = encoded(quadrants(1600, 1200), "JPEG", quality=95)
    for min_size, size in [((800, 600), (800, 600)), ((801, 600), (1600, 1200)), ((224, 224), (400, 300))]:
        region = Image.fromarray(np.asarray(ImageFile(data).region((0, 0, 1600, 1200), min_size)))
        assert region.size == size
        assert_quadrants(region)
    assert np.asarray(ImageFile(data).region((800, 600, 1200, 900), (224, 224))).shape == (300, 400, 3)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_region_of_a_jpeg_is_the_crop_of_the_whole_to_the_bit(mode: str, options: dict) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    file, box = ImageFile(encoded(noise.convert(mode), "JPEG", **options)), (7, 5, 71, 50)
    assert np.array_equal(np.asarray(file.region(box, (224, 224))), np.asarray(file.read().crop(box)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_a_region_of_a_png_is_the_crop_of_the_whole(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    file, box = (
        ImageFile(encoded(noise.convert("L").convert(mode) if mode == "I;16" else noise.convert(mode), "PNG")),
        (7, 5, 71, 50),
    )
    assert np.array_equal(np.asarray(file.region(box, (9, 9))), np.asarray(file.read().crop(box)))


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: takes no room
    with pytest.raises(BadImage, match=r"disk.img: 3.0 GiB: too large"):
        open_image(path)


def test_bad_image_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(BadImage("a.jpg", "an empty file")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "an empty file", "a.jpg: an empty file")


READ_IN_A_WORKER = """
import multiprocessing, sys
from data.media.image_file import ImageFile


def size_of(name):
    picture = ImageFile(name)
    return picture.size if picture.size[0] > 1000 else picture.read().size


if __name__ == "__main__":
    here = list(map(size_of, sys.argv[1:]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(size_of, sys.argv[1:]) == here, *here, sep="\\n")
"""


def test_what_pillow_warns_of_litters_no_terminal_and_changes_no_picture(tmp_path):
    palette = quadrants().convert("P")
    palette.info["transparency"] = bytes(range(256))
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x010E, 2, 5000, 0x7000)  # a text beyond the record
    quadrants().save(tmp_path / "exif.jpg", exif=exif)
    Image.new("1", (9_500, 9_500)).save(
        tmp_path / "large.tif", compression="group4"
    )  # half of what is refused as a bomb
    animated = io.BytesIO()
    quadrants().save(animated, "PNG")
    frames = struct.pack(">I", 8) + b"acTL" + bytes(8)
    chunk = frames + struct.pack(">I", zlib.crc32(frames[4:]))
    (tmp_path / "animated.png").write_bytes(animated.getvalue()[:33] + chunk + animated.getvalue()[33:])
    script = tmp_path / "read.py"
    script.write_text(READ_IN_A_WORKER)
    names = [str(tmp_path / name) for name in ("palette.png", "exif.jpg", "large.tif", "animated.png")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "always:::PIL"}
    result = subprocess.run(
        [sys.executable, script, *names], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["True", "(64, 48)", "(64, 48)", "(9500, 9500)", "(64, 48)"]
