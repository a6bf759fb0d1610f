"""Captioning and feature extraction agree with the 2022 code."""

from types import SimpleNamespace

import pytest
import torch

from models.blip import blip_decoder, blip_feature_extractor
from models.generation import SearchOptions


@pytest.fixture(scope="module")
def decoder(golden, tiny):
    return blip_decoder(str(golden("caption/checkpoint.pth")), **tiny).eval()


@pytest.fixture(scope="module")
def promptless(golden, tiny):
    return blip_decoder(str(golden("caption/checkpoint.pth")), prompt="", **tiny).eval()


@pytest.fixture(scope="module")
def extractor(golden, tiny):
    return blip_feature_extractor(str(golden("pretrain/checkpoint.pth")), **tiny).eval()


def test_caption_losses(decoder, promptless, arrays, facts, close):
    images, inputs, losses = (
        arrays("caption/images.npy"),
        facts("caption/inputs.json"),
        facts("caption/expected.json")["loss"],
    )
    for name in ("captions", "captions_with_truncation"):
        close(decoder(images, inputs[name]), torch.tensor(losses[name]))
    close(decoder(images[:1], inputs["captions"][:1]), torch.tensor(losses["single_first_pair"]))
    loss = promptless(images, inputs["captions_no_prompt"])
    close(loss, torch.tensor(losses["empty_prompt_model_captions_no_prompt"]))


def test_caption_gradients(decoder, arrays, facts, golden, check_gradients):
    decoder.zero_grad()
    decoder(arrays("caption/images.npy"), facts("caption/inputs.json")["captions"]).backward()
    norms = facts("caption/expected.json")["grad_l2_for_loss_captions"]
    check_gradients(decoder, norms, golden("caption/expected_grads.safetensors"))
    rows = arrays("caption/expected_word_embedding_grad_rows.npz")
    grad = decoder.text_decoder.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(grad[rows["row_ids"]], rows["rows"], rtol=1e-4, atol=1e-5)
    decoder.zero_grad()


def test_teacher_forced_logits(decoder, arrays, close):
    expected = arrays("caption/expected_logits.npz")
    embeds = decoder.visual_encoder(arrays("caption/images.npy"))
    close(embeds, expected["image_embeds"])
    ids, mask = expected["input_ids"], expected["attention_mask"].bool()
    states = decoder.text_decoder.bert(ids, memory=decoder.text_decoder.project(embeds), causal=True)
    logits = decoder.text_decoder.logits(states)
    # Logits reach 14, and the recorded ones are themselves 1.4e-5 away from those of float64.
    close(logits[..., expected["vocab_columns"]][mask], expected["logits"][mask], atol=2e-5)
    close(logits.logsumexp(-1)[mask], expected["logsumexp"][mask])


def token_ids(generated, like):
    """The generated ids [B * n, T], padded or trimmed (of padding only) to the length of the recorded rows."""
    length = len(like[0])
    ids = generated.ids.flatten(0, 1)
    assert not ids[:, length:].any()
    return torch.nn.functional.pad(ids[:, :length], (0, length - min(length, ids.shape[1]))).tolist()


SEARCHES = [
    "beam3",
    "greedy",
    "beam5_rep1_3",
    "beam3_rep1_1",
    "greedy_rep1_3",
    "beam3_default_lengths",
    "beam2_min1_max8",
]


@pytest.mark.parametrize("name", [*SEARCHES, "nucleus_top_p_1e_6"])
def test_generated_tokens_and_captions(decoder, arrays, facts, name):
    images, expected = arrays("caption/images.npy"), facts("caption/expected.json")["generate"][name]
    captions, generated = decoder.generate_n_best(images, SearchOptions(**expected["args"]))
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]
    assert [texts[0] for texts in captions] == expected["captions"] == decoder.generate(images, **expected["args"])


@pytest.mark.parametrize("name", ["beam3", "beam5_rep1_3", "beam3_rep1_1"])
def test_beam_scores_count_the_prompt(decoder, arrays, facts, name):
    expected = facts("caption/expected_beam.json")["generate"][name]
    captions, generated = decoder.generate_n_best(arrays("caption/images_beam.npy"), SearchOptions(**expected["args"]))
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]
    assert [texts[0] for texts in captions] == expected["captions"]


