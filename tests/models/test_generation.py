"""Decoding: beam search against an exhaustive one, greedy and samples against their definitions, batches and items."""

import itertools

import pytest
import torch

from models.config import TextConfig
from models.errors import UserError
from models.generation import SearchOptions, _EndTest, _Rules, filter_top_k_top_p, generate
from models.med import TextDecoder

CONFIG = TextConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16
)
WIDTH, START, END, PAD = 12, 1, 3, 0


def build(vocabulary, scale=0.6):
    torch.manual_seed(0)
    decoder = TextDecoder(CONFIG, vocabulary, WIDTH).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return decoder


@pytest.fixture(scope="module")
def decoder():
    decoder = build(vocabulary=40)
    with torch.no_grad():
        decoder.cls.predictions.bias[END] += 4.0  # so that texts end, and at different lengths
    return decoder


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(2)
    return torch.randn(5, 4, WIDTH)


def prompt_of(images, *tokens):
    return torch.tensor([[START, *tokens]] * len(images))


def search(decoder, memory, prompt, **options):
    """What is generated without a penalty and without a least length, unless `options` say otherwise."""
    found = SearchOptions(**{"min_length": 0, "repetition_penalty": 1.0, **options})
    return generate(decoder, memory, prompt, found, end_token=END, pad_token=PAD)


def step_log_probs(decoder, image, ids):
    """Log-probabilities of the token after ids, with nothing cached or shared."""
    with torch.no_grad():
        memory = decoder.project(image[None])
        states = decoder.bert(torch.tensor([ids]), memory=memory, causal=True)
    return decoder.logits(states[:, -1])[0].log_softmax(dim=0)


def test_a_beam_wide_enough_finds_what_an_exhaustive_search_finds(images):
    vocabulary, max_length, min_length = 5, 4, 3
    decoder = build(vocabulary)
    rules = {"max_length": max_length, "min_length": min_length}
    found = search(decoder, decoder.project(images), prompt_of(images), **rules, num_beams=125, num_return_sequences=80)
    for row, image in enumerate(images):
        every = {}
        for length in range(1, max_length):
            for tail in itertools.product(range(vocabulary), repeat=length):
                ends = [i for i, token in enumerate(tail) if token == END]
                if ends and (ends[0] != length - 1 or length < min_length):
                    continue  # it goes on after its end, or ends too early
                if not ends and length + 1 < max_length:
                    continue  # neither ended nor as long as it may be
                log_prob = sum(step_log_probs(decoder, image, [START, *tail[:i]])[t].item() for i, t in enumerate(tail))
                every[tail] = (log_prob / (length if ends else length + 1), log_prob)
        best = sorted(every.items(), key=lambda item: -item[1][0])[:80]
        assert len(best) == 80
        for i, (tail, (score, log_prob)) in enumerate(best):
            assert tuple(found.ids[row, i, 1 : 1 + len(tail)].tolist()) == tail
            assert found.scores[row, i].item() == pytest.approx(score, abs=1e-5)
            assert found.log_probs[row, i].item() == pytest.approx(log_prob, abs=1e-5)


def test_greedy_search_takes_the_most_probable_token_each_time(decoder, images):
    rules = {"max_length": 12, "min_length": 4}
    found = search(decoder, decoder.project(images), prompt_of(images, 5), **rules, num_beams=1)
    for row, image in enumerate(images):
        ids, log_prob = [START, 5], 0.0
        while len(ids) < 12 and ids[-1] != END:
            log_probs = step_log_probs(decoder, image, ids)
            allowed = log_probs.clone()
            if len(ids) < 4:
                allowed[END] = float("-inf")
            ids.append(allowed.argmax().item())
            log_prob += log_probs[ids[-1]].item()
        assert found.ids[row, 0, : len(ids)].tolist() == ids
        assert not found.ids[row, 0, len(ids) :].any()
        assert found.log_probs[row, 0].item() == pytest.approx(log_prob, abs=1e-4)


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.4])
def test_a_batch_equals_its_images_one_by_one(decoder, images, num_beams, repetition_penalty):
    rules = {"max_length": 14, "min_length": 3, "repetition_penalty": repetition_penalty}
    together = search(
        decoder,
        decoder.project(images),
        prompt_of(images),
        **rules,
        num_beams=num_beams,
        num_return_sequences=num_beams,
    )
    lengths = (together.ids[:, 0] != PAD).sum(dim=1)
    assert len(set(lengths.tolist())) > 1, "the images should end at different lengths"
    for row in range(len(images)):
        image = images[row : row + 1]
        alone = search(
            decoder,
            decoder.project(image),
            prompt_of(image),
            **rules,
            num_beams=num_beams,
            num_return_sequences=num_beams,
        )
        width = alone.ids.shape[2]
        assert torch.equal(together.ids[row, :, :width], alone.ids[0])
        torch.testing.assert_close(together.scores[row], alone.scores[0], rtol=0, atol=1e-5)


