"""The training losses of the five models, from a batch as their scripts get it (images normalized)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.textbook.text import padded_tokens, text_states, token_logits
from models.blip import MAX_CAPTION_LENGTH, BLIPDecoder
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import MAX_TEXT_LENGTH as PRETRAIN_LENGTH
from models.blip_pretrain import NEGATIVE_FLOOR, BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from models.blip_vqa import BLIPVQA, MAX_QUESTION_LENGTH
from models.image_text import MATCH, MAX_TEXT_LENGTH
from models.med import TextDecoder
from models.momentum import MomentumModel
from models.tokenizer import tokenize

Batch = dict[str, Any]
Losses = dict[str, Tensor]


def pretrain_losses(model: BLIPPretrain, batch: Batch, alpha: float) -> Losses:
    """Contrastive, matching and language-model loss of `{image, caption}`; updates momentum copies and queues."""
    image = batch["image"]
    ids, mask = padded_tokens(model.tokenizer, batch["caption"], image.device, PRETRAIN_LENGTH)
    own = torch.eye(len(ids), device=image.device)
    positive = torch.cat([own, own.new_zeros(len(ids), model.queue_size)], dim=1)
    loss_ita, states, similar = _contrast(model, image, ids, mask, alpha, positive, momentum_candidates=True)
    loss_itm = _matching(model, states, ids, mask, [s.softmax(dim=1) + NEGATIVE_FLOOR for s in similar], own.bool())
    ids = ids.clone()
    ids[:, 0] = model.special.dec
    labels = ids.masked_fill(mask == 0, -100)
    loss_lm = _language_model(model.text_decoder, ids, mask, labels, states, model.label_smoothing).mean()
    return {"loss": loss_ita + loss_itm + loss_lm, "loss_ita": loss_ita, "loss_itm": loss_itm, "loss_lm": loss_lm}


def retrieval_losses(model: BLIPRetrieval, batch: Batch, alpha: float) -> Losses:
    """Contrastive and matching loss of `{image, caption, image_id}`; updates momentum copies and queues."""
    image, image_id = batch["image"], batch["image_id"].view(-1, 1)
    ids, mask = padded_tokens(model.tokenizer, batch["caption"], image.device, MAX_TEXT_LENGTH)
    positive = (image_id == torch.cat([image_id.T, model.idx_queue], dim=1)).float()
    start = int(getattr(model, model.pointer))
    loss_ita, states, similar = _contrast(model, image, ids, mask, alpha, positive, momentum_candidates=False)
    model.idx_queue[:, start : start + len(ids)] = image_id.T
    loss_itm = _matching(model, states, ids, mask, [s.softmax(dim=1) for s in similar], image_id == image_id.T)
    return {"loss": loss_ita + loss_itm, "loss_ita": loss_ita, "loss_itm": loss_itm}


def caption_losses(model: BLIPDecoder, batch: Batch) -> Losses:
    """The language-model loss of `{image, caption}`, in which the prompt does not count."""
    image = batch["image"]
    ids, mask = padded_tokens(model.tokenizer, batch["caption"], image.device, MAX_CAPTION_LENGTH, model.special.dec)
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, : model.prompt_length] = -100
    states = model.visual_encoder(image)
    return {"loss": _language_model(model.text_decoder, ids, mask, labels, states, model.label_smoothing).mean()}


def vqa_losses(model: BLIPVQA, batch: Batch) -> Losses:
    """The weighted loss of all answers of `{image, question, answers, n, weights}`, a question's states each anew."""
    image, device = batch["image"], batch["image"].device
    enc = model.special.enc
    question, question_mask = padded_tokens(model.tokenizer, batch["question"], device, MAX_QUESTION_LENGTH, enc)
    read = text_states(model.text_encoder, question, question_mask, (model.visual_encoder(image),))
    states, masks = [], []
    for row, count in enumerate(batch["n"]):
        states += [read[row]] * int(count)
        masks += [question_mask[row]] * int(count)
    ids, mask = tokenize(model.tokenizer, batch["answers"], device, first_token=model.special.dec)
    labels = ids.masked_fill(mask == 0, -100)
    losses = _language_model(
        model.text_decoder, ids, mask, labels, torch.stack(states), model.label_smoothing, torch.stack(masks)
    )
    weights = batch["weights"].repeat_interleave((labels[:, 1:] != -100).sum(dim=1))
    return {"loss": (losses * weights).sum() / len(image)}


