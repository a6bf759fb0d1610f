"""What users of BLIP-like code reported as broken or puzzling: each test calls as one of them did.

They get the right value, or an error that says what is wrong with the call.
"""

import copy
import io
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.blip import BLIPDecoder, blip_decoder
from models.blip_itm import BLIPMatcher, blip_itm
from models.blip_vqa import BLIPVQA, blip_vqa
from models.errors import ConfigError, UserError
from models.generation import SearchOptions
from models.tokenizer import as_texts

SHORT = {"max_length": 10, "min_length": 5}


@pytest.fixture(scope="module")
def captioner(golden, tiny) -> BLIPDecoder:
    return blip_decoder(golden("caption/checkpoint.pth"), **tiny).eval()


@pytest.fixture(scope="module")
def matcher(golden, tiny) -> BLIPMatcher:
    return blip_itm(golden("retrieval/checkpoint.pth"), embed_dim=16, **tiny).eval()


@pytest.fixture(scope="module")
def answerer(golden, tiny) -> BLIPVQA:
    return blip_vqa(golden("vqa/checkpoint.pth"), **tiny).eval()


@pytest.fixture(scope="module")
def images(arrays):
    return arrays("caption/images.npy")


@pytest.fixture(scope="module")
def captions(captioner, images):
    return captioner.generate(images, **SHORT)


# Images


def test_an_image_of_another_number_format_than_the_weights_is_read_in_theirs(captioner, images, captions):
    assert captioner.generate(images.double(), **SHORT) == captions
    for dtype in (torch.float16, torch.bfloat16):
        model = copy.deepcopy(captioner).to(dtype)
        expected = model.generate(images.to(dtype), **SHORT)
        assert model.generate(images, **SHORT) == expected


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (lambda _: Image.new("RGB", (64, 64)), TypeError, r"a tensor \[B, 3, 64, 64\] .* and got a Image"),
        (lambda image: image.numpy(), TypeError, "and got a ndarray"),
        (list, TypeError, "and got a list"),
        (lambda image: image[0], ValueError, r"got shape \(3, 64, 64\); image\[None\] is a batch"),
        (lambda image: image[:, :1], ValueError, "got 1 channels: convert the picture to RGB"),
        (lambda image: torch.cat([image, image[:, :1]], dim=1), ValueError, "got 4 channels: convert"),
        (lambda image: image.to(torch.uint8), ValueError, r"got torch\.uint8: normalize them"),
        (lambda image: image.to("meta"), ValueError, "the images are on meta and the model on cpu"),
    ],
)
def test_what_is_no_batch_of_images_is_named(captioner, matcher, answerer, images, give, error, message):
    wrong = give(images)
    for ask in (
        lambda: captioner.generate(wrong),
        lambda: captioner(wrong, "a picture of a cat"),
        lambda: matcher(wrong, "a cat"),
        lambda: matcher.encode_image(wrong),
        lambda: answerer.generate_answers(wrong, "what is it?"),
    ):
        with pytest.raises(error, match=message):
            ask()


def test_values_that_are_not_finite_are_an_error_and_no_caption(captioner, answerer, images):
    nothing = images * float("nan")
    for ask in (
        lambda: captioner.generate(nothing),
        lambda: captioner.generate(nothing, num_beams=1),
        lambda: captioner.generate(nothing, sample=True),
        lambda: answerer.generate_answers(nothing, "what is it?"),
        lambda: answerer.rank_answers(nothing, "what is it?", ["yes", "no"]),
    ):
        with pytest.raises(UserError, match="values that are not finite"):
            ask()


# Texts


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (None, TypeError, "expected a text or a list of texts, and got None"),
        (b"a cat", TypeError, "and got b'a cat'"),
        ({"a cat": 1}, TypeError, "and got {'a cat': 1}"),
        (["a cat", None], TypeError, "number 1 of it, from 0, is None"),
        ([["a cat", "a dog"]], TypeError, r"number 0 of it, from 0, is \['a cat', 'a dog'\]"),
        ([("a cat", "a dog")], TypeError, r"is \('a cat', 'a dog'\)"),
        ([7], TypeError, "is 7"),
        (["a \ud83d cat"], ValueError, r"half of a surrogate pair, no character: 'a \\ud83d cat'"),
    ],
)
def test_what_is_no_list_of_texts_is_named(texts, error, message):
    with pytest.raises(error, match=message):
        as_texts(texts)


def test_texts_may_come_in_any_row(matcher, arrays):
    image = arrays("itm/images.npy")
    expected = matcher.score(image, ["a cat", "a dog"])
    for texts in (("a cat", "a dog"), np.array(["a cat", "a dog"]), iter(["a cat", "a dog"])):
        scores = matcher.score(image, texts)
        assert torch.equal(scores.match, expected.match)
        assert torch.equal(scores.cosine, expected.cosine)