@pytest.mark.parametrize("name", ["empty_prompt_beam3", "empty_prompt_greedy"])
def test_generation_without_a_prompt(promptless, arrays, facts, name):
    expected = facts("caption/expected.json")["generate"][name]
    captions, generated = promptless.generate_n_best(arrays("caption/images.npy"), SearchOptions(**expected["args"]))
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]
    assert [texts[0] for texts in captions] == expected["captions"]


@pytest.mark.parametrize("prompt", ["a close-up of ", "a picture of ", "(it's) a photo: ", ""])
def test_a_prompt_that_the_tokenizer_spaces_in_its_own_way_is_cut_off_whole(tiny, monkeypatch, prompt):
    model = blip_decoder(prompt=prompt, **tiny).eval()
    written = [model.tokenizer.dec_token_id, *model.tokenizer(f"{prompt}two dogs").input_ids[1:]]
    generated = SimpleNamespace(ids=torch.tensor([[written]]))
    monkeypatch.setattr("models.blip.generate", lambda *_, **__: generated)
    side = model.visual_encoder.image_size
    assert model.generate(torch.zeros(1, 3, side, side)) == ["two dogs"]


def test_a_prompt_is_the_same_with_and_without_a_last_blank(decoder, golden, tiny, arrays):
    cut = blip_decoder(str(golden("caption/checkpoint.pth")), prompt=decoder.prompt.rstrip(), **tiny).eval()
    assert cut.prompt != decoder.prompt
    assert cut.prompt_ids == decoder.prompt_ids
    image = arrays("caption/images.npy")
    assert cut.generate(image) == decoder.generate(image)


def test_a_single_image(decoder, arrays, facts):
    expected = facts("caption/expected.json")["generate"]["beam3_single_image_1"]
    _, generated = decoder.generate_n_best(arrays("caption/images.npy")[1:2], SearchOptions(**expected["args"]))
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]


def test_the_three_best_beams_and_their_scores(decoder, arrays, facts, close):
    generate = facts("caption/expected.json")["generate"]
    expected = generate["beam3_all_returned"]
    _, generated = decoder.generate_n_best(
        arrays("caption/images.npy"), SearchOptions(num_return_sequences=3, **generate["beam3"]["args"])
    )
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]
    close(generated.scores.flatten(), torch.tensor(expected["sequences_scores"]))


