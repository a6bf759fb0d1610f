"""The text model: shared memory, partial last layer, cache, maps and padding change nothing but the cost."""

import pytest
import torch

from models.attention import AttentionMaps, SelfAttentionCache
from models.config import TextConfig
from models.med import TextDecoder, TextModel
from models.packing import Packing
from settings import ConfigError, MissingFile

CONFIG = TextConfig(
    hidden_size=32, num_hidden_layers=8, num_attention_heads=4, intermediate_size=64, max_position_embeddings=24
)
VOCABULARY, WIDTH = 50, 20


def randomised(model):
    """Weights large enough that every path matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return randomised(TextModel(CONFIG, VOCABULARY, WIDTH))


@pytest.fixture(scope="module")
def twin():
    return randomised(TextModel(CONFIG, VOCABULARY, WIDTH, cross_attentions=2))


@pytest.fixture(scope="module")
def decoder():
    return randomised(TextDecoder(CONFIG, VOCABULARY, WIDTH))


@pytest.fixture
def batch():
    """Six texts of 3 to 8 tokens about three images of 5 tokens."""
    torch.manual_seed(1)
    lengths = torch.tensor([8, 3, 5, 4, 8, 6])
    mask = (torch.arange(8) < lengths[:, None]).long()
    return torch.randint(1, VOCABULARY, (6, 8)) * mask, mask, torch.randn(3, 5, WIDTH)


def test_memory_by_index_equals_memory_repeated(model, batch, close):
    ids, mask, images = batch
    index = torch.tensor([2, 0, 0, 1, 2, 2])
    shared = model(ids, mask, model.project(images), index)
    repeated = model(ids, mask, model.project(images[index]))
    close(shared[mask.bool()], repeated[mask.bool()])


def test_texts_side_by_side_equal_memory_repeated(model, batch, close):
    ids, mask, images = batch
    shared = model(ids, mask, model.project(images))
    repeated = model(ids, mask, model.project(images.repeat_interleave(2, dim=0)))
    close(shared[mask.bool()], repeated[mask.bool()])


@pytest.mark.parametrize("index", [None, torch.tensor([2, 0, 0, 1, 2, 2])])
def test_gradients_through_shared_memory_equal_those_of_the_repeated_form(model, batch, index):
    ids, mask, images = batch
    gradients = []
    for shared in (True, False):
        source = images.clone().requires_grad_()
        model.zero_grad()
        rows = torch.arange(3).repeat_interleave(2) if index is None else index
        memory = model.project(source) if shared else model.project(source[rows])
        states = model(ids, mask, memory, index if shared else None)
        (states * mask[:, :, None]).square().sum().backward()
        gradients.append([source.grad, *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_the_memory_is_masked_where_its_source_is_padded(model, batch, close):
    ids, mask, images = batch
    lengths = torch.tensor([5, 2, 3])
    memory_mask = torch.arange(5) < lengths[:, None]
    index = torch.tensor([0, 1, 2, 0, 1, 2])
    masked = model(ids, mask, model.project(images, mask=memory_mask), index)
    for row in range(6):
        image = images[index[row], : lengths[index[row]]][None]
        alone = model(ids[row : row + 1, : mask[row].sum()], None, model.project(image))
        close(masked[row, : mask[row].sum()], alone[0])


def test_a_batch_equals_its_texts_one_by_one(model, batch, close):
    ids, mask, images = batch
    for looks in (False, True):
        states = model(ids, mask, model.project(images.repeat_interleave(2, dim=0)) if looks else None)
        for row in range(6):
            own = model.project(images[row // 2][None]) if looks else None
            alone = model(ids[row : row + 1, : mask[row].sum()], None, own)
            close(states[row, : mask[row].sum()], alone[0])


def test_the_partial_last_layer_equals_the_full_one(model, twin, batch, close):
    ids, mask, images = batch
    memory = model.project(images)
    close(model(ids, mask, memory, first_only=True), model(ids, mask, memory)[:, :1])
    close(model(ids, mask, first_only=True), model(ids, mask)[:, :1])
    memory = twin.project(images, images.flip(0))
    close(twin(ids, mask, memory, first_only=True), twin(ids, mask, memory)[:, :1])


def test_two_images_are_averaged_in_early_layers_and_merged_in_late_ones(twin):
    has_merge = [layer.crossattention.output.merge_layer is not None for layer in twin.layers]
    assert has_merge == [False] * 6 + [True] * 2


def test_decoding_with_a_cache_equals_decoding_anew(decoder, batch, close):
    ids, _, images = batch
    ids = ids.clamp(min=1)
    memory = decoder.project(images)
    full = decoder.bert(ids, memory=memory, causal=True)
    cache = SelfAttentionCache(8, max_length=8)
    steps = [decoder.bert(ids[:, :3], memory=memory, causal=True, cache=cache)]
    steps += [decoder.bert(ids[:, i : i + 1], memory=memory, causal=True, cache=cache) for i in range(3, 8)]
    close(torch.cat(steps, dim=1), full)


@pytest.mark.parametrize("chunks", [(3, 5), (1, 4, 3), (2, 2, 1, 3)])
def test_several_tokens_after_cached_ones_see_those_and_their_own_past(decoder, batch, close, chunks):
    ids, mask, images = batch
    ids, memory = ids.clamp(min=1), decoder.project(images)
    cache = SelfAttentionCache(8, max_length=8)
    states = [
        decoder.bert(chunk, mask, memory, causal=True, cache=cache, maps=maps)
        for chunk, maps in zip(ids.split(chunks, dim=1), [None, AttentionMaps(), None, None], strict=False)
    ]
    close(torch.cat(states, dim=1), decoder.bert(ids, memory=memory, causal=True), atol=2e-5)


def test_a_cache_of_packed_texts_is_refused(decoder, batch):
    ids, _, images = batch
    packing = Packing.of([8] * 6, 8, torch.device("cpu"))
    with pytest.raises(ValueError, match="give either cache or packing"):
        decoder.bert(ids, memory=decoder.project(images), cache=SelfAttentionCache(8, 8), packing=packing)


def test_a_cache_can_be_repeated_and_reordered(decoder, batch, close):
    ids, _, images = batch
    ids = ids[:3].clamp(min=1)
    memory = decoder.project(images)
    cache = SelfAttentionCache(8, max_length=8)
    decoder.bert(ids[:, :4], memory=memory, causal=True, cache=cache)
    cache.repeat(2)
    rows = torch.tensor([1, 0, 3, 3, 4, 5])  # within each image
    cache.reorder(rows)
    token = torch.tensor([[7], [8], [9], [10], [11], [12]])
    step = decoder.bert(token, memory=memory, causal=True, cache=cache)
    anew = torch.cat([ids[:, :4].repeat_interleave(2, dim=0)[rows], token], dim=1)
    close(step, decoder.bert(anew, memory=memory, causal=True)[:, -1:])


def test_a_token_does_not_see_what_follows(decoder, batch, close):
    ids, _, images = batch
    memory = decoder.project(images)
    changed = ids.clone()
    changed[:, 5:] = 3
    close(
        decoder.bert(ids, memory=memory, causal=True)[:, :5], decoder.bert(changed, memory=memory, causal=True)[:, :5]
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention_maps_come_from_the_same_computation(model, batch, close, causal):
    ids, mask, images = batch
    memory, maps = model.project(images), AttentionMaps()
    states = model(ids, mask, memory, causal=causal, maps=maps)
    tokens = mask.bool()
    close(states[tokens], model(ids, mask, memory, causal=causal)[tokens], atol=2e-5)
    assert len(maps.self_attention) == len(maps.cross_attention) == 8
    for own, (cross,) in zip(maps.self_attention, maps.cross_attention, strict=True):
        assert own.shape == (6, 4, 8, 8)
        assert cross.shape == (6, 4, 8, 5)
        close(own.sum(dim=-1), torch.ones(6, 4, 8))
        close(cross.sum(dim=-1), torch.ones(6, 4, 8))
        hidden_from_view = torch.ones(8, 8).triu(1).bool() if causal else ~tokens[:, None, None, :].expand(6, 4, 8, 8)
        assert not own[hidden_from_view.expand(6, 4, 8, 8)].any()


def test_attention_maps_take_part_in_the_gradient(model, batch):
    ids, mask, images = batch
    maps = AttentionMaps()
    states = model(ids, mask, model.project(images), maps=maps)
    (gradient,) = torch.autograd.grad(states[:, 0].sum(), maps.cross_attention[-1])
    assert gradient.abs().sum() > 0


def test_two_images_give_two_maps(twin, batch):
    ids, mask, images = batch
    maps = AttentionMaps()
    twin(ids, mask, twin.project(images, images), maps=maps)
    assert [len(layer) for layer in maps.cross_attention] == [2] * 8


def test_token_losses_are_the_smoothed_cross_entropy_of_the_next_token(decoder, batch, close):
    ids, mask, images = batch
    memory = decoder.project(images)
    labels = ids.masked_fill(mask == 0, -100)
    losses = decoder.token_losses(ids, labels, memory, label_smoothing=0.1)
    log_probs = decoder.logits(decoder.bert(ids, memory=memory, causal=True)).log_softmax(dim=-1)
    for row in range(6):
        for position in range(7):
            target = labels[row, position + 1]
            expected = 0.0
            if target != -100:
                next_token = log_probs[row, position]
                expected = -(0.9 * next_token[target] + 0.1 * next_token.mean()).item()
            assert losses[row, position].item() == pytest.approx(expected, abs=1e-4)
    close(decoder.mean_loss(ids, labels, memory), losses.sum() / (labels[:, 1:] != -100).sum())


def test_mixed_precision_stays_near_full_precision(model, batch):
    ids, mask, images = batch
    full = model(ids, mask, model.project(images), first_only=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(ids, mask, model.project(images), first_only=True)
    assert torch.nn.functional.cosine_similarity(full.flatten(), half.float().flatten(), dim=0) > 0.999


def test_a_text_longer_than_the_positions_is_an_error(model):
    with pytest.raises(ValueError, match="a text of 25 tokens exceeds the 24 positions"):
        model(torch.ones(1, 25, dtype=torch.long))


def test_configurations_that_do_not_fit_are_errors(tmp_path):
    for values, message in (
        (
            {"hidden_size": 30, "num_attention_heads": 4},
            "hidden_size = 30: must be a multiple of num_attention_heads = 4",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0: must be at least 1"),
        ({"hidden_size": "128"}, "hidden_size = 128: must be a whole number"),
        ({"layer_norm_eps": None}, "layer_norm_eps = None: must be a number"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob = 1.5: must be from 0 to below 1"),
        ({"hidden_act": "gelu_new"}, "hidden_act = gelu_new: must be 'gelu'"),
    ):
        with pytest.raises(ConfigError, match=f"^med_config: {message}"):
            TextConfig.read(values)
    with pytest.raises(MissingFile, match="absent.json does not exist"):
        TextConfig.read(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[768]")
    with pytest.raises(ConfigError, match="list.json holds a list, where BERT's sizes by name are expected"):
        TextConfig.read(tmp_path / "list.json")
    (tmp_path / "cut.json").write_text('{"hidden_size": 3')
    with pytest.raises(ConfigError, match="cut.json is not JSON"):
        TextConfig.read(tmp_path / "cut.json")


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_packed_texts_of_one_image_equal_single_ones(close, layers, masked):
    torch.manual_seed(0)
    config = TextConfig(hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64)
    model = TextModel(config, vocabulary=100, source_width=24).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    lengths = [4, 4, 9, 5, 9]
    ids = torch.randint(1, 100, (5, 9))
    padded = torch.arange(9) < torch.tensor(lengths)[:, None]
    mask = torch.arange(7)[None] < 5 if masked else None
    with torch.no_grad():
        memory = model.project(torch.randn(1, 7, 24), mask=mask)
        packing = Packing.of(lengths, 9, torch.device("cpu"))
        packed = model(ids, padded, memory, packing=packing, first_only=True)
        single = [model(row[None, :n], memory=memory, first_only=True) for row, n in zip(ids, lengths, strict=True)]
    close(packed, torch.cat(single))