def test_a_token_of_ones_own_is_read_once_it_has_an_embedding(matcher):
    model = copy.deepcopy(matcher)
    model.tokenizer.add_tokens(["labradoodle"])
    model.text_encoder.resize_token_embeddings(len(model.tokenizer))
    ids, _ = model.tokenize_for(torch.zeros(1, 3, 64, 64), "a labradoodle")
    assert ids[0, 2] == len(matcher.tokenizer)
    assert model.encode_text("a labradoodle").isfinite().all()
    assert torch.equal(model.encode_text("a cat"), matcher.encode_text("a cat"))


def test_candidates_for_each_question_are_not_taken_for_pairs_of_texts(answerer, images):
    with pytest.raises(TypeError, match=r"number 0 of it, from 0, is \['yes', 'no'\]"):
        answerer.rank_answers(images[:2], ["is it?", "what is it?"], [["yes", "no"], ["a cat", "a dog"]])


# Generation


def test_the_prompt_may_be_changed_between_two_calls(captioner, golden, tiny, images):
    model = copy.deepcopy(captioner)
    model.prompt = "the "
    built = blip_decoder(golden("caption/checkpoint.pth"), prompt="the ", **tiny).eval()
    assert model.generate(images, **SHORT) == built.generate(images, **SHORT) != captioner.generate(images, **SHORT)
    assert (model.prompt, model.prompt_length) == ("the ", 2)
    for prompt in (None, ["a picture of "]):
        with pytest.raises(TypeError, match="must be a single text"):
            model.prompt = prompt


@pytest.mark.parametrize("option", ["num_beams", "max_length", "min_length", "top_k", "num_return_sequences"])
def test_numbers_of_tokens_and_texts_are_whole(option):
    with pytest.raises(ConfigError, match=f"{option} = 7.0: must be a whole number"):
        SearchOptions(**{option: 7.0})
    SearchOptions(**{option: np.int64(3)})


def test_captions_vary_by_dropout_until_the_model_is_told_to_evaluate(golden, tiny, images, captions):
    model = blip_decoder(golden("caption/checkpoint.pth"), **tiny)
    assert model.training
    torch.manual_seed(0)
    assert model.generate(images, **SHORT) != model.generate(images, **SHORT)
    assert model.eval().generate(images, **SHORT) == captions


def test_threads_get_the_captions_of_one(captioner, images, captions):
    found = []
    threads = [threading.Thread(target=lambda: found.append(captioner.generate(images, **SHORT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [captions] * 3


# Models as objects


def test_a_model_is_copied_pickled_and_saved_whole(captioner, images, captions):
    saved = io.BytesIO()
    torch.save(captioner, saved)
    saved.seek(0)
    for model in (
        copy.deepcopy(captioner),
        pickle.loads(pickle.dumps(captioner)),
        torch.load(saved, weights_only=False),
    ):
        assert model.generate(images, **SHORT) == captions


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [(BLIPDecoder, "caption", {}), (BLIPVQA, "vqa", {})],
)
def test_torchs_own_strict_loading_takes_a_file_of_2022(kind, name, options, golden, tiny):
    state = torch.load(golden(f"{name}/checkpoint.pth"), weights_only=True)["model"]
    assert any(key.endswith("embeddings.position_ids") for key in state)
    model = kind(**tiny, **options)
    model.load_state_dict(state)
    assert torch.equal(model.visual_encoder.pos_embed, state["visual_encoder.pos_embed"])
    assert any(key.endswith("embeddings.position_ids") for key in state)  # the caller's mapping is left as it was


def test_frozen_encoders_get_no_gradients_with_recomputed_blocks_too(golden, tiny, images):
    model = blip_decoder(golden("caption/checkpoint.pth"), vit_grad_ckpt=True, vit_ckpt_layer=2, **tiny).train()
    model.visual_encoder.requires_grad_(requires_grad=False)
    model(images, "a picture of a cat").backward()
    assert all(parameter.grad is None for parameter in model.visual_encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.text_decoder.parameters())


# Export, as docs/python.md shows it


class Matching(nn.Module):
    """The matching head as a function of tensors."""

    def __init__(self, matcher: BLIPMatcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(self, image, ids, mask):
        memory = self.matcher.text_encoder.project(self.matcher.visual_encoder(image))
        return self.matcher.match_logits(memory, ids, mask)


def test_the_parts_of_a_model_are_exported_for_any_batch_and_length(arrays, close):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 16}
    matcher = BLIPMatcher(text, 64, vit, embed_dim=8).eval()
    image = arrays("itm/images.npy")
    texts = matcher.tokenizer(["a cat", "a dog on grass", "a"], padding=True, return_tensors="pt")
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=3, max=35)
    exported = torch.export.export(
        Matching(matcher),
        (image, texts.input_ids, texts.attention_mask),
        dynamic_shapes=({0: batch}, {0: batch, 1: length}, {0: batch, 1: length}),
    )
    texts = matcher.tokenizer(["a cat", "two dogs that sleep on a sofa"], padding=True, return_tensors="pt")
    texts.input_ids[:, 0] = matcher.special.enc
    found = exported.module()(image[:2], texts.input_ids, texts.attention_mask)
    scores = matcher.score(image[:2], ["a cat", "two dogs that sleep on a sofa"], pairwise=True)
    close(found.softmax(dim=1)[:, 1], scores.match)