def nlvr_losses(model: BLIPNLVR, batch: Batch) -> Losses:
    """The loss of `{image, sentence, label}`: is the sentence true of the two images?"""
    image = batch["image"]
    ids, mask = tokenize(model.tokenizer, batch["sentence"], image.device, first_token=model.special.enc)
    first, second = model.visual_encoder(image).split(len(ids))
    logits = model.cls_head(text_states(model.text_encoder, ids, mask, (first, second))[:, 0])
    return {"loss": F.cross_entropy(logits.float(), batch["label"])}


def _language_model(
    decoder: TextDecoder,
    ids: Tensor,
    mask: Tensor,
    labels: Tensor,
    images: Tensor,
    smoothing: float,
    image_mask: Tensor | None = None,
) -> Tensor:
    """The losses of all scored tokens, in the order of the texts; every position passes through the vocabulary."""
    states = text_states(decoder.bert, ids, mask, (images,), image_mask, causal=True)
    logits, targets = token_logits(decoder, states)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    return losses[targets != -100]


def _contrast(
    model: MomentumModel,
    image: Tensor,
    ids: Tensor,
    mask: Tensor,
    alpha: float,
    positive: Tensor,
    *,
    momentum_candidates: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The contrastive loss, image states, and similarities by which negatives are drawn: [image, text], [text, image].

    With `momentum_candidates` these are similarities to the momentum copies' features, as in pre-training.
    """
    with torch.no_grad():
        model.temp.clamp_(0.001, 0.5)
    states = model.visual_encoder(image)
    features = [
        _unit(model.vision_proj(states[:, 0])),
        _unit(model.text_proj(text_states(model.text_encoder, ids, mask)[:, 0])),
    ]
    with torch.no_grad():
        for name in model.MOMENTUM_PARTS:
            originals = getattr(model, name).parameters()
            for copy, original in zip(getattr(model, f"{name}_m").parameters(), originals, strict=True):
                copy.data = copy.data * model.momentum + original.data * (1 - model.momentum)
        momentum = [
            _unit(model.vision_proj_m(model.visual_encoder_m(image)[:, 0])),
            _unit(model.text_proj_m(text_states(model.text_encoder_m, ids, mask)[:, 0])),
        ]
        queues = [model.image_queue.clone(), model.text_queue.clone()]
    # As ours does: bfloat16 would be off by several percent, divided by a temperature of 0.07.
    with torch.autocast(image.device.type, enabled=False):
        targets = positive / positive.sum(dim=1, keepdim=True)
        losses: list[Tensor] = []
        similar: list[Tensor] = []
        for query, momentum_query, other in ((0, 0, 1), (1, 1, 0)):
            candidates = torch.cat([momentum[other].T, queues[other]], dim=1)
            with torch.no_grad():
                soft = (momentum[momentum_query] @ candidates / model.temp).softmax(dim=1)
                mixed = alpha * soft + (1 - alpha) * targets
            logits = features[query] @ candidates / model.temp
            losses.append(-(logits.log_softmax(dim=1) * mixed).sum(dim=1).mean())
            drawn_from = momentum[other] if momentum_candidates else features[other]
            similar.append((features[query] @ drawn_from.T / model.temp).detach())
    _enqueue(model, *momentum)
    return (losses[0] + losses[1]) / 2, states, similar


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)


@torch.no_grad()
def _enqueue(model: MomentumModel, image: Tensor, text: Tensor) -> None:
    pointer = getattr(model, model.pointer)
    start, end = int(pointer), int(pointer) + len(image)
    model.image_queue[:, start:end] = image.T
    model.text_queue[:, start:end] = text.T
    pointer[0] = end % model.queue_size


def _matching(
    model: MomentumModel, images: Tensor, ids: Tensor, mask: Tensor, weights: list[Tensor], positive: Tensor
) -> Tensor:
    """The matching loss of B pairs, then of 2B pairs with a negative, in two passes.

    `weights`: of the texts for each image, and of the images for each text, by which a negative is drawn.
    """
    ids = ids.clone()
    ids[:, 0] = model.special.enc
    negative_text, negative_image = (
        [int(torch.multinomial(row, 1)) for row in weight.masked_fill(positive, 0)] for weight in weights
    )
    right = text_states(model.text_encoder, ids, mask, (images,))[:, 0]
    other_images = torch.stack([images[row] for row in negative_image])
    other_ids, other_mask = (torch.stack([x[row] for row in negative_text]) for x in (ids, mask))
    wrong = text_states(
        model.text_encoder,
        torch.cat([ids, other_ids]),
        torch.cat([mask, other_mask]),
        (torch.cat([other_images, images]),),
    )[:, 0]
    logits = model.itm_head(torch.cat([right, wrong])).float()
    labels = torch.full((len(logits),), 1 - MATCH, device=logits.device)
    labels[: len(right)] = MATCH
    return F.cross_entropy(logits, labels)