def test_the_log_probability_is_the_models_own_even_under_a_penalty(decoder, images):
    rules = {"max_length": 10, "repetition_penalty": 1.7}
    for options in ({"num_beams": 3}, {"sample": True}):
        found = search(decoder, decoder.project(images), prompt_of(images), **rules, **options)
        for row, image in enumerate(images):
            ids = found.ids[row, 0].tolist()
            ids = ids[: ids.index(END) + 1] if END in ids else ids
            expected = sum(step_log_probs(decoder, image, ids[:i])[ids[i]].item() for i in range(1, len(ids)))
            assert found.log_probs[row, 0].item() == pytest.approx(expected, abs=1e-4)


def test_samples_follow_the_models_distribution(images):
    decoder = build(vocabulary=6, scale=0.4)
    rules = {"max_length": 2}
    options = {"sample": True, "num_return_sequences": 4000, "top_k": 0, "top_p": 1.0}
    generator = torch.Generator().manual_seed(0)
    found = search(decoder, decoder.project(images), prompt_of(images), **rules, generator=generator, **options)
    for row, image in enumerate(images):
        share = torch.bincount(found.ids[row, :, 1], minlength=6) / 4000
        torch.testing.assert_close(share, step_log_probs(decoder, image, [START]).exp(), rtol=0, atol=0.03)


def test_a_seed_decides_the_samples(decoder, images):
    rules = {"max_length": 12}
    memory, prompt = decoder.project(images), prompt_of(images)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return search(decoder, memory, prompt, **rules, sample=True, top_p=1.0, generator=generator).ids

    state = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert draw(1).shape != draw(2).shape or not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), state), "a generator of one's own leaves the global one alone"


def test_given_numbers_choose_the_samples_of_each_text_alone(decoder, images):
    options = {"sample": True, "num_return_sequences": 3, "max_length": 12, "top_k": 7, "top_p": 0.9}
    uniforms = torch.rand(len(images) * 3, 12, generator=torch.Generator().manual_seed(5))
    together = search(decoder, decoder.project(images), prompt_of(images), **options, uniforms=uniforms)
    for i in range(len(images)):
        one = images[i : i + 1]
        alone = search(decoder, decoder.project(one), prompt_of(one), **options, uniforms=uniforms[3 * i : 3 * i + 3])
        length = alone.ids.shape[2]
        assert torch.equal(together.ids[i, :, :length], alone.ids[0])
        assert (together.ids[i, :, length:] == PAD).all()
        torch.testing.assert_close(together.log_probs[i], alone.log_probs[0])


def test_evenly_spaced_numbers_draw_the_models_distribution(decoder, images):
    number, image = 4000, images[:1]
    spaced = ((torch.arange(number) + 0.5) / number)[:, None].expand(number, 2)
    options = {"sample": True, "num_return_sequences": number, "max_length": 2, "uniforms": spaced, "top_p": 0.9}
    ids = search(decoder, decoder.project(image), prompt_of(image), top_k=7, **options).ids[0, :, 1]
    expected = filter_top_k_top_p(step_log_probs(decoder, images[0], [START])[None], 7, 0.9).softmax(dim=1)[0]
    found = torch.bincount(ids, minlength=40) / number
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / number)


def test_the_largest_and_the_smallest_number_choose_from_the_nucleus(decoder, images):
    image = images[:1]
    allowed = filter_top_k_top_p(step_log_probs(decoder, images[0], [START])[None], 0, 0.8)[0].isfinite()
    for value in (0.0, 1.0 - 2**-24):
        numbers = torch.full((1, 2), value)
        ids = search(
            decoder,
            decoder.project(image),
            prompt_of(image),
            sample=True,
            max_length=2,
            top_p=0.8,
            top_k=0,
            uniforms=numbers,
        ).ids
        assert allowed[ids[0, 0, 1]]


