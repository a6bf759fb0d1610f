"""One line of Python gives what the models and predict.py give, in the form in which the pictures came."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from data.media.image_file import open_image
from models.blip import blip_decoder
from models.blip_itm import blip_itm
from models.blip_vqa import blip_vqa
from models.generation import SearchOptions
from models.pixels import Pixels
from prediction import Answerer, Captioner, Folder, Matcher
from settings import UserError
from tests.small_model import TEXT, VIT
from transform.image import EvalTransform, normalize

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT}


def made(build, **options):
    torch.manual_seed(0)
    model = build(**SIZES, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def models():
    return {"caption": made(blip_decoder), "vqa": made(blip_vqa), "match": made(blip_itm)}


@pytest.fixture(scope="module")
def caption(models):
    return Captioner(models["caption"], device="cpu", batch_size=2)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    names = ("a.png", "b.jpg", "c.png")
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    return [tmp_path / name for name in names]


def pixels_of(paths):
    return normalize(torch.stack([EvalTransform(32)(open_image(path)) for path in paths]))


def test_results_come_in_the_form_of_the_pictures(caption, models, pictures):
    expected = models["caption"].generate(pixels_of(pictures), num_beams=3, max_length=20, min_length=5)
    assert caption(pictures) == expected
    assert caption([str(pictures[2]), Image.open(pictures[0])]) == [expected[2], expected[0]]
    assert caption(pictures[0]) == caption(Image.open(pictures[0])) == expected[0]
    assert caption(Folder(pictures[0].parent)) == dict(zip(pictures, expected, strict=True))
    assert caption(Folder(f"{pictures[0].parent}/*.png")) == {pictures[0]: expected[0], pictures[2]: expected[2]}
    assert caption([]) == []


def test_a_pillow_picture_is_seen_as_its_file_is(caption, tmp_path):
    rng = np.random.default_rng(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 256, (40, 50, 4), dtype=np.uint8)).save(tmp_path / "clear.png")
    for path in tmp_path.iterdir():
        opened = Image.open(path)
        assert caption.n_best([opened, opened], 1) == caption.n_best([path, path], 1), "to the last bit of its score"


def test_options_are_those_of_the_search(models, pictures):
    options = SearchOptions(num_beams=2, max_length=9, min_length=3, repetition_penalty=1.3)
    expected, _ = models["caption"].generate_n_best(pixels_of(pictures), options, "a red")
    caption = Captioner(
        models["caption"], num_beams=2, max_length=9, min_length=3, repetition_penalty=1.3, prompt="a red", device="cpu"
    )
    assert caption(pictures) == [texts[0] for texts in expected]
    assert models["caption"].prompt == "a picture of ", "the model keeps its own"


def test_the_best_captions_come_with_their_log_probabilities(caption, models, pictures):
    options = SearchOptions(num_beams=4, num_return_sequences=4, max_length=20, min_length=5)
    texts, generated = models["caption"].generate_n_best(pixels_of(pictures[:1]), options)
    best = caption.n_best(pictures[0], 4)
    assert [found.caption for found in best] == texts[0]
    assert [found.log_prob for found in best] == pytest.approx(generated.log_probs[0].tolist(), abs=1e-5)
    assert [found.caption for found in caption.n_best(pictures, 4)[0]] == texts[0]


def test_a_seed_decides_the_samples_of_all_calls(models, pictures):
    def calls(seed):
        caption = Captioner(models["caption"], sample=True, top_p=1.0, top_k=0, seed=seed, device="cpu")
        return [caption(pictures[0]), caption(pictures[0])]

    assert calls(1) == calls(1) != calls(2)
    assert calls(1)[0] != calls(1)[1], "a further call draws further samples"


def test_answers_are_written_or_ranked(models, pictures):
    answer, image = Answerer(models["vqa"], device="cpu"), pixels_of(pictures)
    assert answer(pictures, "what?") == models["vqa"].generate_answers(image, ["what?"] * 3)
    given = ["yes", "two red", "no"]
    order, scores = models["vqa"].rank_answers(image, ["what?"] * 3, given)
    ranked = answer.rank(pictures, "what?", given)
    assert [[found.answer for found in row] for row in ranked] == [[given[i] for i in row] for row in order.tolist()]
    assert [row[0].probability for row in ranked] == pytest.approx(scores.softmax(dim=1)[:, 0].tolist(), abs=1e-5)
    assert sum(found.probability for found in answer.rank(pictures[0], "what?", given)) == pytest.approx(1)


def test_a_text_gets_a_match_and_several_a_list(models, pictures):
    match, texts = Matcher(models["match"], device="cpu"), ["a red square", "else"]
    scores = models["match"].score(pixels_of(pictures), texts)
    rows = match(pictures, texts)
    assert [[found.match for found in row] for row in rows] == pytest.approx(scores.match.numpy(), abs=1e-6)
    assert [[found.cosine for found in row] for row in rows] == pytest.approx(scores.cosine.numpy(), abs=1e-6)
    single = match(pictures[0], "a red square")
    assert (single.text, single.match) == ("a red square", pytest.approx(scores.match[0, 0].item(), abs=1e-6))
    assert match(Folder(pictures[0].parent), "else").keys() == set(pictures)


def test_predict_py_gives_the_same(models, pictures, tmp_path):
    checkpoint, out = tmp_path / "caption.pth", tmp_path / "captions.jsonl"
    torch.save({"model": models["caption"].state_dict(), "config": SIZES}, checkpoint)
    assert predict.main(["caption", *map(str, pictures), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    best = Captioner(checkpoint).n_best(pictures, 1)
    assert [(record["caption"], record["log_prob"]) for record in records] == [(b.caption, b.log_prob) for (b,) in best]


def test_a_checkpoint_of_other_pixels_is_shown_its_own(models, pictures, tmp_path):
    other = Pixels((0.2, 0.3, 0.4), (0.1, 0.5, 1.5))
    description = models["match"].describe() | {"pixels": other.stored(32)}
    torch.save({"model": models["match"].state_dict(), "architecture": description}, tmp_path / "match.pth")
    image = torch.stack([EvalTransform(32)(open_image(path)) for path in pictures])
    expected = models["match"].score(normalize(image, other), "a red dog").match[:, 0]
    found = Matcher(tmp_path / "match.pth", device="cpu")(pictures, "a red dog")
    assert [result.match for result in found] == pytest.approx(expected.tolist(), abs=1e-6)
    standard = models["match"].score(normalize(image), "a red dog").match[:, 0]
    assert (expected - standard).abs().max() > 1e-3, "which is not what the standard numbers give"


def test_an_unreadable_picture_is_an_error_and_in_a_folder_a_warning(caption, pictures, caplog):
    broken = pictures[0].with_name("broken.png")
    broken.write_bytes(pictures[0].read_bytes()[:200])
    with pytest.raises(UserError, match=r"broken\.png: "):
        caption([*pictures, broken])
    with pytest.raises(UserError, match=r"broken\.png: "):
        caption(Image.open(broken))
    with caplog.at_level(logging.WARNING, "blip.prediction"):
        assert caption(Folder(broken.parent)).keys() == set(pictures)
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == ["left out"]
    with pytest.raises(UserError, match="none of its 1 pictures can be read"):
        caption(Folder(broken))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda caption, path: caption(path.parent), r"is a folder: give Folder\('"),
        (lambda caption, path: caption("nowhere.png"), "nowhere.png: No such file"),
        (lambda caption, path: caption(Folder("nowhere")), "nowhere: there is no such file"),
        (lambda caption, path: caption(np.zeros((4, 4))), "several are a list; got ndarray"),
        (lambda caption, path: caption([path, 3]), "several are a list; got int"),
        (lambda caption, path: caption.n_best(path, 0), "num_return_sequences=0 must be at least 1"),
        (lambda caption, path: Captioner(caption.model, num_beams=0), "num_beams=0"),
        (lambda caption, path: Captioner(caption.model, batch_size=0), "batch_size = 0: must be at least 1"),
        (lambda caption, path: Captioner(caption.model, precision="half"), "precision = half: must be one of fp32"),
        (lambda caption, path: Captioner(caption.model, device="tpu"), "tpu: unknown; choose auto, cpu"),
        (lambda caption, path: Captioner("no_such_checkpoint"), "no checkpoint 'no_such_checkpoint'"),
        (lambda caption, path: Matcher(caption.model), "checkpoint = BLIPDecoder: must be a name, a path or a BLIPMa"),
        (lambda caption, path: Captioner(caption.model, sample=True, seed=-1), "seed = -1: must be 0 or more"),
        (lambda caption, path: Captioner(caption.model, prompt=["a"]), r"prompt = \['a'\]: must be a text"),
    ],
)
def test_bad_input_gets_one_line(wrong, said, caption, pictures):
    with pytest.raises(UserError, match=said) as error:
        wrong(caption, pictures[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda answer, match, path: answer(path, ["what?"]), r"question = \['what\?'\]: must be a text"),
        (
            lambda answer, match, path: answer.rank(path, "what?", []),
            r"answers = \[\]: must be a list of texts, at least",
        ),
        (lambda answer, match, path: answer.rank(path, "what?", "yes"), "answers = 'yes': must be a list of texts"),
        (lambda answer, match, path: answer.rank(path, "what?", ["yes"], k=0), "k = 0: must be at least 1"),
        (lambda answer, match, path: match(path, []), r"texts = \[\]: must be a list of texts, at least one"),
        (lambda answer, match, path: match(path, [3]), r"texts = \[3\]: must be a list of texts"),
    ],
)
def test_a_bad_question_or_text_gets_one_line(wrong, said, models, pictures):
    with pytest.raises(UserError, match=said) as error:
        wrong(Answerer(models["vqa"], device="cpu"), Matcher(models["match"], device="cpu"), pictures[0])
    assert "\n" not in str(error.value)


def test_matches_that_are_no_numbers_are_an_error(models):
    broken = copy.deepcopy(models["match"])
    torch.nn.init.constant_(broken.itm_head.bias, torch.nan)
    with pytest.raises(UserError, match="not finite"):
        Matcher(broken, device="cpu")(Image.new("RGB", (32, 32)), ["a dog"])
