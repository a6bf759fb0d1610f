"""Where a model looks for each word: maps of the cross-attention to a picture, and their Grad-CAM.

    maps = match_maps(matcher, image, "a cat on a sofa")
    maps.words     # ["a", "cat", "on", "a", "sofa"]
    maps.grad_cam  # [5, rows, columns]

Grad-CAM of attention is ALBEF's (arXiv 2107.07651, section 5), after arXiv 1610.02391: how much of a score s each patch
carries by way of the attention probabilities A [heads, T] to it,

    map = mean over heads of relu(A * ds/dA),

which is the mean of A * relu(ds/dA), since no probability is negative. The score is the logit of the matching head or
of NLVR2's classifier, or the log-probability of a word that a decoder writes.

The probabilities are those of the slower path that `AttentionMaps` asks for: how models run otherwise is not touched.
The calls also work under `torch.inference_mode`, and of models whose parameters are frozen. Models should be in
evaluation mode, as for any prediction.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from models.attention import AttentionMaps, Memory
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_nlvr import BLIPNLVR
from models.blip_vqa import BLIPVQA, MAX_QUESTION_LENGTH
from models.config import LONGEST_TEXT
from models.generation import SearchOptions
from models.image_text import MATCH, MAX_TEXT_LENGTH, ImageTextModel
from models.med import TextDecoder, TextModel
from models.word_maps import (
    AnswerMaps,
    WordMaps,
    by_word,
    check_layer,
    check_words,
    grad_cam,
    layer_gradients,
    token_ids,
)

SHORT_CAPTION = SearchOptions(num_beams=3, max_length=20, min_length=5)


def match_maps(
    matcher: ImageTextModel, image: Tensor, text: str, layer: int | None = None, *, against: bool = False
) -> WordMaps:
    """Show where the matching head looks for each word of a text; the score is the logit of "they match".

    Args:
        matcher: a model with a matching head, such as `BLIPMatcher`.
        image: `[1, 3, H, W]`, normalized.
        text: what is compared with the picture, of at most 35 tokens.
        layer: which layer's cross-attention, from 0; by default `default_layer`. The last one is no choice: of its
            states the head reads the first token's alone, so that what another word attends to there changes nothing.
        against: the score is the logit of "they do not match": `grad_cam` shows where a wrong word is refuted.

    Raises:
        ConfigError: no such layer, no words, too many tokens, or a text model without cross-attention.
        ValueError: several pictures or texts.
    """
    encoder, special = matcher.text_encoder, matcher.special
    layer = check_layer(encoder, layer, read_by_first_token=True)
    ids = token_ids(matcher, text, MAX_TEXT_LENGTH - 2)
    with _with_gradients():
        memory, maps = _attended(matcher, encoder, image), AttentionMaps()
        states = encoder(
            torch.tensor([[special.enc, *ids, special.sep]], device=matcher.device), None, memory, maps=maps
        )
        ((attention, gradient),) = layer_gradients(
            maps, layer, matcher.itm_head(states[:, 0])[0, 1 - MATCH if against else MATCH]
        )
    return by_word(matcher, text, ids, attention.mean(dim=1)[0, 1:-1], grad_cam(attention, gradient)[0, 1:-1])


def statement_maps(judge: BLIPNLVR, image: Tensor, text: str, layer: int | None = None) -> tuple[WordMaps, WordMaps]:
    """Show where NLVR2's model looks in both pictures; the score is the logit of its verdict, "true" or "false".

    Args:
        judge: the model.
        image: `[2, 3, H, W]`, normalized: the two pictures that the sentence is about.
        text: the sentence.
        layer: as in `match_maps`.

    Raises:
        ConfigError, ValueError: as `match_maps`.
    """
    encoder, special = judge.text_encoder, judge.special
    layer = check_layer(encoder, layer, read_by_first_token=True)
    ids = token_ids(judge, text, judge.text_config.max_position_embeddings - 2)
    with _with_gradients():
        memory, maps = _attended(judge, encoder, image, pictures=2), AttentionMaps()
        states = encoder(torch.tensor([[special.enc, *ids, special.sep]], device=judge.device), None, memory, maps=maps)
        found = layer_gradients(maps, layer, judge.cls_head(states[:, 0]).max())
    first, second = (
        by_word(judge, text, ids, attention.mean(dim=1)[0, 1:-1], grad_cam(attention, gradient)[0, 1:-1])
        for attention, gradient in found
    )
    return first, second


def caption_maps(
    captioner: BLIPDecoder,
    image: Tensor,
    caption: str | None = None,
    layer: int | None = None,
    *,
    options: SearchOptions = SHORT_CAPTION,
) -> WordMaps:
    """Show where a captioner looks as it writes each word; the score is the word's log-probability.

    A word is chosen from the state of the token before it: `attention` is that token's. `grad_cam` is summed over all
    tokens so far, since what the earlier ones have seen reaches the word through the self-attention.

    Args:
        captioner: the model. Its prompt comes first, and gets no maps.
        image: `[1, 3, H, W]`, normalized.
        caption: a caption to explain, without the prompt; by default the one that the model writes.
        layer: which layer's cross-attention, from 0; by default `default_layer`.
        options: how the model writes.

    Raises:
        ConfigError: no such layer, no words, more than 40 tokens, or a text model without cross-attention.
        ValueError: several pictures or captions.
    """
    decoder, prompt = captioner.text_decoder, captioner.prompt_ids
    layer = check_layer(decoder.bert, layer)
    with _with_gradients():
        memory, maps = _attended(captioner, decoder.bert, image), AttentionMaps()
        if caption is None:
            ends = captioner.special.sep, captioner.special.pad
            captions, generated = captioner.generate_from(memory, options)
            caption, ids = captions[0][0], generated.ids[0, 0, len(prompt) :].tolist()
            ids = check_words(captioner, caption, [token for token in ids if token not in ends])
        else:
            ids = token_ids(captioner, caption, LONGEST_TEXT - len(prompt))
        log_probs = _log_probs(decoder, [*prompt, *ids], len(prompt), memory, maps)
        ((attention, gradient),) = layer_gradients(maps, layer, log_probs.sum())
    copy = torch.arange(len(ids), device=captioner.device)
    chosen_from = attention.mean(dim=1)[copy, copy + len(prompt) - 1]
    return by_word(captioner, caption, ids, chosen_from, grad_cam(attention, gradient).sum(dim=1))


def answer_maps(
    answerer: BLIPVQA, image: Tensor, question: str, answer: str | None = None, layer: int | None = None
) -> AnswerMaps:
    """Show where an answer comes from; the score is the log-probability of a word of it, for the question's of all.

    The decoder sees the picture through the question's states alone: the maps are those of the question encoder's
    cross-attention. For a word of the answer `grad_cam` is summed over the question's tokens, and `attention` weighs
    them by the decoder's attention to each, in the mean of its layers and heads.

    Args:
        answerer: the model.
        image: `[1, 3, H, W]`, normalized.
        question: of at most 35 tokens.
        answer: an answer to explain, of at most 40 tokens; by default the one that the model writes.
        layer: which of the question encoder's layers, from 0; by default `default_layer`.

    Raises:
        ConfigError: no such layer, no words in question or answer, too many tokens, or a text model without
            cross-attention.
        ValueError: several pictures or texts.
    """
    encoder, decoder, special = answerer.text_encoder, answerer.text_decoder, answerer.special
    layer = check_layer(encoder, layer)
    asked = token_ids(answerer, question, MAX_QUESTION_LENGTH - 2)
    with _with_gradients():
        memory, maps, answering = _attended(answerer, encoder, image), AttentionMaps(), AttentionMaps()
        if answer is None:
            (answer,) = answerer.generate_answers(image, question)
        ids = token_ids(answerer, answer, LONGEST_TEXT - 1)
        copies = torch.tensor([[special.enc, *asked, special.sep]] * len(ids), device=answerer.device)
        states = encoder(copies, None, memory, maps=maps)
        log_probs = _log_probs(decoder, [special.dec, *ids], 1, decoder.project(states), answering)
        ((attention, gradient),) = layer_gradients(maps, layer, log_probs.sum())
    reading = torch.stack([one.float() for (one,) in answering.cross_attention]).detach().mean(dim=(0, 2))
    copy = torch.arange(len(ids), device=answerer.device)
    looked_at = torch.einsum("wq, wqt -> wt", reading[copy, copy], attention.mean(dim=1))
    of_all_words = grad_cam(attention[:1], gradient.sum(dim=0, keepdim=True))[0, 1:-1]
    of_answer = by_word(answerer, answer, ids, looked_at, grad_cam(attention, gradient).sum(dim=1))
    of_question = by_word(answerer, question, asked, attention.mean(dim=1)[0, 1:-1], of_all_words)
    return AnswerMaps(**vars(of_answer), question=of_question)


@contextmanager
def _with_gradients() -> Iterator[None]:
    """Record operations for gradients, wherever the caller is."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


