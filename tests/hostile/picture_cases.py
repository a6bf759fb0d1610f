"""Damaged pictures of every format that is read."""

import io
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, features

from data.media.image_file import BadImage, open_image
from tests.hostile.harness import Arguments, Case, Outcome
from tests.hostile.home import good
from tests.hostile.mutations import BYTE_CHANGES, Change

_TIMES = 3  # that each change is made of each format, at other places


def _drawn(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = np.add.outer(np.arange(40), np.arange(50))[..., None] * 2 + rng.integers(0, 60, (40, 50, 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def formats() -> Iterator[tuple[str, bytes]]:
    """(name, whole file) of each kind of picture."""
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        ("plain.png", "PNG", "RGB", {}),
        ("palette.png", "PNG", "P", {}),
        ("gray.png", "PNG", "L", {}),
        ("alpha.png", "PNG", "RGBA", {}),
        ("bits.png", "PNG", "1", {}),
        ("moving.png", "PNG", "RGB", {"save_all": True, "append_images": [_drawn()]}),
        ("plain.jpg", "JPEG", "RGB", {}),
        ("progressive.jpg", "JPEG", "RGB", {"progressive": True}),
        ("gray.jpg", "JPEG", "L", {}),
        ("cmyk.jpg", "JPEG", "CMYK", {}),
        ("plain.webp", "WEBP", "RGB", {}),
        ("lossless.webp", "WEBP", "RGBA", {"lossless": True}),
        ("plain.gif", "GIF", "P", {}),
        ("moving.gif", "GIF", "P", {"save_all": True, "append_images": [_drawn("L")]}),
        ("plain.bmp", "BMP", "RGB", {}),
        ("plain.tif", "TIFF", "RGB", {}),
        ("lzw.tif", "TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("jpeg.tif", "TIFF", "RGB", {"compression": "jpeg"}),
        ("plain.ppm", "PPM", "RGB", {}),
        ("plain.tga", "TGA", "RGB", {}),
        ("plain.ico", "ICO", "RGBA", {}),
        ("plain.pcx", "PCX", "RGB", {}),
        ("plain.sgi", "SGI", "RGB", {}),
        ("plain.jp2", "JPEG2000", "RGB", {}),
        ("plain.avif", "AVIF", "RGB", {}),
    ]
    for name, kind, mode, options in kinds:
        if (kind == "AVIF" and not features.check("avif")) or (kind == "JPEG2000" and not features.check("jpg_2000")):
            continue
        file = io.BytesIO()
        _drawn(mode).save(file, kind, **options)
        yield name, file.getvalue()
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, kind in (("turned.jpg", "JPEG"), ("turned.png", "PNG"), ("turned.webp", "WEBP")):
        file = io.BytesIO()
        _drawn().save(file, kind, exif=turned)
        yield name, file.getvalue()


def _as_pillow_reads(content: bytes) -> Image.Image | None:
    """The picture as plain Pillow reads it; None where it does not."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except Exception:
        return None
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken record of the camera
        return image.convert("RGB")
    return image.convert("RGB")


def cases() -> Iterator[Case]:
    for name, whole in formats():
        for what, change in BYTE_CHANGES.items():
            for number in range(_TIMES):
                yield _picture("predict", name, whole, f"{what} {number}", change)
    whole_png = next(formats())[1]
    for what, content in _odd_pictures(whole_png):
        yield _picture("predict", what, content, "as it is", lambda content, _: content)
    for name, whole in list(formats())[::4]:
        for what, change in BYTE_CHANGES.items():
            yield _picture("train_caption", name, whole, what, change)
            yield _picture("data.check", name, whole, what, change)


def _odd_pictures(png: bytes) -> Iterator[tuple[str, bytes]]:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head, rest = png[:8], png[33:]
    for width, height in (
        (0, 40),
        (50, 0),
        (2**31 - 1, 2**31 - 1),
        (100_000, 100_000),
        (2**31, 1),
        (50, 41),
        (51, 40),
        (1, 1),
    ):
        sizes = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        yield f"{width}x{height}.png", head + chunk(b"IHDR", sizes + png[24:29]) + rest
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 * 2**20)))
    yield "bomb_of_text.png", png[:33] + text + rest
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80 * 2**20)))
    yield "bomb_of_profile.png", png[:33] + profile + rest
    for kind in (b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"PLTE", b"tRNS", b"gAMA", b"IEND"):
        yield f"{kind.decode()}_of_garbage.png", png[:33] + chunk(kind, b"\xff\0garbage" * 20) + rest
        yield f"{kind.decode()}_empty.png", png[:33] + chunk(kind, b"") + rest
    for suffix, beginning in (
        (".png", b"\x89PNG\r\n\x1a\n"),
        (".jpg", b"\xff\xd8\xff"),
        (".gif", b"GIF89a"),
        (".webp", b"RIFF\x10\0\0\0WEBP"),
        (".tif", b"II*\0"),
        (".bmp", b"BM"),
        (".psd", b"8BPS"),
        (".eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        (".fits", b"SIMPLE  ="),
        (".xpm", b"/* XPM */"),
        (".mpo", b"\xff\xd8\xff"),
        (".heic", b"\0\0\0\x18ftypheic"),
        (".svg", b"<svg xmlns="),
        (".pdf", b"%PDF-1.4"),
        (".html.jpg", b"<html>"),
    ):
        yield f"only_a_beginning{suffix}", beginning
        yield f"a_beginning_and_garbage{suffix}", beginning + bytes(range(256)) * 4


def _picture(entry: str, name: str, whole: bytes, what: str, change: Change) -> Case:
    def make(folder: Path, rng: np.random.Generator) -> Arguments:
        content = change(whole, rng)
        if entry == "predict":
            (folder / name).write_bytes(content)
            return ["features", str(folder / name), "--checkpoint", "retrieval.pth", "--out", str(folder / "out.npz")]
        shutil.copytree("output/demo/world/images", folder / "images")
        for number in (0, 1):
            (folder / f"images/train/shapes_train_00000000000{number}.jpg").write_bytes(content)
        root = f"image_root: {folder / 'images'}"
        if entry == "train_caption":
            return good(entry, folder, root.replace(": ", "="), "max_bad_images=1")
        text = Path("caption.yaml").read_text().splitlines()
        (folder / "c.yaml").write_text("\n".join([root if line.startswith("image_root") else line for line in text]))
        return [str(folder / "c.yaml"), "--task=caption", "--out", str(folder / "out")]

    def right(folder: Path, _: Outcome) -> str | None:
        if entry != "predict":
            return None
        content = (folder / name).read_bytes()
        expected = _as_pillow_reads(content)
        if expected is None:
            return "Pillow does not read it"
        try:
            found = open_image(content)
        except BadImage as error:
            return f"open_image refuses it: {error}"
        if Image.open(io.BytesIO(content)).mode[0] in "IF":  # 16 bits a channel, which Pillow clips
            return None
        return None if np.array_equal(np.asarray(found), np.asarray(expected)) else "its pixels are not Pillow's"

    whole_name = name if entry == "predict" else "shapes_train"
    return Case(entry, "picture", f"{name}: {what}", make, named=(whole_name, "not a picture"), right=right)
