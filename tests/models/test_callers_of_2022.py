"""Programs that were written for the code of 2022 run on ours, and get the numbers that they got then.

Each test calls as programs of its kind do: the project's own notebooks and predictors, captioning tools for training
data and web interfaces, scorers and rankers that reach into a model, forks that build networks of the parts.
"""

import importlib

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from models import names_2022
from models.blip import BLIP_Base, BLIP_Decoder, blip_decoder, create_vit, init_tokenizer, is_url, load_checkpoint
from models.blip_itm import BLIP_ITM, blip_itm
from models.blip_nlvr import BLIP_NLVR, blip_nlvr
from models.blip_pretrain import BLIP_Pretrain, blip_pretrain
from models.blip_retrieval import BLIP_Retrieval, blip_retrieval
from models.blip_vqa import BLIP_VQA, blip_vqa
from models.errors import ConfigError
from models.med import BertConfig, BertLMHeadModel, BertModel, TextDecoder, TextModel
from models.vit import interpolate_pos_embed

pytestmark = pytest.mark.filterwarnings("ignore:models.blip.load_checkpoint")
cpu = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def captioner(golden, tiny):
    return blip_decoder(pretrained=str(golden("caption/checkpoint.pth")), **tiny).eval()


@pytest.fixture(scope="module")
def ranker(golden, tiny):
    return blip_retrieval(
        pretrained=str(golden("retrieval/checkpoint.pth")), embed_dim=16, queue_size=12, **tiny
    ).eval()


@pytest.fixture(scope="module")
def answerer(golden, tiny):
    return blip_vqa(pretrained=str(golden("vqa/checkpoint.pth")), **tiny).eval()


@pytest.fixture(scope="module")
def judge(golden, tiny):
    return blip_nlvr(pretrained=str(golden("nlvr/checkpoint.pth")), **tiny).eval()


def everywhere(states):
    """The mask of image states [B, T, D] that every program makes."""
    return torch.ones(states.size()[:-1], dtype=torch.long, device=states.device)


# Captioning tools


def test_a_captioning_tool(captioner, arrays, facts):
    expected = facts("caption/expected.json")["generate"]["beam3"]
    options = {key: expected["args"][key] for key in ("max_length", "min_length")}
    captions = captioner.generate(arrays("caption/images.npy"), sample=False, num_beams=3, **options)
    assert captions == expected["captions"]
    assert isinstance(captioner, BLIP_Decoder)
    assert captioner.prompt == "a picture of "
    assert captioner.prompt_length == 4


def test_a_web_interface_with_half_precision_and_its_own_copy_of_the_configuration(golden, tiny, arrays):
    model = blip_decoder(
        pretrained=str(golden("caption/checkpoint.pth")),
        image_size=tiny["image_size"],
        vit=tiny["vit"],
        med_config=str(tiny["med_config"]),
    )
    model.eval()
    model = model.half().to(cpu)
    image = arrays("caption/images.npy")[:1].type(torch.float16)
    caption = model.generate(image, sample=False, num_beams=1, min_length=5, max_length=24)
    assert len(caption) == 1
    assert isinstance(caption[0], str)


def test_a_tool_that_samples(captioner, arrays):
    torch.manual_seed(0)
    images = arrays("caption/images.npy")
    assert len(captioner.generate(images, sample=True, top_p=0.9, max_length=12, min_length=5)) == len(images)


def test_constructors_by_position(golden, tiny, arrays, close):
    vit, size, text = tiny["vit"], tiny["image_size"], str(tiny["med_config"])
    assert BLIP_Decoder(text, size, vit, False, 0, "a photo of ").prompt == "a photo of "
    assert BLIP_Base(text, size, vit, False, 0).visual_encoder.image_size == size
    assert BLIP_ITM(text, size, vit, False, 0, 16).vision_proj.out_features == 16
    assert BLIP_VQA(text, size, vit, False, 0).visual_encoder.image_size == size
    assert BLIP_NLVR(text, size, vit, False, 0).cls_head[2].out_features == 2
    retrieval = BLIP_Retrieval(text, size, vit, False, 0, 16, 12, 0.9, True)
    assert (retrieval.queue_size, retrieval.momentum, retrieval.negative_all_rank) == (12, 0.9, True)
    pretrain = BLIP_Pretrain(text, size, vit, False, 0, 16, 12, 0.9)
    assert (pretrain.queue_size, pretrain.momentum) == (12, 0.9)


