"""Texts without their padding: the same states, losses and gradients as of padded ones, and of each text alone."""

import pytest
import torch
import torch.nn.functional as F

from models.config import TextConfig
from models.med import TextDecoder, TextModel
from models.packing import Packing

CONFIG = TextConfig(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16
)
VOCABULARY, SOURCE, PATCHES = 40, 12, 5
LENGTHS, WIDTH = [4, 7, 2, 7, 3, 5], 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    model = TextDecoder(CONFIG, VOCABULARY, SOURCE)
    for parameter in model.parameters():  # large enough that every path matters
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def ids():
    """Six texts, with tokens as padding that no state may depend on."""
    torch.manual_seed(1)
    return torch.randint(1, VOCABULARY, (6, WIDTH))


@pytest.fixture
def images():
    torch.manual_seed(2)
    return torch.randn(6, PATCHES, SOURCE)


def gradients(model, value):
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same_gradients(model, value, expected):
    found, wanted = gradients(model, value), gradients(model, expected)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-5 * max(1.0, grad.abs().max().item()))


@pytest.mark.parametrize("skipped", [0, 3])
def test_a_packing_lists_the_places_of_the_tokens(skipped):
    packing = Packing.of(LENGTHS, WIDTH, CPU, skipped)
    expected = [(text, i) for text, length in enumerate(LENGTHS) for i in range(skipped, length)]
    assert [(place // WIDTH, place % WIDTH) for place in packing.places.tolist()] == expected
    assert packing.positions()[0].tolist() == [i for _, i in expected]
    batch = torch.randn(6, WIDTH, 2)
    row = packing.pack(batch)
    assert torch.equal(row[0], torch.stack([batch[place] for place in expected]))
    restored = torch.zeros_like(batch)
    for place in expected:
        restored[place] = batch[place]
    assert torch.equal(packing.spread(row), restored)


def test_no_texts_are_packed_too(decoder):
    packing = Packing.of([], WIDTH, CPU)
    states = decoder.bert(torch.empty(0, WIDTH, dtype=torch.long), packing=packing, first_only=True)
    assert states.shape == (0, 1, 16)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("looks", [False, True])
def test_packed_texts_are_each_text_alone(decoder, ids, images, looks, first_only, close):
    model = decoder.bert
    mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
    memory = model.project(images) if looks else None
    packed = model(ids, mask, memory, packing=Packing.of(LENGTHS, WIDTH, CPU), first_only=first_only).flatten(0, 1)
    alone = torch.cat(
        [
            model(ids[i : i + 1, :length], memory=model.project(images[i : i + 1]) if looks else None)[0]
            for i, length in enumerate(LENGTHS)
        ]
    )
    if first_only:
        starts = torch.tensor([0, *LENGTHS[:-1]]).cumsum(0)
        alone = alone[starts]
    close(packed, alone)
    weights = torch.randn_like(alone)
    same_gradients(model, (packed * weights).sum(), (alone * weights).sum())


def test_some_texts_may_keep_their_padding(decoder, ids, images, close):
    model = decoder.bert
    mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
    kept = [4, 7, WIDTH, 7, WIDTH, 5]  # as of texts whose length is not known
    memory = model.project(images)
    packed = model(ids, mask, memory, packing=Packing.of(kept, WIDTH, CPU), first_only=True)
    close(packed, model(ids, mask, memory, first_only=True))


def test_the_last_texts_attend_to_images_of_their_own(decoder, ids, images, close):
    model = decoder.bert
    mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
    packing = Packing.of(LENGTHS, WIDTH, CPU)
    drawn = torch.tensor([1, 1])
    shared = model.project(images[:2])  # two texts each, then one text to each of those drawn
    states = model(ids, mask, shared, memory_of_last=shared.select(drawn), packing=packing, first_only=True)
    rows = images[torch.tensor([0, 0, 1, 1, 1, 1])]
    padded = model(ids, mask, model.project(rows))[:, :1]
    close(states, padded)
    weights = torch.randn_like(padded)
    same_gradients(model, (states * weights).sum(), (padded * weights).sum())


@pytest.mark.parametrize("unscored", [1, 4])
def test_losses_of_packed_texts_are_the_textbooks(decoder, ids, images, unscored, close):
    labels = torch.stack([torch.where(torch.arange(WIDTH) < n, row, -100) for n, row in zip(LENGTHS, ids, strict=True)])
    labels[:, :unscored] = -100
    memory = decoder.project(images)
    losses = decoder.token_losses(ids, labels, memory, lengths=LENGTHS, unscored=unscored)
    logits = decoder.logits(decoder.bert(ids, memory=decoder.project(images), causal=True))
    textbook = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", label_smoothing=0.1, ignore_index=-100
    )
    close(losses, textbook)
    mean = decoder.mean_loss(ids, labels, memory, lengths=LENGTHS, unscored=unscored)
    scored = labels[:, 1:] != -100
    close(mean, textbook[scored].mean())
    same_gradients(decoder, mean, textbook[scored].mean())


def test_each_packed_token_has_a_dropout_of_its_own(ids):
    torch.manual_seed(0)
    config = TextConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, hidden_dropout_prob=0.5
    )
    model = TextModel(config, VOCABULARY, cross_attentions=0).train()
    packing = Packing.of([WIDTH] * 6, WIDTH, CPU)
    embedded = model.embeddings(torch.ones_like(packing.pack(ids)), torch.zeros_like(packing.places)[None])[0]
    dropped = embedded == 0  # equal tokens at equal positions, 42 of them
    assert len(dropped.unique(dim=0)) == 42
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.05)
