"""Maps of words: equal to captum's on a textbook attention and to finite differences, whatever the caller's state."""

from itertools import product

import pytest
import torch
from captum.attr import LayerActivation, LayerGradientXActivation
from torch import nn

from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_vqa import BLIPVQA
from models.config import TextConfig
from models.errors import ConfigError
from models.explain import answer_maps, caption_maps, match_maps, statement_maps
from models.generation import SearchOptions
from models.med import QueryKeyValue, TextModel
from models.word_maps import default_layer
from tests.small_model import TEXT, VIT

LAYERS = 3
TEXTS = {"med_config": TEXT | {"num_hidden_layers": LAYERS}, "vit": VIT}


def build(kind, image_size=48):
    """A model with random weights large enough for attention that differs from patch to patch."""
    torch.manual_seed(0)
    model = kind(image_size=image_size, **TEXTS).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture
def image():
    return torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def textbook(monkeypatch):
    """Make the cross-attention softmax(QK / sqrt(d)) V of one text and one picture, with its softmax as a module."""

    def attend(self, hidden, number, inputs):
        key, value = inputs.memories[0].key_values[number]
        query = torch.stack(self.query(hidden).chunk(self.heads, dim=-1), dim=1)  # [1, heads, L, d]
        scores = torch.einsum("bhld, bhtd -> bhlt", query, key) / key.shape[-1] ** 0.5
        context = torch.einsum("bhlt, bhtd -> blhd", self.probabilities(scores), value)
        return context.reshape(hidden.shape), None

    def apply(model):
        for module in model.modules():
            if isinstance(module, QueryKeyValue):
                module.probabilities = nn.Softmax(dim=-1)
        monkeypatch.setattr(QueryKeyValue, "attend_to_image", attend)
        return model

    return apply


def same(found, expected):
    """Assert equality but for rounding, of maps that are not all zero."""
    assert expected.max() > 0
    assert (found.flatten() - expected.flatten()).abs().max() < 1e-4 * expected.max()


def oracle(score, layer, image):
    """Captum's gradient times activation of a softmax -> the map of each token [L, patches] without the class token."""
    effect = LayerGradientXActivation(score, layer).attribute(image)
    return effect.relu().mean(dim=1)[0, :, 1:]


def activation(score, layer, image):
    return LayerActivation(score, layer).attribute(image).mean(dim=1)[0, :, 1:]


def match_logit(matcher, text, index=1):
    def score(image):
        ids, mask = matcher.tokenize_for(image, text, first_token=matcher.special.enc)
        memory = matcher.text_encoder.project(matcher.visual_encoder(image))
        return matcher.itm_head(matcher.text_encoder(ids, mask, memory)[:, 0])[:, index]

    return score


@pytest.mark.parametrize("layer", [0, 1])
def test_the_matching_heads_maps_are_captums(image, textbook, layer):
    matcher = build(BLIPMatcher)
    maps = match_maps(matcher, image, "a red dog", layer)
    against = match_maps(matcher, image, "a red dog", layer, against=True)
    assert maps.words == ["a", "red", "dog"]
    assert maps.text == "a red dog"
    softmax = textbook(matcher).text_encoder.layers[layer].crossattention.self.probabilities
    score = match_logit(matcher, "a red dog")
    expected = oracle(score, softmax, image)[1:-1]
    same(maps.grad_cam, expected)
    same(maps.attention, activation(score, softmax, image)[1:-1])
    same(against.grad_cam, oracle(match_logit(matcher, "a red dog", index=0), softmax, image)[1:-1])