# Notebooks


def test_a_notebook_of_features_and_matching(golden, tiny, arrays, facts, close):
    images, texts, expected = arrays("itm/images.npy"), facts("itm/texts.json"), arrays("itm/expected.npz")
    model = blip_itm(pretrained=str(golden("retrieval/checkpoint.pth")), embed_dim=16, **tiny)
    model.eval()
    model = model.to(device="cpu")
    itm_output = model(images, texts["captions"], match_head="itm")
    close(F.softmax(itm_output, dim=1)[:, 1], expected["itm_pairs"].softmax(dim=1)[:, 1])
    close(model(images, texts["captions"], match_head="itc"), expected["itc"])


# Scorers and rankers that reach inside


def test_a_reward_model_reads_the_first_state_of_text_and_image(golden, tiny, arrays, facts, close):
    images, captions = arrays("itm/images.npy"), facts("itm/texts.json")["captions"]
    model = blip_itm(pretrained=str(golden("retrieval/checkpoint.pth")), embed_dim=16, **tiny).eval()
    tokens = model.tokenizer(captions, padding="max_length", truncation=True, max_length=35, return_tensors="pt").to(
        cpu
    )
    image_embeds = model.visual_encoder(images)
    output = model.text_encoder(
        tokens.input_ids,
        attention_mask=tokens.attention_mask,
        encoder_hidden_states=image_embeds,
        encoder_attention_mask=everywhere(image_embeds),
        return_dict=True,
    )
    logits = arrays("itm/expected.npz")["itm_pairs"]
    close(model.itm_head(output.last_hidden_state[:, 0, :]), logits)
    close(model.itm_head(output[0][:, 0, :]), logits)


def test_the_evaluation_of_retrieval(ranker, arrays, facts, close):
    """Embeddings of texts and images, and for each image the k most similar texts, matched one image at a time."""
    expected, texts = arrays("retrieval/expected_eval.npz"), facts("retrieval/expected_eval.json")["texts"]
    tokens = ranker.tokenizer(texts, padding="max_length", truncation=True, max_length=35, return_tensors="pt").to(cpu)
    output = ranker.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask, mode="text")
    text_embeds = F.normalize(ranker.text_proj(output.last_hidden_state[:, 0, :]), dim=-1)
    close(text_embeds, expected["text_embeds"])
    image_feats = ranker.visual_encoder(arrays("retrieval/eval_images.npy"))
    image_embeds = F.normalize(ranker.vision_proj(image_feats[:, 0, :]), dim=-1)
    close(image_embeds, expected["image_embeds"])

    text_ids = tokens.input_ids
    text_ids[:, 0] = ranker.tokenizer.enc_token_id
    sims = image_embeds @ text_embeds.t()
    for k in (4, 6):
        to_text, to_image = torch.full(sims.shape, -100.0), torch.full(sims.t().shape, -100.0)
        for i, row in enumerate(sims):
            values, chosen = row.topk(k=k, dim=0)
            encoder_output = image_feats[i].repeat(k, 1, 1)
            to_text[i, chosen] = values + match(ranker, text_ids[chosen], tokens.attention_mask[chosen], encoder_output)
        for i, row in enumerate(sims.t()):
            values, chosen = row.topk(k=k, dim=0)
            ids, mask = text_ids[i].repeat(k, 1), tokens.attention_mask[i].repeat(k, 1)
            to_image[i, chosen] = values + match(ranker, ids, mask, image_feats[chosen])
        close(to_text, expected[f"score_i2t_k{k}"])
        close(to_image, expected[f"score_t2i_k{k}"])


def match(model, ids, mask, image_feats):
    output = model.text_encoder(
        ids,
        attention_mask=mask,
        encoder_hidden_states=image_feats,
        encoder_attention_mask=everywhere(image_feats),
        return_dict=True,
    )
    return model.itm_head(output.last_hidden_state[:, 0, :])[:, 1]