def test_truncation_keeps_the_nucleus_within_the_top_k():
    logits = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log()

    def kept(top_k, top_p):
        return filter_top_k_top_p(logits, top_k, top_p)[0].isfinite().nonzero().flatten().tolist()

    assert kept(0, 1.0) == [0, 1, 2, 3]
    assert kept(2, 1.0) == [0, 2]
    assert kept(0, 0.65) == [0, 2]
    assert kept(0, 0.75) == [0, 2, 3]
    assert kept(0, 1e-6) == [0]
    assert kept(3, 0.5) == [0, 2]  # 0.4 / 0.9 is less than half, so that a second token is needed


def test_a_repetition_penalty_acts_on_tokens_of_the_prompt_too():
    scores = torch.tensor([[2.0, -1.0, 3.0, -4.0]])
    rules = _Rules(END, PAD, max_length=9, min_length=0, repetition_penalty=2.0)
    assert rules.apply(scores, torch.tensor([[1, 2, 2]])).tolist() == [[2.0, -2.0, 1.5, -4.0]]


def test_decoding_stops_when_every_image_is_done(decoder, images, monkeypatch):
    rules = {"max_length": 16}
    steps = []
    forward = TextDecoder.logits
    monkeypatch.setattr(TextDecoder, "logits", lambda self, states: steps.append(1) or forward(self, states))
    with torch.no_grad():
        bias = decoder.cls.predictions.bias
        before = bias.clone()
        bias[END] = 50.0
    try:
        for options in ({"num_beams": 1}, {"num_beams": 3}):
            steps.clear()
            found = search(decoder, decoder.project(images), prompt_of(images), **rules, **options)
            assert (found.ids[:, 0, 1] == END).all()
            assert len(steps) <= 4
    finally:
        with torch.no_grad():
            bias.copy_(before)


@pytest.mark.parametrize(
    "options", [{"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 3}, {"sample": True, "top_p": 0.5}]
)
def test_tokens_that_are_decoded_after_all_texts_have_ended_change_nothing(images, monkeypatch, options):
    decoder = build(vocabulary=40)
    with torch.no_grad():
        decoder.cls.predictions.bias[END] += 7.0

    def found():
        rules = {"max_length": 16, "min_length": 4, "generator": torch.Generator().manual_seed(1)}
        return search(decoder, decoder.project(images), prompt_of(images), **rules, **options)

    at_once = found()
    assert 2 < at_once.ids.shape[2] < 16, "all texts should end before they must"
    monkeypatch.setattr(_EndTest, "passed", lambda *_: False)
    late = found()
    assert torch.equal(late.ids, at_once.ids)
    assert torch.equal(late.scores, at_once.scores)
    assert torch.equal(late.log_probs, at_once.log_probs)


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"sample": True}, {"sample": True, "uniforms": torch.zeros(5, 8)}]
)
def test_logits_that_stop_being_numbers_on_the_way_are_an_error(decoder, images, monkeypatch, options):
    steps, logits = [], TextDecoder.logits

    def broken_third(self, states):
        steps.append(1)
        return logits(self, states) * (float("nan") if len(steps) == 3 else 1.0)

    monkeypatch.setattr(TextDecoder, "logits", broken_third)
    with pytest.raises(UserError, match="values that are not finite"):
        search(decoder, decoder.project(images), prompt_of(images), max_length=8, **{"min_length": 8, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 exceeds num_beams=2"),
        ({"sample": True, "top_p": 0.0}, r"top_p=0.0 must lie in \(0, 1\]"),
        ({"sample": True, "top_k": -1}, "top_k=-1"),
        ({"sample": True, "uniforms": torch.zeros(1, 3)}, r"uniforms of shape \[1, 3\] must be \[5, 8\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be above 0"),
    ],
)
def test_impossible_requests_are_errors(decoder, images, options, message):
    rules = {"max_length": 8}
    with pytest.raises(ValueError, match=message):
        search(decoder, decoder.project(images), prompt_of(images), **rules, **options)


def test_a_prompt_without_room_is_an_error(decoder, images):
    with pytest.raises(ValueError, match="max_length=2 leaves no room after a prompt of 3 tokens"):
        search(decoder, decoder.project(images), prompt_of(images, 4, 5), max_length=2)


def test_more_tokens_than_positions_are_an_error_before_any_work(decoder, images):
    with pytest.raises(ValueError, match="max_length=17 exceeds the 16 positions"):
        search(decoder, decoder.project(images), prompt_of(images), max_length=17)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"sample": True}])
def test_no_images_give_no_texts(decoder, images, options):
    nothing = images[:0]
    prompt = torch.empty(0, 1, dtype=torch.long)
    found = search(decoder, decoder.project(nothing), prompt, max_length=8, **options)
    assert found.ids.shape[:2] == found.scores.shape == (0, 1)
