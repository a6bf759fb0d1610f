"""Files of tests/cases/files.tar.xz, which once ended badly or were silently read wrong: each gives its values.

They are packed, since a repository should not hold some of their names, and most are large until then.
"""

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.nlvr
import data.vqa
from data.caption import CaptionTrain
from data.media.folder import find_pictures, picture_suffixes, read_batches
from data.media.image_file import BadImage, ImageFile, open_image
from data.nlvr import NLVREval, NLVRTrain
from data.records.annotations import AnnotationError, TextLimit
from data.records.shards import Shards, shard_files
from data.text import join_prompt
from data.vqa import VQAEval, VQATrain
from models.tokenizer import build_tokenizer
from settings import UserError
from transform.image import EvalTransform

HERE = Path(__file__).parents[1] / "cases"


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    with tarfile.open(HERE / "files.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    (folder / "odd_pictures" / "dir.jpg").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))


REFUSED = {
    "bad_crc.png": "broken data stream when reading image file",  # its pixels do not unpack: plain Pillow refuses it
    "dir.jpg": "a folder, not a file",
    "empty.jpg": "an empty file",
    "float.tif": "ValueError: floating-point pixels have no agreed range; store 8 or 16 bits a channel",
    "html.jpg": "not a picture",
    "lfs.jpg": "not a picture",
    "trunc.jpg": "image file is truncated (28 bytes not processed)",
}
SIZES = {
    "ico.ico": (128, 96),
    "p1x1.png": (1, 1),
    "p1x3000.png": (1, 3000),
    "p3000x1.jpg": (3000, 1),
    "p3x200.png": (3, 200),
    "p3x3.png": (3, 3),
}  # all others are 200x150
QUARTER_TURNS = {"exif3": 2, "exif6": 3, "exif8": 1}  # to the left, of what the camera stored
COARSE = {"one_bit.png": 40, "palette_trns.png": 20, "palette_trns_bytes.png": 20}  # dithered
GRAY = ("ga32.png", "grey.jpg", "grey16.png", "grey16.tif", "grey32i.tif", "j2k_16.jp2", "la.png", "one_bit.png")


@pytest.mark.filterwarnings("ignore")
def test_of_sixty_kinds_of_pictures_the_unreadable_ones_are_named_and_all_others_right(cases):
    files = sorted((cases / "odd_pictures").iterdir())
    assert len(files) == 61
    whole = open_image(cases / "odd_pictures" / "ok.jpg")
    for file in files:
        if file.suffix == ".avif" and ".avif" not in picture_suffixes():
            continue
        if reason := REFUSED.get(file.name):
            with pytest.raises(BadImage) as caught:
                open_image(file)
            assert (caught.value.path, caught.value.reason) == (str(file), reason)
            continue
        found = open_image(file)
        if file.name in SIZES:
            assert found.size == SIZES[file.name], file.name
            continue
        turns = QUARTER_TURNS.get(file.stem, 0) if file.name != "exif6.tif" else 0  # which says nothing of turning
        expected = np.asarray(whole.convert("L").convert("RGB") if file.name in GRAY else whole, dtype=float)
        assert found.mode == "RGB"
        distance = np.abs(np.asarray(found, dtype=float) - np.rot90(expected, turns)).mean()
        assert distance < COARSE.get(file.name, 1.6), file.name


def test_a_folder_of_such_pictures_is_read_to_its_end(cases):
    paths = find_pictures([str(cases / "odd_pictures")])
    assert set(paths) == set((cases / "odd_pictures").iterdir())
    bad = [error for _, _, errors in read_batches(paths, 16, 16) for error in errors]
    assert {Path(error.path).name for error in bad} - {"a.avif", "exif6.avif"} == REFUSED.keys()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_ninety_megapixels_and_a_large_exif_record_are_read():
    buffer = io.BytesIO()
    Image.new("1", (9500, 9500), 1).save(buffer, "PNG")
    corner = ImageFile(buffer.getvalue()).region((9480, 9480, 9500, 9500), (8, 8))  # quicker than turning all into RGB
    assert (corner.size, corner.getpixel((19, 19))) == ((20, 20), (255, 255, 255))
    Image.new("RGB", (20, 15), "red").save(buffer := io.BytesIO(), "WEBP", exif=b"Exif\0\0" + bytes(70_000))
    assert open_image(buffer.getvalue()).size == (20, 15)


def test_a_png_with_one_wrong_byte_is_refused(cases):
    assert open_image(cases / "corrupt_png" / "good.png").size == (200, 150)
    with pytest.raises(BadImage, match=r"one_byte_wrong.png: unrecognized data stream contents"):
        open_image(cases / "corrupt_png" / "one_byte_wrong.png")


READ_SHARDS = {
    **dict.fromkeys(["apple", "bom_json", "decimals", "dots", "dotted_folder", "empty_txt_good_json"], ["a heart"]),
    **dict.fromkeys(["gif_bmp", "good", "named_parts", "unsorted", "upper"], ["a heart"]),
    "bom_txt": ["a heart\r\n"],
    "caption_list": ["a heart", "one heart"],
}
LEFT_OUT_SHARDS = {
    "blank_txt.tar": "16 of 16 samples are left out: 16 whose caption is empty or holds no word",
    "gz.tar.gz": "is compressed; the shard is left out: unpack it (gunzip)",
    "img_cap.tar": "16 of 16 samples are left out: 16 without a picture (.jpg, ",
    "text_key.tar": "16 of 16 samples are left out: 16 whose .json has no 'caption' that is text, or a list of it",
}


def test_every_shard_is_read_or_left_out_with_the_count_and_the_reason(cases, caplog):
    files = sorted((cases / "shards").iterdir())
    assert {file.name for file in files} == {f"{name}.tar" for name in READ_SHARDS} | LEFT_OUT_SHARDS.keys()
    for file in files:
        caplog.clear()
        shards = Shards([file])
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        if reason := LEFT_OUT_SHARDS.get(file.name):
            assert len(shards) == 0
            assert len(warnings) == 1
            assert str(file) in warnings[0]
            assert reason in warnings[0]
        else:
            assert not warnings
            assert len({shards[row]["name"] for row in range(len(shards))}) == 16
            assert shards[0]["caption"] == READ_SHARDS[file.stem]
            assert open_image(shards[15]["image"]).mode == "RGB"


def test_a_shard_in_a_folder_with_brackets_is_found(cases):
    assert len(Shards(shard_files([str(cases / "shards [v1]" / "good.tar")]))) == 16


def test_of_a_folder_off_a_mac_the_pictures_are_read_and_heic_is_named(cases):
    (paths, pixels, bad), *_ = read_batches(find_pictures([str(cases / "apple")]), 16, 8)
    assert [path.name for path in paths] == ["IMG_1.jpg", "IMG_3.jfif"]
    assert pixels.shape == (2, 3, 16, 16)
    assert [Path(error.path).name for error in bad] == ["IMG_2.HEIC"]
    if ".heic" not in picture_suffixes():
        with pytest.raises(UserError, match="heic_only: 1 of 1 pictures: a HEIC picture, which needs the package pil"):
            find_pictures([str(cases / "heic_only")])


def test_a_linked_folder_is_read_and_a_link_to_nothing_named(cases):
    (paths, _, bad), *_ = read_batches(find_pictures([str(cases / "linked" / "top")]), 16, 8)
    assert [path.name for path in paths] == ["here.jpg", "x.jpg"]
    assert [Path(error.path).name for error in bad] == ["dangling.jpg"]


def test_files_of_odd_names_are_read(cases):
    (paths, _, bad), *_ = read_batches(find_pictures([str(cases / "odd_names")]), 16, 8)
    assert not bad
    assert [path.name for path in paths] == [
        *("a b.jpg", "img.1.jpg", "it's [1].jpg", "latin1_\udce9.jpg", "new\nline.jpg", "日本 emoji 😀.jpg")
    ]


def test_a_prompt_with_or_without_its_last_blank_is_joined_by_one(cases):
    captions = CaptionTrain([cases / "base" / "train.json"], "", lambda picture, rng: picture).annotations
    first = captions[0]["caption"][0]
    assert join_prompt("a photo of ", first) == join_prompt("a photo of", first) == f"a photo of {first}"


@pytest.fixture(scope="module")
def limit() -> TextLimit:
    tokenizer = build_tokenizer()
    return TextLimit(lambda text: len(tokenizer(text).input_ids), 512)


def plain(picture, rng):
    raise AssertionError("no picture is read here")


def test_a_sentence_of_thousands_of_tokens_is_named_before_training(cases, limit):
    for split, pairs in (
        ("train", NLVRTrain([cases / "nlvr_long" / "train.json"], "", plain)),
        ("val", NLVREval([cases / "nlvr_long" / "val.json"], "", EvalTransform(8))),
    ):
        with pytest.raises(AnnotationError, match=rf"{split}.json, record 1: 'sentence' has .* tokens"):
            data.nlvr.check_lengths(pairs, limit)


def test_an_answer_of_thousands_of_tokens_is_named_before_training(cases, limit):
    with pytest.raises(AnnotationError, match=r"vqa_long/train.json, record 1: 'answer' has [0-9,]+ tokens"):
        data.vqa.check_lengths(VQATrain([cases / "vqa_long" / "train.json"], plain), limit)
    assert len(VQAEval([cases / "vqa_long" / "val.json"], EvalTransform(8))) == 8
