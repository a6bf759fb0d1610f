"""What the page's tabs compute is what the one-line calls say, within limits, and each word has its map."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from data.media.image_file import open_image
from files import REPOSITORY
from models.explain import answer_maps, caption_maps, match_maps
from prediction import Answerer, Captioner, Matcher
from settings import ConfigError, UserError
from transform.image import EvalTransform, normalize
from webapp.checkpoints import sources
from webapp.folder import SearchedFolder
from webapp.limits import Limits
from webapp.tabs import BEAM, NUCLEUS, Tabs

PICTURES = REPOSITORY / "demo" / "pictures"
STAR = str(PICTURES / "pink_star.jpg")
KNOWN = {one["image"]: one for one in json.loads((PICTURES / "pictures.json").read_text())}


@pytest.fixture(scope="module")
def tabs():
    matcher = Matcher("demo_match", device="cpu")
    folder = SearchedFolder(matcher, PICTURES)
    return Tabs(Captioner("demo_caption", device="cpu"), Answerer("demo_vqa", device="cpu"), matcher, folder, Limits())


def model_input(path):
    return normalize(EvalTransform(40)(open_image(path))[None])


def buttons(page):
    """(line, word, whether it is pressed, text) of each word that can be clicked."""
    found = re.findall(r'data-line="(\d+)" data-word="(\d+)" aria-pressed="(\w+)">([^<]*)<', page)
    return [(int(line), int(word), pressed == "true", text) for line, word, pressed, text in found]


def test_captions_are_those_of_the_captioner(tabs):
    result = tabs.caption(STAR, BEAM, 3, 2, 0.9, 0)
    best = Captioner(tabs.captioner.model, num_beams=3, device="cpu").n_best(STAR, 3)
    assert [line.text for line in result.lines] == [one.caption for one in best]
    assert [line.figure for line in result.lines] == [f"log-probability {one.log_prob:.2f}" for one in best]
    assert result.lines[0].text == KNOWN["pink_star.jpg"]["said"]["caption"]


def test_samples_go_by_the_seed_and_the_nucleus(tabs):
    def samples(seed, top_p=1.0):
        return [line.text for line in tabs.caption(STAR, NUCLEUS, 5, 1, top_p, seed).lines]

    assert samples(1) == samples(1)
    assert samples(1) != samples(2)
    assert len(set(samples(3, top_p=0.001))) == 1  # a nucleus of a single token


def test_answers_are_written_or_ranked(tabs):
    question = "what color is the star?"
    written = tabs.answer(STAR, f"  {question}\n", "\n")
    assert [(line.label, line.text) for line in written.lines] == [("question", question), ("answer", "pink")]
    ranked = tabs.answer(STAR, question, "blue\n\n pink \nblue\nred")
    assert [line.text for line in ranked.lines[1:2]] == ["pink"]
    assert {line.text for line in ranked.lines[1:]} == {"blue", "pink", "red"}
    assert sum(line.share for line in ranked.lines[1:]) == pytest.approx(1, abs=1e-5)


def test_matches_are_those_of_the_matcher(tabs):
    texts = ["a pink star", "a black heart"]
    result = tabs.match(STAR, "\n".join(texts))
    expected = tabs.matcher(STAR, texts)
    assert [(line.text, line.share) for line in result.lines] == [(one.text, one.match) for one in expected]
    assert result.lines[0].share > 0.5 > result.lines[1].share
    assert (result.lines[0].shows, result.lines[1].shows) == (
        "what speaks for the match",
        "what speaks against the match",
    )


def test_a_search_re_ranks_the_most_similar(tabs):
    found = tabs.folder.search("a pink star", 8)
    alone = {path: tabs.matcher(path, "a pink star") for path in tabs.folder.paths}
    by_match = sorted(alone, key=lambda path: -alone[path].match)
    by_cosine = sorted(alone, key=lambda path: -alone[path].cosine)
    assert [one.path for one in found] == by_match
    assert [by_cosine[one.place - 1] for one in found] == by_match
    assert found[0].path.name == "pink_star.jpg"
    assert tabs.folder.search("a pink star", 3) == found[:3]


def test_the_map_of_a_clicked_word_is_that_of_the_model(tabs):
    image, question = model_input(STAR), "what color is the star?"
    captioned, answered = tabs.caption(STAR, BEAM, 1, 3, 0.9, 0), tabs.answer(STAR, question, "")
    matched = tabs.match(STAR, "a pink star\na black heart")
    answered_maps = answer_maps(tabs.answerer.model, image, question, "pink")
    for line, expected in (
        (captioned.lines[0], caption_maps(tabs.captioner.model, image, captioned.lines[0].text)),
        (answered.lines[0], answered_maps.question),
        (answered.lines[1], answered_maps),
        (matched.lines[0], match_maps(tabs.matcher.model, image, "a pink star")),
        (matched.lines[1], match_maps(tabs.matcher.model, image, "a black heart", against=True)),
    ):
        (maps,) = line.maps()
        assert line.words == maps.words == expected.words
        torch.testing.assert_close(maps.grad_cam, expected.grad_cam)


def test_a_clicked_word_is_pressed_and_its_map_shown(tabs):
    result = tabs.match(STAR, "a pink star\ntwo moons")
    before, after = result.page(), result.page(0, 2)
    assert [text for *_, text in buttons(before)] == ["a", "pink", "star", "two", "moons"]
    assert "<img" not in before
    assert [(line, word) for line, word, pressed, _ in buttons(after) if pressed] == [(0, 2)]
    assert after.count('src="data:image/jpeg;base64,') == 1
    assert result.page(0, 1) != after


def test_every_picture_found_has_a_map_of_the_clicked_word(tabs):
    result = tabs.search("a pink star", 3)
    before, after = result.page(), result.page(0, 2)
    assert before.count("<img") == after.count("<img") == 3
    assert set(re.findall(r'src="([^"]*)', before)).isdisjoint(re.findall(r'src="([^"]*)', after))
    assert str(REPOSITORY) not in before + after


def test_what_visitors_write_stays_text(tabs):
    page = tabs.match(STAR, '<img src=x onerror="alert(1)">\n?!').page()
    assert "<img" not in page
    assert "?!" in page  # no words: shown, and nothing to click


@pytest.mark.parametrize(("line", "word"), [(5, 0), (0, 99), (-1, 0), (0, -1)])
def test_a_word_that_is_not_there_is_refused(tabs, line, word):
    with pytest.raises(UserError, match="no such word"):
        tabs.match(STAR, "a pink star").page(line, word)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda tabs: tabs.match(None, "a"), "Choose a picture first"),
        (lambda tabs: tabs.match(STAR, " \n "), "Texts: nothing is written there yet"),
        (lambda tabs: tabs.match(STAR, "\n".join(map(str, range(21)))), "Texts: 21 lines, and at most 20 are read"),
        (lambda tabs: tabs.answer(STAR, "", "a"), "Question: nothing is written there yet"),
        (lambda tabs: tabs.answer(STAR, "a" * 5001, ""), "Question: 5,001 characters, and at most 5,000 are read"),
        (lambda tabs: tabs.caption(STAR, BEAM, 6, 3, 0.9, 0), "Captions: must be from 1 to 5"),
        (lambda tabs: tabs.caption(STAR, BEAM, 1, 1e9, 0.9, 0), "Beams: must be from 1 to 10"),
        (lambda tabs: tabs.caption(STAR, NUCLEUS, 1, 1, 7.0, 0), "top_p"),
        (lambda tabs: tabs.caption(STAR, NUCLEUS, 1, 1, 0.9, -1), "Seed: must be"),
        (lambda tabs: tabs.search("star", 99), "Pictures: must be from 1 to 12"),
        (lambda tabs: tabs.match(STAR, "star " * 40).page(0, 0), "tokens, and the model reads"),
    ],
)
def test_impossible_wishes_get_one_line(tabs, ask, said):
    with pytest.raises(UserError, match=said) as error:
        ask(tabs)
    assert "\n" not in str(error.value)


def test_uploads_that_are_no_pictures_are_refused_without_their_place_here(tmp_path):
    text, large = tmp_path / "notes.jpg", tmp_path / "large.png"
    text.write_text("no picture")
    Image.fromarray(np.zeros((1001, 1000), dtype=np.uint8)).save(large)
    limits = Limits(pixels=1)
    for path, said in (
        (text, "notes.jpg: not a picture"),
        (large, "large.png: 1000x1001 pixels: more than 1 million are not accepted"),
        (tmp_path / "gone.jpg", "gone.jpg: No such file or directory"),
    ):
        with pytest.raises(UserError) as error:
            limits.picture(path)
        assert str(error.value) == said
    assert Limits(pixels=2).picture(large).size == (1000, 1001)


def test_a_folder_is_searched_without_what_cannot_be_read(tabs, tmp_path, caplog):
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(UserError, match="none of its 1 pictures can be read"):
        SearchedFolder(tabs.matcher, tmp_path)
    open_image(STAR).save(tmp_path / "star.png")
    folder = SearchedFolder(tabs.matcher, tmp_path)
    assert [path.name for path in folder.paths] == ["star.png"]
    assert "broken.jpg: not a picture" in caplog.text
    (tmp_path / "star.png").unlink()
    with pytest.raises(UserError, match="no longer there") as error:
        folder.search("a pink star", 1)
    assert str(tmp_path) not in str(error.value)


def test_checkpoints_are_told_by_task_or_by_released_name():
    assert sources([]) == {"caption": "demo_caption", "vqa": "demo_vqa", "match": "demo_match"}
    assert sources(["model_base_retrieval_coco", "caption=my=own.pth"]) == {
        "caption": "my=own.pth",
        "vqa": "demo_vqa",
        "match": "model_base_retrieval_coco",
    }


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["my.pth"], "say for which task it is, as in caption=my.pth"),
        (["model_base"], "say for which task it is"),
        (["vqa="], "name a checkpoint after the '='"),
        (["vqa=a.pth", "model_vqa"], "vqa is to be done by a.pth already"),
    ],
)
def test_checkpoints_of_no_clear_task_are_refused(named, said):
    with pytest.raises(ConfigError, match=said):
        sources(named)


def test_an_empty_field_of_a_number_is_named(tabs):
    with pytest.raises(UserError, match="Seed: must be a whole number"):
        tabs.caption(STAR, NUCLEUS, 1, 1, 0.9, None)
    with pytest.raises(UserError, match="Captions: must be from 1"):
        tabs.caption(STAR, NUCLEUS, None, 1, 0.9, 0)