def test_the_matching_heads_maps_are_what_scaling_an_attention_changes(image, textbook):
    matcher, image = build(BLIPMatcher).double(), image.double()
    maps = match_maps(matcher, image, "dog", layer=1)
    softmax = textbook(matcher).text_encoder.layers[1].crossattention.self.probabilities
    score, step = match_logit(matcher, "dog"), 1e-5
    heads = matcher.text_config.num_attention_heads
    factors = torch.ones(1, heads, 3, 10, dtype=torch.float64)
    softmax.register_forward_hook(lambda module, inputs, weights: weights * factors)

    def scaled(head, patch, factor):
        factors.fill_(1)[0, head, 1, patch + 1] = factor  # the word stands after [ENC], the patches after a class token
        return score(image).item()

    effect = torch.empty(heads, 9, dtype=torch.float64)
    with torch.no_grad():
        for head, patch in product(range(heads), range(9)):
            change = scaled(head, patch, 1 + step) - scaled(head, patch, 1 - step)
            effect[head, patch] = change / (2 * step)
    expected = effect.relu().mean(dim=0).view(1, 3, 3)
    same(maps.grad_cam, expected)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_captions_maps_are_captums_of_each_words_log_probability(image, textbook, layer):
    captioner = build(BLIPDecoder)
    maps = caption_maps(captioner, image, "a red dog, sleeping", layer)
    assert maps.words == ["a", "red", "dog", "sleeping"]
    softmax = textbook(captioner).text_decoder.bert.layers[layer].crossattention.self.probabilities
    ids = torch.tensor(captioner.tokenizer("a picture of a red dog, sleeping").input_ids[:-1])[None]
    ids[0, 0] = captioner.special.dec

    def log_prob(place):
        def score(image):
            memory = captioner.text_decoder.project(captioner.visual_encoder(image))
            states = captioner.text_decoder.bert(ids[:, :-1], memory=memory, causal=True)
            return captioner.text_decoder.logits(states).log_softmax(dim=2)[:, place - 1, ids[0, place]]

        return score

    for number, place in enumerate((4, 5, 6, 8)):  # after [DEC] a picture of; 7 is the comma
        score = log_prob(place)
        expected = oracle(score, softmax, image)
        same(maps.grad_cam[number], expected.sum(dim=0))
        same(maps.attention[number], activation(score, softmax, image)[place - 1])


@pytest.mark.parametrize("layer", [0, LAYERS - 1])
def test_an_answers_maps_are_captums_of_the_question_encoder(image, textbook, layer):
    answerer = build(BLIPVQA)
    maps = answer_maps(answerer, image, "what is it?", "red dog", layer)
    assert (maps.words, maps.question.words) == (["red", "dog"], ["what", "is", "it"])
    readers = textbook(answerer).text_decoder.bert.layers
    softmax = answerer.text_encoder.layers[layer].crossattention.self.probabilities
    asked, mask = answerer.tokenize_for(image, "what is it?", first_token=answerer.special.enc)
    ids = torch.tensor([[answerer.special.dec, *answerer.tokenizer("red dog").input_ids[1:-1]]])

    def log_probs(*places):
        def score(image):
            memory = answerer.text_encoder.project(answerer.visual_encoder(image))
            memory = answerer.text_decoder.project(answerer.text_encoder(asked, mask, memory), mask)
            log_p = answerer.text_decoder.logits(answerer.text_decoder.bert(ids, memory=memory, causal=True))
            log_p = log_p.log_softmax(dim=2)
            return sum(log_p[:, place - 1, ids[0, place]] for place in places)

        return score

    of_all = oracle(log_probs(1, 2), softmax, image)
    same(maps.question.grad_cam, of_all[1:4])  # between [ENC] and ? [SEP]
    attention = activation(log_probs(1), softmax, image)
    same(maps.question.attention, attention[1:4])
    for number, place in enumerate((1, 2)):
        same(maps.grad_cam[number], oracle(log_probs(place), softmax, image).sum(dim=0))
        reading = [
            LayerActivation(log_probs(place), layer.crossattention.self.probabilities).attribute(image)[0, :, place - 1]
            for layer in readers
        ]
        weights = torch.stack(reading).mean(dim=(0, 1))  # over layers and heads -> [question's tokens]
        same(maps.attention[number], weights @ attention)


def test_both_pictures_of_a_statement_have_maps_that_are_captums(textbook):
    judge = build(BLIPNLVR)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    maps = statement_maps(judge, images, "both show a dog", 1)
    assert [one.words for one in maps] == [["both", "show", "a", "dog"]] * 2
    verdict = judge(images, "both show a dog", train=False).argmax()
    cross = textbook(judge).text_encoder.layers[1].crossattention
    ids, mask = judge.tokenize_for(images[:1], "both show a dog", first_token=judge.special.enc)

    def score(images):
        memory = judge.text_encoder.project(*judge.visual_encoder(images).chunk(2))
        return judge.cls_head(judge.text_encoder(ids, mask, memory)[:, 0])[:, verdict]

    for one, attention in zip(maps, (cross.self0, cross.self1), strict=True):
        expected = oracle(score, attention.probabilities, images)[1:-1]
        same(one.grad_cam, expected)


def test_a_models_own_caption_and_answer_are_explained(image):
    captioner, answerer = build(BLIPDecoder), build(BLIPVQA)
    options = SearchOptions(num_beams=2, max_length=12, min_length=8)
    maps = caption_maps(captioner, image, options=options)
    assert [maps.text] == captioner.generate(image, num_beams=2, max_length=12, min_length=8)
    assert len(maps.words) == len(maps.grad_cam) > 0
    again = caption_maps(captioner, image, maps.text)
    assert again.words == maps.words
    torch.testing.assert_close(again.grad_cam, maps.grad_cam)
    assert [answer_maps(answerer, image, "what is it?").text] == answerer.generate_answers(image, "what is it?")