@pytest.mark.parametrize("top_p", [0.9, 0.3])
def test_the_nucleus_of_every_step(decoder, arrays, facts, close, monkeypatch, top_p):
    drawn_from = []

    def most_probable(weights, number):
        drawn_from.append(weights)
        return weights.argmax(dim=1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", most_probable)
    name = f"top_p_{top_p}".replace(".", "_")
    expected = facts("caption/expected.json")["generate"][f"nucleus_{name}_argmax"]
    _, generated = decoder.generate_n_best(arrays("caption/images.npy"), SearchOptions(**expected["args"]))
    assert token_ids(generated, expected["token_ids"]) == expected["token_ids"]
    steps = facts("caption/expected_nucleus_distributions.json")[name]
    assert len(drawn_from) == len(steps)
    ended = torch.zeros(3, dtype=torch.bool)
    for step, (weights, rows) in enumerate(zip(drawn_from, steps, strict=True)):
        for i, row in enumerate(rows):
            if not ended[i]:
                assert weights[i].nonzero().flatten().tolist() == sorted(row["ids"])
                close(weights[i][row["ids"]], torch.tensor(row["probs"]))
        ended |= generated.ids[:, 0, 4 + step] == 102


def test_features_of_texts_and_images(extractor, arrays, facts, close):
    images, texts, expected = (
        arrays("features/images.npy"),
        facts("features/texts.json"),
        arrays("features/expected.npz"),
    )
    close(extractor(images, None, mode="image"), expected["image"])
    for j, caption in enumerate(texts["captions"]):
        close(extractor(None, [caption], mode="text"), expected[f"text_{j}"])
        for i in range(3):
            states = extractor(images[i : i + 1], [caption], mode="multimodal")
            close(states, expected[f"multimodal_img{i}_txt{j}"])
    close(extractor(images, texts["equal_token_length_captions"], mode="text"), expected["text_equal"])
    close(extractor(images, texts["equal_token_length_captions"], mode="multimodal"), expected["multimodal_equal"])


def test_features_of_captions_of_unequal_length_equal_those_of_each_alone(extractor, arrays, facts, close):
    images, captions = arrays("features/images.npy"), facts("features/texts.json")["captions"]
    expected = arrays("features/expected.npz")
    texts, pairs = extractor(None, captions, mode="text"), extractor(images, captions, mode="multimodal")
    for i in range(3):
        length = expected[f"text_{i}"].shape[1]
        close(texts[i, :length], expected[f"text_{i}"][0])
        close(pairs[i, :length], expected[f"multimodal_img{i}_txt{i}"][0])
        assert not texts[i, length:].any()
        assert not pairs[i, length:].any()


def test_a_larger_image(golden, tiny, arrays, facts, close):
    extractor = blip_feature_extractor(str(golden("pretrain/checkpoint.pth")), **{**tiny, "image_size": 96}).eval()
    images, expected = arrays("pos_embed/images_big.npy"), arrays("pos_embed/expected_big.npz")
    close(extractor.visual_encoder.pos_embed, expected["pos_embed_after_load"])
    close(extractor(images, None, mode="image"), expected["image"])
    captions = facts("features/texts.json")["equal_token_length_captions"]
    close(extractor(images, captions[:2], mode="multimodal"), expected["multimodal_equal"])


def test_an_unknown_mode_is_an_error(extractor):
    with pytest.raises(ValueError, match="mode='itm' must be"):
        extractor(None, ["a dog"], mode="itm")


@torch.no_grad()
def test_a_text_need_not_be_in_a_list(decoder, extractor, arrays, close):
    image = arrays("features/images.npy")[:1]
    for mode in ("text", "multimodal"):
        close(extractor(image, "a dog runs", mode=mode), extractor(image, ["a dog runs"], mode=mode))
    close(decoder(image, "a picture of a dog"), decoder(image, ["a picture of a dog"]))


@torch.no_grad()
def test_one_text_is_that_of_all_images_and_one_image_that_of_all_texts(extractor, arrays, close):
    images, captions = arrays("features/images.npy"), ["a dog runs", "two cats", "the sea"]
    close(extractor(images, captions[0], "multimodal"), extractor(images, captions[:1] * 3, "multimodal"))
    same = images[:1].expand(3, -1, -1, -1)
    close(extractor(images[:1], captions, "multimodal"), extractor(same, captions, "multimodal"))


def test_texts_that_do_not_fit_the_images_are_an_error(decoder, extractor, arrays):
    images = arrays("features/images.npy")
    with pytest.raises(ValueError, match="6 texts do not fit 3 images"):
        decoder(images, ["a picture of a dog"] * 6)
    with pytest.raises(ValueError, match="2 texts do not fit 3 images"):
        extractor(images, ["a dog", "a cat"], "multimodal")


def test_no_images_give_no_captions(decoder, arrays):
    assert decoder.generate(arrays("caption/images.npy")[:0]) == []


def test_a_caption_of_nothing_but_the_prompt_costs_nothing(decoder, arrays):
    assert decoder(arrays("caption/images.npy")[:1], ["a picture of"]).isfinite()
    assert decoder(arrays("caption/images.npy")[:1], [""]).item() == 0.0


def test_a_prompt_in_place_of_the_models_own(golden, tiny, decoder, arrays):
    image = arrays("caption/images.npy")
    options = SearchOptions(num_beams=2, max_length=12, min_length=2)
    other = blip_decoder(str(golden("caption/checkpoint.pth")), prompt="there are ", **tiny).eval()
    assert decoder.generate_n_best(image, options, "there are")[0] == other.generate_n_best(image, options)[0]
    assert decoder.generate_n_best(image, options)[0] == other.generate_n_best(image, options, decoder.prompt)[0]


def test_images_of_a_memory_are_captioned_as_when_all_are(decoder, arrays):
    options = SearchOptions(num_beams=2, max_length=12, min_length=2)
    memory = decoder.text_decoder.project(decoder.visual_encoder(arrays("caption/images.npy")))
    captions = decoder.generate_from(memory, options)[0]
    chosen = decoder.generate_from(memory.select(torch.tensor([1, 0])), options)[0]
    assert chosen == [captions[1], captions[0]]