# Captions scored by their loss


def test_a_scorer_of_captions(captioner, arrays, facts, close):
    captions, losses = facts("caption/inputs.json")["captions"], facts("caption/expected.json")["loss"]
    image_embeds = captioner.visual_encoder(arrays("caption/images.npy"))
    text = captioner.tokenizer(captions, padding="longest", truncation=True, max_length=40, return_tensors="pt").to(cpu)
    text.input_ids[:, 0] = captioner.tokenizer.bos_token_id
    targets = text.input_ids.masked_fill(text.input_ids == captioner.tokenizer.pad_token_id, -100)
    targets[:, : captioner.prompt_length] = -100
    output = captioner.text_decoder(
        text.input_ids,
        attention_mask=text.attention_mask,
        encoder_hidden_states=image_embeds,
        encoder_attention_mask=everywhere(image_embeds),
        labels=targets,
        return_dict=True,
    )
    close(output.loss, torch.tensor(losses["captions"]))
    expected, mask = arrays("caption/expected_logits.npz"), text.attention_mask.bool()
    # Logits reach 14, and the recorded ones are themselves 1.4e-5 away from those of float64.
    close(output.logits[..., expected["vocab_columns"]][mask], expected["logits"][mask], atol=2e-5)
    close(output.logits.logsumexp(-1)[mask], expected["logsumexp"][mask])


def test_the_language_model_loss_of_pre_training(golden, tiny, arrays, facts, close):
    model = blip_pretrain(str(golden("pretrain/checkpoint.pth")), embed_dim=16, queue_size=12, **tiny).eval()
    captions = facts("pretrain/inputs.json")["captions_step1"]
    image_embeds = model.visual_encoder(arrays("pretrain/images_step1.npy"))
    text = model.tokenizer(captions, padding="max_length", truncation=True, max_length=30, return_tensors="pt")
    ids = text.input_ids.clone()
    ids[:, 0] = model.tokenizer.bos_token_id
    output = model.text_decoder(
        ids,
        attention_mask=text.attention_mask,
        encoder_hidden_states=image_embeds,
        encoder_attention_mask=everywhere(image_embeds),
        labels=ids.masked_fill(ids == model.tokenizer.pad_token_id, -100),
        return_dict=True,
    )
    close(output.loss, torch.tensor(facts("pretrain/expected.json")["step1"]["losses"]["loss_lm"]))


# Question answering and NLVR2 by their parts


def test_the_ranking_of_answers(answerer, arrays, facts, close):
    expected, inputs = arrays("vqa/expected.npz"), facts("vqa/inputs.json")
    image_embeds = answerer.visual_encoder(arrays("vqa/images.npy"))
    question = answerer.tokenizer(
        inputs["questions"], padding="longest", truncation=True, max_length=35, return_tensors="pt"
    )
    question.input_ids[:, 0] = answerer.tokenizer.enc_token_id
    states = answerer.text_encoder(
        question.input_ids,
        attention_mask=question.attention_mask,
        encoder_hidden_states=image_embeds,
        encoder_attention_mask=everywhere(image_embeds),
        return_dict=True,
    ).last_hidden_state
    close(states, expected["question_states"])

    answers = answerer.tokenizer(inputs["answer_list"], padding="longest", return_tensors="pt")
    answers.input_ids[:, 0] = answerer.tokenizer.bos_token_id
    start = answers.input_ids[0, 0].repeat(3, 1)
    first = answerer.text_decoder(
        start,
        encoder_hidden_states=states,
        encoder_attention_mask=question.attention_mask,
        return_dict=True,
        reduction="none",
    )
    probability = F.softmax(first.logits[:, 0, :], dim=1).index_select(dim=1, index=answers.input_ids[:, 1])
    close(probability, expected["first_token_prob"])
    k = 8
    _, chosen = probability.topk(k, dim=1)
    ids = torch.cat([answers.input_ids.index_select(dim=0, index=row) for row in chosen])
    mask = torch.cat([answers.attention_mask.index_select(dim=0, index=row) for row in chosen])
    output = answerer.text_decoder(
        ids,
        attention_mask=mask,
        encoder_hidden_states=states.repeat_interleave(k, dim=0),
        encoder_attention_mask=question.attention_mask.repeat_interleave(k, dim=0),
        labels=ids.masked_fill(ids == answerer.tokenizer.pad_token_id, -100),
        return_dict=True,
        reduction="none",
    )
    scores = -output.loss.view(3, k)
    assert torch.equal(chosen, expected["topk_ids_k8"])
    close(scores, expected["log_probs_sum_k8"], atol=5e-5)
    best = chosen.gather(1, scores.argmax(dim=1, keepdim=True)).flatten()
    assert best.tolist() == facts("vqa/expected.json")["rank_k8"]["max_ids"]