def test_word_pieces_become_words_whose_map_is_their_mean(image):
    matcher = build(BLIPMatcher)
    pieces = matcher.tokenizer.tokenize("unkissable cats!")
    assert pieces == ["un", "##kis", "##sable", "cats", "!"]
    maps = match_maps(matcher, image, "Unkissable cats! \U0001f600")
    assert maps.words == ["unkissable", "cats", "[UNK]"]
    pieces_of = matcher.tokenizer.convert_ids_to_tokens  # from here on without the mark of a word that goes on
    matcher.tokenizer.convert_ids_to_tokens = lambda ids: [piece.removeprefix("##") for piece in pieces_of(ids)]
    one_each = match_maps(matcher, image, "Unkissable cats! \U0001f600")
    torch.testing.assert_close(maps.grad_cam[0], one_each.grad_cam[:3].mean(dim=0))
    torch.testing.assert_close(maps.attention[1], one_each.attention[3])


@pytest.mark.parametrize("size", [32, 64])
def test_a_map_has_the_rows_and_columns_of_the_pictures_patches(size):
    matcher = build(BLIPMatcher, image_size=size)
    maps = match_maps(matcher, torch.randn(1, 3, size, size), "a dog")
    assert maps.grad_cam.shape == maps.attention.shape == (2, size // 16, size // 16)


def test_neither_the_callers_mode_nor_frozen_parameters_matter(image):
    matcher, captioner = build(BLIPMatcher), build(BLIPDecoder)
    expected = match_maps(matcher, image, "a dog").grad_cam, caption_maps(captioner, image, "a dog").grad_cam
    for model in (matcher, captioner):
        assert all(parameter.grad is None for parameter in model.parameters()), "no gradients are left behind"
        model.requires_grad_(requires_grad=False)
    with torch.inference_mode():
        inside = image + 0  # a tensor of inference mode
        found = match_maps(matcher, inside, "a dog").grad_cam, caption_maps(captioner, inside, "a dog").grad_cam
    assert all(map(torch.equal, found, expected))
    assert not any(one.requires_grad for one in found)


@pytest.mark.parametrize(("layers", "default"), [(12, 7), (6, 3), (2, 0), (1, 0)])
def test_the_default_layer_is_two_thirds_of_the_way_up(layers, default):
    assert default_layer(TextModel(TextConfig.read(TEXT | {"num_hidden_layers": layers}), 10, 8)) == default


@pytest.mark.parametrize(
    ("text", "layer", "message"),
    [
        ("a dog", 2, "layer = 2: must be 0 to 1; the last of the 3 shows nothing, as the head reads its first token"),
        ("a dog", -1, "layer = -1: must be 0 to 1"),
        ("", None, "the text '' has no words, of which maps could be shown"),
        ("... !", None, "the text '... !' has no words"),
        ("a dog " * 20, None, "has 40 tokens, and the model reads 33 of a text: shorten it"),
    ],
)
def test_bad_input_of_a_match_is_told_in_one_line(image, text, layer, message):
    with pytest.raises(ConfigError) as error:
        match_maps(build(BLIPMatcher), image, text, layer)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_input_of_the_others_is_told_in_one_line(image):
    captioner, answerer = build(BLIPDecoder), build(BLIPVQA)
    with pytest.raises(ConfigError, match="layer = 3: must be 0 to 2$"):
        caption_maps(captioner, image, "a dog", 3)
    with pytest.raises(ConfigError, match="has 50 tokens, and the model reads 36 of a text"):
        caption_maps(captioner, image, "dog " * 50)
    with pytest.raises(ConfigError, match="the text '[?]' has no words"):
        answer_maps(answerer, image, "?")
    with pytest.raises(ConfigError, match="the text '-' has no words"):
        answer_maps(answerer, image, "what is it?", "-")
    with pytest.raises(ValueError, match="1 picture, and there are 2"):
        caption_maps(captioner, torch.cat([image, image]), "a dog")
    captioner.text_decoder.bert = TextModel(captioner.text_config, 10, cross_attentions=0)
    with pytest.raises(ConfigError, match="this text model has no cross-attention"):
        caption_maps(captioner, image, "a dog")
    single = BLIPMatcher(TEXT | {"num_hidden_layers": 1}, 48, VIT)
    with pytest.raises(ConfigError, match="the text model has a single layer"):
        match_maps(single, image, "a dog")
