"""Generated captions, ranked answers and matching scores."""

import torch
from torch import Tensor

from benchmarks.textbook.text import Past, padded_tokens, text_states, token_logits
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SAMPLING_REPETITION_PENALTY
from models.image_text import MATCH, MAX_TEXT_LENGTH
from models.med import TextDecoder

SMOOTHING = 0.1  # of the labels, by which answers are ranked


def beam_search(model: BLIPDecoder, image: Tensor, beams: int, length: int) -> Tensor:
    """The best text of exactly `length` tokens about each image [B, 3, H, W] -> ids [B, length].

    Each image's states are repeated for its beams, and projected to keys and values in every layer and step. No text
    ends before `length`, so there are no finished texts to keep.
    """
    images = model.visual_encoder(image).repeat_interleave(beams, dim=0)
    ids = torch.tensor([model.prompt_ids] * len(images), device=image.device)
    scores = torch.full((len(image), beams), -1e9, device=image.device)  # the beams of an image begin equal
    scores[:, 0] = 0
    past: Past = []
    fed = ids
    while ids.shape[1] < length:
        log_p = _next_logits(model.text_decoder, fed, images, past).log_softmax(dim=1)
        log_p[:, model.special.sep] = float("-inf")
        total = (scores.view(-1, 1) + log_p).view(len(image), -1)
        scores, best = total.topk(beams, dim=1)
        rows = best // log_p.shape[1] + torch.arange(len(image), device=image.device)[:, None] * beams
        rows, fed = rows.flatten(), (best % log_p.shape[1]).view(-1, 1)
        ids = torch.cat([ids[rows], fed], dim=1)
        past[:] = [(key[rows], value[rows]) for key, value in past]
    return ids.view(len(image), beams, length)[:, 0]


def nucleus_sample(model: BLIPDecoder, image: Tensor, length: int, top_k: int, top_p: float) -> Tensor:
    """A sampled text of exactly `length` tokens about each image [B, 3, H, W] -> ids [B, length]."""
    images = model.visual_encoder(image)
    ids = torch.tensor([model.prompt_ids] * len(images), device=image.device)
    past: Past = []
    fed = ids
    while ids.shape[1] < length:
        logits = _next_logits(model.text_decoder, fed, images, past)
        seen = logits.gather(1, ids)
        penalty = SAMPLING_REPETITION_PENALTY
        logits = logits.scatter(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))
        logits[:, model.special.sep] = float("-inf")
        ordered, order = logits.topk(top_k, dim=1)
        mass = ordered.softmax(dim=1).cumsum(dim=1)
        outside = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], dim=1) > top_p
        ordered = ordered.masked_fill(outside, float("-inf"))
        kept = torch.full_like(logits, float("-inf")).scatter(1, order, ordered)
        fed = torch.multinomial(kept.softmax(dim=1), 1)
        ids = torch.cat([ids, fed], dim=1)
    return ids


def text_log_probs(model: BLIPDecoder, image: Tensor, ids: Tensor) -> Tensor:
    """The log-probability of a text ids [B, L] about each image [B, 3, H, W] -> [B]; the prompt's is not counted."""
    states = text_states(model.text_decoder.bert, ids[:, :-1], images=(model.visual_encoder(image),), causal=True)
    log_p = token_logits(model.text_decoder, states).log_softmax(dim=2).gather(2, ids[:, 1:, None])[:, :, 0]
    return log_p[:, model.prompt_length - 1 :].sum(dim=1)


def _next_logits(decoder: TextDecoder, fed: Tensor, images: Tensor, past: Past) -> Tensor:
    states = text_states(decoder.bert, fed, images=(images,), causal=True, past=past)
    return token_logits(decoder, states[:, -1])


def rank_answers(
    decoder: TextDecoder, question: Tensor, mask: Tensor, ids: Tensor, lengths: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k of A answers with the likeliest first token, and their scores, for each question -> [B, k] each.

    Each (question, answer) pair is a row by itself, padded to the longest answer, and every position passes through
    the vocabulary.

    Args:
        question, mask: the questions' states `[B, T, D]`, and zero at padding `[B, T]`.
        ids: the answers, starting with `[DEC]`, `[A, L]`.
        lengths: their tokens, `[A]`.
    """
    start = ids[:1, :1].expand(len(question), 1)
    first = token_logits(decoder, text_states(decoder.bert, start, None, (question,), mask, causal=True)[:, 0])
    chosen = first.softmax(dim=1)[:, ids[:, 1]].topk(k, dim=1).indices
    rows = chosen.flatten()
    longest = int(lengths[rows].max())
    tokens = ids[rows, :longest]
    padding = torch.arange(longest, device=ids.device) >= lengths[rows, None]
    questions, masks = question.repeat_interleave(k, dim=0), mask.repeat_interleave(k, dim=0)
    states = text_states(decoder.bert, tokens, ~padding, (questions,), masks, causal=True)
    losses = torch.nn.functional.cross_entropy(
        token_logits(decoder, states)[:, :-1].flatten(0, 1),
        tokens.masked_fill(padding, -100)[:, 1:].flatten(),
        reduction="none",
        label_smoothing=SMOOTHING,
    )
    return chosen, -losses.view(len(rows), -1).sum(dim=1).view_as(chosen)


def matching_scores(model: BLIPMatcher, states: Tensor, texts: list[str]) -> Tensor:
    """One image's states [T, D] and its texts -> matching logits [texts]."""
    ids, mask = padded_tokens(model.tokenizer, texts, model.device, MAX_TEXT_LENGTH, model.special.enc)
    images = states.expand(len(texts), -1, -1)
    return model.itm_head(text_states(model.text_encoder, ids, mask, (images,))[:, 0])[:, MATCH].float()
