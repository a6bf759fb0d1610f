"""The text models called by BERT's names give what our own calls give, and say what they cannot do."""

import pytest
import torch
import torch.nn.functional as F

from models.config import TextConfig
from models.med import TextDecoder, TextModel

CONFIG = TextConfig(
    hidden_size=32, num_hidden_layers=7, num_attention_heads=4, intermediate_size=64, max_position_embeddings=24
)
VOCABULARY, WIDTH = 50, 20


def randomized(model):
    """Weights large enough that every path matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def encoder():
    return randomized(TextModel(CONFIG, VOCABULARY, WIDTH))


@pytest.fixture
def decoder():
    return randomized(TextDecoder(CONFIG, VOCABULARY, WIDTH))


@pytest.fixture
def batch():
    """Three padded texts, their mask, and three images of 5 tokens, of which the third has 3."""
    torch.manual_seed(1)
    mask = (torch.arange(8) < torch.tensor([[8], [3], [5]])).long()
    image_mask = (torch.arange(5) < torch.tensor([[5], [5], [3]])).long()
    return torch.randint(1, VOCABULARY, (3, 8)) * mask, mask, torch.randn(3, 5, WIDTH), image_mask


def test_an_encoder_gives_the_states_of_our_own_call(encoder, batch, close):
    ids, mask, images, image_mask = batch
    multimodal = {"attention_mask": mask, "encoder_hidden_states": images, "encoder_attention_mask": image_mask}
    expected = encoder(ids, mask, encoder.project(images, mask=image_mask))
    close(encoder(ids, **multimodal).last_hidden_state, expected)
    close(encoder(ids, **multimodal, mode="multimodal")[0], expected)
    states, pooled = encoder(input_ids=ids, **multimodal, return_dict=False)
    close(states, expected)
    assert pooled is None
    close(encoder(ids, **multimodal, return_dict=True, mode="text").last_hidden_state, encoder(ids, mask))
    close(encoder(ids, mask, return_dict=True, mode="text").last_hidden_state, encoder(ids, mask))


def test_states_take_the_place_of_embedded_ids(encoder, batch, close):
    ids, mask, images, image_mask = batch
    embedded = encoder.embeddings(ids, torch.arange(8))
    given = {"attention_mask": mask, "encoder_hidden_states": images, "encoder_attention_mask": image_mask}
    close(encoder(encoder_embeds=embedded, **given)[0], encoder(ids, **given)[0])
    for start in ({}, {"input_ids": ids, "encoder_embeds": embedded}):
        with pytest.raises(ValueError, match="either input_ids or encoder_embeds"):
            encoder(**start, attention_mask=mask, mode="text")


def test_one_text_serves_all_images_and_one_image_all_texts(encoder, batch, close):
    ids, mask, images, _ = batch
    one_text = encoder(ids[:1], attention_mask=mask[:1], encoder_hidden_states=images)[0]
    close(one_text, encoder(ids[[0, 0, 0]], attention_mask=mask[[0, 0, 0]], encoder_hidden_states=images)[0])
    one_image = encoder(ids, attention_mask=mask, encoder_hidden_states=images[:1])[0]
    close(one_image, encoder(ids, attention_mask=mask, encoder_hidden_states=images[[0, 0, 0]])[0])
    with pytest.raises(ValueError, match="3 texts do not fit the states of 2 images"):
        encoder(ids, encoder_hidden_states=images[:2])


def test_who_may_look_nowhere_looks_everywhere(encoder, batch, close):
    ids, mask, images, image_mask = batch
    blind = encoder(ids, attention_mask=mask, encoder_hidden_states=images, encoder_attention_mask=image_mask * 0.0)
    close(blind[0], encoder(ids, attention_mask=mask, encoder_hidden_states=images)[0])


def test_modes_and_images_that_do_not_go_together_are_errors(encoder, batch):
    ids, mask, images, _ = batch
    with pytest.raises(ValueError, match="needs encoder_hidden_states; give mode='text'"):
        encoder(ids, attention_mask=mask, return_dict=True)
    with pytest.raises(ValueError, match="mode='fusion' must be 'text' or 'multimodal'"):
        encoder(ids, attention_mask=mask, encoder_hidden_states=images, mode="fusion")


def test_two_images_share_one_mask(batch, close):
    ids, mask, images, image_mask = batch
    twin = randomized(TextModel(CONFIG, VOCABULARY, WIDTH, cross_attentions=2))
    others = images.flip(0)
    states = twin(
        ids,
        attention_mask=mask,
        encoder_hidden_states=[images, others],
        encoder_attention_mask=[image_mask, image_mask.clone()],
    )
    close(states[0], twin(ids, mask, twin.project(images, others, mask=image_mask)))
    for masks in ([image_mask, image_mask.flip(0)], [image_mask, None]):
        with pytest.raises(ValueError, match="both images must have the same encoder_attention_mask"):
            twin(ids, encoder_hidden_states=[images, others], encoder_attention_mask=masks)


def test_hooks_see_a_call_of_either_kind_once(encoder, batch):
    ids, mask, images, _ = batch
    seen = []
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    encoder(ids, mask)
    output = encoder(ids, attention_mask=mask, encoder_hidden_states=images)
    assert len(seen) == 2
    assert seen[1] is output.last_hidden_state


def test_a_decoder_gives_logits_and_each_kind_of_loss(decoder, batch, close):
    ids, mask, images, image_mask = batch
    labels = ids.masked_fill(mask == 0, -100)
    given = {"attention_mask": mask, "encoder_hidden_states": images, "encoder_attention_mask": image_mask}
    memory = decoder.project(images, image_mask)
    losses = decoder.token_losses(ids, labels, memory)
    output = decoder(ids, **given, labels=labels, return_dict=True)
    close(output.loss, decoder.mean_loss(ids, labels, memory))
    close(output[0], output.loss)
    logits = decoder.logits(decoder.bert(ids, memory=memory, causal=True))
    close(output.logits[mask.bool()], logits[mask.bool()], atol=1e-4)
    close(decoder(ids, **given, labels=labels, reduction="none").loss, losses.sum(dim=1), atol=1e-4)
    close(decoder(ids, **given, labels=labels, reduction="sum").loss, losses.sum(), atol=1e-4)
    alone = decoder(ids, **given, return_dict=True)
    assert alone.loss is None
    assert alone[0] is alone.logits
    assert torch.equal(decoder(ids, **given, return_logits=True), output.logits[:, :-1])
    assert torch.equal(decoder(ids, **given, labels=labels, return_dict=False)[1], output.logits)


def test_a_decoder_passes_over_the_padding_of_its_text_wherever_it_stands(decoder, batch, close):
    ids, mask, images, _ = batch
    whole = decoder(ids[1:2, :3], encoder_hidden_states=images[1:2]).logits
    close(
        decoder(ids[1:2], attention_mask=mask[1:2], encoder_hidden_states=images[1:2]).logits[:, :3], whole, atol=1e-4
    )
    middle = torch.tensor([[1, 1, 0, 1]])
    logits = [
        decoder(torch.tensor([[7, 8, hidden, 9]]), attention_mask=middle, encoder_hidden_states=images[:1]).logits
        for hidden in (3, 4)
    ]
    close(logits[0][:, 3], logits[1][:, 3], atol=1e-4)
    left = torch.tensor([[0, 0, 1, 1]])
    assert decoder(torch.full((1, 4), 7), attention_mask=left, encoder_hidden_states=images[:1]).logits.isfinite().all()


def test_a_decoder_without_an_image_is_a_language_model(decoder, batch, close):
    ids, _, images, _ = batch
    logits = decoder(ids, mode="text", return_dict=True).logits
    close(logits, decoder.logits(decoder.bert(ids, causal=True)))
    looking_ahead = decoder(ids, encoder_hidden_states=images, is_decoder=False).logits
    close(looking_ahead, decoder.logits(decoder.bert(ids, memory=decoder.project(images))))


def test_gradients_reach_what_is_attended_to(decoder, batch):
    ids, mask, images, image_mask = batch
    images.requires_grad_()
    decoder(
        ids, attention_mask=mask, encoder_hidden_states=images, encoder_attention_mask=image_mask, labels=ids
    ).loss.backward()
    assert images.grad[:2].abs().amin(dim=2).min() > 0
    assert not images.grad[2, 3:].any()


@pytest.mark.parametrize("count", [VOCABULARY + 3, VOCABULARY - 3])
def test_resizing_keeps_the_rows_that_both_sizes_have(encoder, decoder, count):
    kept = min(count, VOCABULARY)
    before = encoder.embeddings.word_embeddings.weight.clone()
    assert encoder.resize_token_embeddings(count) is encoder.embeddings.word_embeddings
    words = encoder.embeddings.word_embeddings
    assert words.weight.shape == (count, 32)
    assert words.num_embeddings == count
    assert torch.equal(words.weight[:kept], before[:kept])

    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    decoder.resize_token_embeddings(count)
    after = decoder.state_dict()
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.decoder.weight"):
        assert len(after[name]) == count
        assert torch.equal(after[name][:kept], before[name][:kept])
    assert not after["cls.predictions.bias"][kept:].any()
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert decoder.cls.predictions.bias is decoder.cls.predictions.decoder.bias
    assert decoder(torch.ones(1, 2, dtype=torch.long), mode="text").logits.shape == (1, 2, count)


def test_resizing_to_the_same_size_changes_nothing(encoder, decoder):
    for model, words in ((encoder, encoder.embeddings), (decoder, decoder.bert.embeddings)):
        weight, parameters = words.word_embeddings.weight, list(model.parameters())
        assert model.resize_token_embeddings(VOCABULARY) is model.resize_token_embeddings() is words.word_embeddings
        assert words.word_embeddings.weight is weight
        assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))


def test_the_head_follows_embeddings_that_another_model_resized(encoder, decoder):
    decoder.bert.embeddings = encoder.embeddings
    encoder.resize_token_embeddings(VOCABULARY + 2)
    decoder.resize_token_embeddings(VOCABULARY + 2)
    assert decoder.cls.predictions.decoder.weight is encoder.embeddings.word_embeddings.weight
    logits = decoder(torch.tensor([[VOCABULARY + 1]]), mode="text").logits
    assert logits.shape == (1, 1, VOCABULARY + 2)
    assert F.softmax(logits, dim=-1).isfinite().all()


def test_further_arguments_of_bert_are_passed_over_where_they_ask_for_nothing(encoder, decoder, batch, close):
    ids, mask, images, _ = batch
    given = {"attention_mask": mask, "encoder_hidden_states": images}
    nothing = {"output_attentions": False, "past_key_values": None, "head_mask": None}
    close(encoder(ids, **given, **nothing)[0], encoder(ids, **given)[0])
    close(decoder(ids, **given, use_cache=False).logits, decoder(ids, **given).logits)
    for model in (encoder, decoder):
        with pytest.raises(TypeError, match="output_attentions=True is not offered"):
            model(ids, **given, output_attentions=True)