@torch.no_grad()
def _attended(model: VisionLanguageModel, text_model: TextModel, image: Tensor, pictures: int = 1) -> Memory:
    """Keys and values of what a text attends to; the keys ask for gradients, which parameters may not do."""
    if len(model.visual_encoder.as_input(image)) != pictures:
        raise ValueError(
            f"the maps of a text are of {pictures} picture{'s' * (pictures > 1)}, and there are {len(image)}"
        )
    memory = text_model.project(*model.visual_encoder(image).chunk(pictures))
    return Memory([[(key.requires_grad_(), value) for key, value in layer] for layer in memory.layers])


def _log_probs(decoder: TextDecoder, ids: list[int], first: int, memory: Memory, maps: AttentionMaps) -> Tensor:
    """Log-probabilities [W] of the tokens from number `first` on, each in a copy of the text of its own.

    So each one's gradient by the attention, which is recorded in `maps`, is found in its copy, and one backward pass
    finds all.
    """
    tokens = torch.tensor(ids, device=decoder.bert.embeddings.word_embeddings.weight.device)
    copies = tokens[:-1].repeat(len(ids) - first, 1)
    states = decoder.bert(copies, memory=memory, causal=True, maps=maps)
    copy = torch.arange(len(copies), device=tokens.device)
    return decoder.logits(states[copy, copy + first - 1]).log_softmax(dim=1)[copy, tokens[first:]]