@pytest.mark.parametrize("form", ["finetuned", "pretrain_form"])
def test_a_judge_of_two_images(form, judge, golden, tiny, arrays, facts, close):
    model = judge
    if form == "pretrain_form":
        model = blip_nlvr(str(golden("pretrain/checkpoint.pth")), **tiny).eval()
        model.load_state_dict(load_file(golden("nlvr/pretrain_form_uninitialised.safetensors")), strict=False)
    sentences = facts("nlvr/inputs.json")["sentences"]
    image_embeds = model.visual_encoder(arrays("nlvr/images.npy"))
    image_atts = everywhere(image_embeds)
    image0, image1 = torch.split(image_embeds, len(sentences))
    text = model.tokenizer(sentences, padding="longest", return_tensors="pt").to(cpu)
    text.input_ids[:, 0] = model.tokenizer.enc_token_id
    output = model.text_encoder(
        text.input_ids,
        attention_mask=text.attention_mask,
        encoder_hidden_states=[image0, image1],
        encoder_attention_mask=[image_atts[: len(image0)], image_atts[len(image0) :]],
        return_dict=True,
    )
    close(model.cls_head(output.last_hidden_state[:, 0, :]), arrays("nlvr/expected.npz")[f"{form}_logits"])


# Forks that build a network of their own from the parts


class Fork(nn.Module):
    """Encoder and decoder around one image encoder, made of the parts that the 2022 modules offered."""

    def __init__(self, med_config, vit, image_size):
        super().__init__()
        self.visual_encoder, vision_width = create_vit(vit, image_size, use_grad_checkpointing=False, ckpt_layer=0)
        self.tokenizer = init_tokenizer()
        med_config = BertConfig.from_json_file(med_config)
        med_config.encoder_width = vision_width
        self.text_encoder = BertModel(config=med_config, add_pooling_layer=False)
        self.text_decoder = BertLMHeadModel(config=med_config)
        self.text_encoder.resize_token_embeddings(len(self.tokenizer))
        self.text_decoder.resize_token_embeddings(len(self.tokenizer))


@pytest.fixture
def fork(golden, tiny):
    model = Fork(str(tiny["med_config"]), tiny["vit"], tiny["image_size"])
    model, msg = load_checkpoint(model, str(golden("pretrain/checkpoint.pth")))
    assert msg.missing_keys == []
    return model.eval()


def test_a_fork_made_of_the_parts_has_the_features_of_texts_and_pairs(fork, arrays, facts, close):
    images, captions = arrays("features/images.npy"), facts("features/texts.json")["captions"]
    expected, image_embeds = arrays("features/expected.npz"), fork.visual_encoder(images)
    close(image_embeds, expected["image"])
    for j, caption in enumerate(captions):
        text = fork.tokenizer(caption, return_tensors="pt").to(cpu)
        output = fork.text_encoder(text.input_ids, attention_mask=text.attention_mask, return_dict=True, mode="text")
        close(output.last_hidden_state, expected[f"text_{j}"])
        text.input_ids[:, 0] = fork.tokenizer.enc_token_id
        for i in range(3):
            output = fork.text_encoder(
                text.input_ids,
                attention_mask=text.attention_mask,
                encoder_hidden_states=image_embeds[i : i + 1],
                encoder_attention_mask=everywhere(image_embeds[i : i + 1]),
                return_dict=True,
            )
            close(output.last_hidden_state, expected[f"multimodal_img{i}_txt{j}"])


