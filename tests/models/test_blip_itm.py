"""Matching and similarity agree with the 2022 code, and scores of pairs do not depend on their batch."""

import pytest
import torch

from models.blip_itm import blip_itm
from models.image_text import MATCH


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


@torch.no_grad()
def test_a_text_need_not_be_in_a_list(matcher, arrays, close):
    image = arrays("itm/images.npy")[:1]
    for head in ("itm", "itc"):
        close(matcher(image, "a dog runs", match_head=head), matcher(image, ["a dog runs"], match_head=head))
    close(matcher.score(image, "a dog runs").match, matcher.score(image, ["a dog runs"]).match)


@torch.no_grad()
def test_one_text_is_matched_with_all_images_and_one_image_with_all_texts(matcher, arrays, close):
    images, captions = arrays("itm/images.npy"), ["a dog runs", "two cats"]
    close(matcher(images, captions[0]), matcher(images, captions[:1] * 3))
    close(matcher(images[:1], captions), matcher(images[[0, 0]], captions))
    with pytest.raises(ValueError, match="2 texts do not fit 3 images"):
        matcher(images, captions)


def test_nothing_to_score_is_no_error(matcher, arrays):
    images = arrays("itm/images.npy")
    assert matcher.score(images, []).match.shape == matcher.score(images, []).cosine.shape == (3, 0)
    assert matcher.score(images[:0], ["a dog"]).match.shape == (0, 1)
    assert matcher.score(images[:0], [], pairwise=True).match.shape == (0,)


@torch.no_grad()
def test_mixed_precision_leaves_the_cosine_of_vectors_in_full_precision(matcher, arrays):
    images, captions = arrays("itm/images.npy"), ["a dog runs", "two cats"]
    full = matcher.score(images, captions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, itc = matcher.score(images, captions), matcher(images, captions, "itc")
        exact = matcher.encode_image(images).double() @ matcher.encode_text(captions).double().T
    torch.testing.assert_close(scores.cosine.double(), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(itc.double(), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores.match, full.match, rtol=0, atol=0.05)


@torch.no_grad()
def test_every_image_with_texts_of_its_own(matcher, arrays, facts, close):
    image, captions = arrays("itm/images.npy"), facts("itm/texts.json")["captions_short"]
    own = [captions[:2], [], captions[2:0:-1]]
    expected = matcher.score(image, captions)
    scores = matcher.score_texts(matcher.visual_encoder(image), own)
    in_parts = matcher.score_texts(matcher.visual_encoder(image), own, batch_size=1)
    close(in_parts.match, scores.match)
    close(in_parts.cosine, scores.cosine)
    pairs = [(row, captions.index(text)) for row, texts in enumerate(own) for text in texts]
    for found, all_pairs in ((scores.match, expected.match), (scores.cosine, expected.cosine)):
        close(found, torch.stack([all_pairs[row, column] for row, column in pairs]))
    assert matcher.score_texts(matcher.visual_encoder(image), [[] for _ in image]).match.shape == (0,)
