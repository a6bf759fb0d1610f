"""Matching and similarity agree with the 2022 code, and scores of pairs do not depend on their batch."""

import pytest
import torch

from models.blip_itm import MATCH, blip_itm


@pytest.fixture(scope="module")
def matcher(golden, tiny):
    return blip_itm(str(golden("retrieval/checkpoint.pth")), embed_dim=16, **tiny).eval()


@torch.no_grad()
def test_matching_logits_and_similarities(matcher, arrays, facts, close):
    images, texts, expected = arrays("itm/images.npy"), facts("itm/texts.json"), arrays("itm/expected.npz")
    for suffix, captions in (("", texts["captions"]), ("_short", texts["captions_short"])):
        close(matcher(images, captions, match_head="itm"), expected[f"itm_pairs{suffix}"])
        close(matcher(images, captions, match_head="itc"), expected[f"itc{suffix}"])


@torch.no_grad()
def test_every_image_with_every_caption(matcher, arrays, facts, close):
    images, captions = arrays("itm/images.npy"), facts("itm/texts.json")["captions_short"]
    expected = arrays("itm/expected.npz")["itm_all"]
    for i in range(3):
        close(matcher(images[i : i + 1].expand(3, -1, -1, -1), captions), expected[i])


def test_scores_start_the_text_with_the_token_that_the_head_was_trained_with(matcher, arrays, facts, close):
    images, captions = arrays("itm/images.npy"), facts("itm/texts.json")["captions_short"]
    expected = arrays("itm/expected.npz")
    scores = matcher.score(images, captions, pairwise=True)
    logits = expected["not_original__itm_pairs_short_with_enc_token"]
    close(scores.match, logits.softmax(dim=1)[:, MATCH])
    close(scores.cosine, expected["itc_short"].diagonal())


def test_scores_of_all_pairs_equal_those_of_each_pair_alone(matcher, arrays, facts, close):
    images, texts = arrays("itm/images.npy"), facts("itm/texts.json")
    captions = texts["captions"] + texts["captions_short"]
    scores = matcher.score(images, captions, batch_size=4)
    assert scores.match.shape == scores.cosine.shape == (3, len(captions))
    for i in range(3):
        for j, caption in enumerate(captions):
            alone = matcher.score(images[i : i + 1], [caption], pairwise=True)
            close(scores.match[i, j], alone.match[0])
            close(scores.cosine[i, j], alone.cosine[0])


def test_vectors_are_of_unit_length_and_give_the_cosine(matcher, arrays, facts, close):
    images, captions = arrays("itm/images.npy"), facts("itm/texts.json")["captions"]
    with torch.no_grad():
        image, text = matcher.encode_image(images), matcher.encode_text(captions)
    close(image.norm(dim=1), torch.ones(3))
    close(text.norm(dim=1), torch.ones(3))
    close(image @ text.T, matcher.score(images, captions).cosine)


def test_what_cannot_be_compared_is_said(matcher, arrays):
    images = arrays("itm/images.npy")
    with pytest.raises(ValueError, match="match_head='itn' must be 'itm' or 'itc'"):
        matcher(images, ["a", "b", "c"], match_head="itn")
    with pytest.raises(ValueError, match="there are 2 and 3"):
        matcher.score(images, ["a", "b"], pairwise=True)
