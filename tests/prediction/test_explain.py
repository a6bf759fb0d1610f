"""`predict.py explain` draws what the models' own calls return, and refuses in one line what cannot work."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

import predict
from data.media.image_file import open_image
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.explain import answer_maps, caption_maps, match_maps
from prediction.heat_maps import draw_strip, stack
from tests.small_model import TEXT, VIT
from transform.image import EvalTransform, normalize

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """For each class a random model and its checkpoint."""
    folder, built = tmp_path_factory.mktemp("checkpoints"), {}
    for kind in (BLIPDecoder, BLIPMatcher, BLIPVQA):
        torch.manual_seed(0)
        model = kind(**SIZES).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save({"model": model.state_dict(), "config": SIZES}, folder / f"{kind.__name__}.pth")
        built[kind] = model, str(folder / f"{kind.__name__}.pth")
    return built


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def pixels(path):
    return normalize(EvalTransform(32)(open_image(path))[None])


def strip_of(path, label, maps, attention=False):
    return draw_strip(open_image(path), maps.words, maps.attention if attention else maps.grad_cam, label)


def same(file, expected):
    return not ImageChops.difference(Image.open(file), expected).getbbox()


@pytest.mark.parametrize("flags", [[], ["--layer", "0"], ["--attention"]])
def test_a_text_is_explained_by_the_matching_head(models, photo, capsys, flags):
    matcher, checkpoint = models[BLIPMatcher]
    out = photo.with_name("map.png")
    arguments = [str(photo), "--checkpoint", checkpoint, "--text", "a red dog", "--out", str(out), *flags]
    assert predict.main(["explain", *arguments]) == 0
    assert capsys.readouterr().out == f"{photo}\ta red dog\t{out}\n"
    maps = match_maps(matcher, pixels(photo), "a red dog", 0)
    assert same(out, strip_of(photo, "", maps, attention="--attention" in flags))


def test_a_caption_is_explained_the_models_own_or_a_given_one(models, photo, capsys):
    captioner, checkpoint = models[BLIPDecoder]
    out = photo.with_name("map.png")
    arguments = ["explain", str(photo), "--checkpoint", checkpoint, "--out", str(out)]
    assert predict.main(arguments) == 0
    maps = caption_maps(captioner, pixels(photo))
    assert same(out, strip_of(photo, "", maps))
    assert predict.main([*arguments, "--caption", "a red dog", "--layer", "1"]) == 0
    assert same(out, strip_of(photo, "", caption_maps(captioner, pixels(photo), "a red dog", 1)))
    assert "\ta red dog\t" in capsys.readouterr().out


def test_a_question_is_explained_below_its_answer(models, photo):
    answerer, checkpoint = models[BLIPVQA]
    out = photo.with_name("map.png")
    arguments = ["explain", str(photo), "--checkpoint", checkpoint, "--out", str(out), "--question", "what is it?"]
    for answer in (None, "a dog"):
        assert predict.main([*arguments, *(["--answer", answer] if answer else [])]) == 0
        maps = answer_maps(answerer, pixels(photo), "what is it?", answer)
        assert same(out, stack([strip_of(photo, "answer", maps), strip_of(photo, "question", maps.question)]))


def test_several_pictures_are_drawn_in_a_folder(models, photo, capsys):
    matcher, checkpoint = models[BLIPMatcher]
    Image.open(photo).rotate(90).save(other := photo.with_name("other.jpg"))
    out = photo.with_name("maps")
    arguments = ["explain", str(photo), str(other), "--checkpoint", checkpoint, "--text", "a dog"]
    assert predict.main([*arguments, "--out", str(out)]) == 0
    for path in (photo, other):
        assert same(out / f"{path.stem}.png", strip_of(path, "", match_maps(matcher, pixels(path), "a dog")))
    capsys.readouterr()
    assert predict.main([*arguments, "--out", str(out / "map.png")]) == 2
    assert "map.png is one file, and there are 2 pictures: name a folder" in capsys.readouterr().err
    Image.open(photo).save(photo.with_suffix(".jpg"))
    arguments[2] = str(photo.with_suffix(".jpg"))
    assert predict.main([*arguments, "--out", str(out)]) == 2
    assert "would both be drawn in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text", "a", "--question", "b"], "--text and --question exclude each other"),
        (["--answer", "a"], "--answer needs the --question that it answers"),
        (["--text", "a", "--out", "map.jpg"], "--out map.jpg must end in .png, or be a folder"),
        (["--text", "a", "--layer", "-1"], "-1 must be at least 0"),
    ],
)
def test_flags_that_cannot_work_are_refused(photo, capsys, flags, message):
    out = [] if "--out" in flags else ["--out", "map.png"]
    with pytest.raises(SystemExit) as exit:
        predict.main(["explain", str(photo), *out, *flags])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        (BLIPMatcher, ["--text", "a", "--layer", "1"], "layer = 1: must be 0; the last of the 2 shows nothing"),
        (BLIPMatcher, ["--text", "?!"], "the text '?!' has no words"),
        (BLIPMatcher, ["--text", "dog " * 50], "has 50 tokens, and the model reads 33 of a text"),
        (BLIPDecoder, ["--layer", "2"], "layer = 2: must be 0 to 1"),
        (BLIPVQA, ["--question", ""], "the text '' has no words"),
    ],
)
def test_what_the_model_cannot_explain_is_told_in_one_line(models, photo, capsys, kind, flags, message):
    out = photo.with_name("map.png")
    assert predict.main(["explain", str(photo), "--checkpoint", models[kind][1], "--out", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()