def test_the_parts_are_our_text_models_and_pool_nothing(fork):
    assert isinstance(fork.text_encoder, TextModel)
    assert isinstance(fork.text_decoder, TextDecoder)
    assert fork.text_encoder.config.hidden_size == 32
    with pytest.raises(ConfigError, match="add_pooling_layer = True"):
        BertModel(BertConfig(), add_pooling_layer=True)


def test_an_encoder_of_text_alone_has_no_cross_attention():
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    encoder = BertModel(config=config)
    assert not any("crossattention" in name for name, _ in encoder.named_parameters())
    assert encoder(torch.ones(2, 3, dtype=torch.long), mode="text", return_dict=True)[0].shape == (2, 3, 16)


# Loading


@pytest.mark.parametrize("task", ["caption", "vqa", "feature_extractor"])
def test_loading_says_what_is_missing_and_left_over_as_in_2022(task, golden, tiny, facts):
    build = {"caption": BLIP_Decoder, "vqa": BLIP_VQA, "feature_extractor": BLIP_Base}[task]
    name = task if task == "feature_extractor" else f"{task}_model"
    recorded = facts("pretrain/loading_into_other_models.json")
    with pytest.warns(DeprecationWarning, match=r"use models\.load_checkpoint"):
        model, msg = load_checkpoint(build(**tiny), str(golden("pretrain/checkpoint.pth")))
    assert isinstance(model, build)
    assert sorted(msg.missing_keys) == sorted(recorded[f"{name}_missing"])
    if task == "caption":
        left_over = {key.split(".")[0] for key in msg.unexpected_keys if "position_ids" not in key}
        assert left_over == set(recorded["caption_model_unexpected_top"])


def test_loading_leaves_what_does_not_fit_as_it_was(golden, tiny):
    model = BLIP_ITM(**tiny, embed_dim=8)
    before = model.vision_proj.weight.clone()
    model, msg = load_checkpoint(model, str(golden("retrieval/checkpoint.pth")))
    assert set(msg.missing_keys) == {"vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias"}
    assert torch.equal(model.vision_proj.weight, before)
    stored = torch.load(golden("retrieval/checkpoint.pth"), weights_only=True)["model"]
    assert torch.equal(model.itm_head.weight, stored["itm_head.weight"])


def test_small_helpers(tiny, arrays):
    assert is_url("https://host/model.pth")
    assert not is_url("weights/model.pth")
    assert not is_url("/weights/model.pth")
    tokenizer = init_tokenizer()
    assert (tokenizer.bos_token, tokenizer.bos_token_id, tokenizer.enc_token_id) == ("[DEC]", 30522, 30523)
    encoder, width = create_vit(tiny["vit"], 96, True, 1)
    assert (width, encoder.image_size, encoder.config.checkpointed_blocks) == (48, 96, 1)
    table = torch.randn(1, 17, 48)
    assert torch.equal(interpolate_pos_embed(table, encoder), interpolate_pos_embed(table, 36))
    assert create_vit("large", 16)[0].config.drop_path_rate == 0.1


@pytest.mark.parametrize("module", ["blip", "blip_itm", "blip_nlvr", "blip_retrieval", "blip_vqa"])
def test_the_loader_of_2022_is_found_in_every_module_that_had_it(module):
    assert importlib.import_module(f"models.{module}").load_checkpoint is names_2022.load_checkpoint


def test_a_replica_of_data_parallel_knows_its_device(tiny, arrays):
    """As torch.nn.parallel.replicate makes it: parameters become plain attributes, and are not listed any more."""

    def replicate(module):
        replica = module._replicate_for_data_parallel()
        for name, parameter in module._parameters.items():
            replica._parameters.pop(name, None)
            setattr(replica, name, parameter)
        for name, child in module._modules.items():
            replica._modules[name] = replicate(child)
        return replica

    model = blip_decoder(**tiny).eval()
    images, captions = arrays("caption/images.npy"), ["a picture of a dog"] * 3
    assert torch.equal(replicate(model)(images, captions), model(images, captions))
