"""The text models called by BERT's argument names, as programs of 2022 call them: other calls, the same numbers.

    model.text_encoder(ids, attention_mask=mask, return_dict=True, mode="text").last_hidden_state
    model.text_encoder(ids, attention_mask=mask, encoder_hidden_states=image_embeds,
                       encoder_attention_mask=image_atts, return_dict=True).last_hidden_state
    model.text_decoder(ids, attention_mask=mask, encoder_hidden_states=image_embeds,
                       encoder_attention_mask=image_atts, labels=labels, return_dict=True).loss

What is attended to is projected anew in each such call. Our own code does that once for all that looks at it: see
`TextModel.project`, `TextModel.forward` and `TextDecoder.token_losses`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)

from models.attention import AttentionInputs, Memory

if TYPE_CHECKING:
    from models.med import TextDecoder, TextModel

BERT_NAMES = frozenset(
    (
        "input_ids",
        "attention_mask",
        "encoder_embeds",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "is_decoder",
        "mode",
        "return_dict",
    )
)
"""The arguments by which a call of 2022 is told from `TextModel.forward`."""

LABEL_SMOOTHING = 0.1


def call_encoder(
    model: "TextModel",
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    encoder_embeds: Tensor | None = None,
    encoder_hidden_states: Tensor | Sequence[Tensor] | None = None,
    encoder_attention_mask: Tensor | Sequence[Tensor] | None = None,
    is_decoder: bool = False,
    mode: str = "multimodal",
    return_dict: bool = True,
) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Tensor, ...]:
    """The states `[B, L, D]` of B texts, as `last_hidden_state` and at `[0]`.

    Args:
        input_ids: token ids `[B, L]`; one text is that of all images.
        attention_mask: `[B, L]`, zero at padding; None when there is none.
        encoder_embeds: states `[B, L, D]` that enter the first layer in place of the embedded `input_ids`.
        encoder_hidden_states: the image states `[B, T, width]` that the texts look at; one image is that of all texts.
            A model of NLVR2 takes a list of two.
        encoder_attention_mask: `[B, T]`, zero where there is nothing to look at; a list of two for NLVR2.
        is_decoder: a token sees itself and those before it.
        mode: 'multimodal', or 'text', which looks at no image.
        return_dict: give an object with names rather than a tuple.

    Raises:
        ValueError: neither or both of ids and states; an unknown mode, or 'multimodal' without images; texts that do
            not fit the images; masks of two images that differ.
    """
    start = input_ids if encoder_embeds is None else encoder_embeds
    if start is None or (input_ids is not None and encoder_embeds is not None):
        raise ValueError("give either input_ids or encoder_embeds")
    mask = attention_mask
    if mask is not None and is_decoder:
        length = mask.shape[-1]
        mask = mask.bool()[:, None] & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    mask = None if mask is None else _attendable(mask)

    memory = _project_images(model, encoder_hidden_states, encoder_attention_mask, mode)
    if memory is not None:
        texts, images = len(start), len(memory)
        if texts != images and 1 not in (texts, images):
            raise ValueError(f"{texts} texts do not fit the states of {images} images: give as many, or one for all")
        if texts == 1:
            start = start.expand(images, *start.shape[1:])
            mask = None if mask is None else mask.expand(images, *mask.shape[1:])

    causal = is_decoder and mask is None
    if encoder_embeds is None:
        states = model(start, mask, memory, causal=causal)
    else:
        states = model.run_layers(start, AttentionInputs(mask, causal=causal), memory)
    output = BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states)
    return output if return_dict else output.to_tuple()


def call_decoder(
    decoder: "TextDecoder",
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    encoder_embeds: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    labels: Tensor | None = None,
    is_decoder: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    mode: str = "multimodal",
    return_logits: bool = False,
    return_dict: bool = True,
) -> CausalLMOutputWithCrossAttentions | Tensor | tuple[Tensor, ...]:
    """The next token's logits `[B, L, vocabulary]` at every position, and the loss of given labels.

    Args:
        labels: `[B, L]`, the ids to be predicted, -100 where nothing is scored; without them `loss` is None.
        reduction: the loss is the mean over all scored tokens, their sum, or with 'none' the sum of each text `[B]`;
            a share of 0.1 of each target is spread over the vocabulary.
        return_logits: give nothing but the logits that predict a token of the text, `[B, L - 1, vocabulary]`.

    The other arguments are those of `call_encoder`.
    """
    output = call_encoder(
        decoder.bert,
        input_ids,
        attention_mask,
        encoder_embeds=encoder_embeds,
        encoder_hidden_states=encoder_hidden_states,
        encoder_attention_mask=encoder_attention_mask,
        is_decoder=is_decoder,
        mode=mode,
    )
    logits = decoder.logits(output[0])
    if return_logits:
        return logits[:, :-1]
    loss = None if labels is None else _next_token_loss(logits, labels, reduction)
    output = CausalLMOutputWithCrossAttentions(loss=loss, logits=logits)
    return output if return_dict else output.to_tuple()


def resize_encoder(model: "TextModel", new_num_tokens: int | None = None) -> nn.Embedding:
    """Give the text model so many word embeddings, the old ones kept as far as they reach -> the embeddings.

    New ones start as BERT's do. Without a number, or with the present one, nothing changes.
    """
    words = model.embeddings.word_embeddings
    if new_num_tokens is not None and new_num_tokens != words.num_embeddings:
        words.weight = _with_rows(words.weight, new_num_tokens, model.config.initializer_range)
        words.num_embeddings = new_num_tokens
    return words


def resize_decoder(decoder: "TextDecoder", new_num_tokens: int | None = None) -> nn.Embedding:
    """As `resize_encoder`, and the language-model head with it; its new biases are zero.

    Where another model shares the embeddings and resized them, the head follows.
    """
    words = resize_encoder(decoder.bert, new_num_tokens)
    head = decoder.cls.predictions
    head.decoder.weight = words.weight
    if len(head.bias) != words.num_embeddings:
        head.bias = head.decoder.bias = _with_rows(head.bias, words.num_embeddings, std=0.0)
        head.decoder.out_features = words.num_embeddings
    return words


def _attendable(mask: Tensor) -> Tensor:
    """What a nonzero mask [.., T] allows: True where one may look.

    BERT lowers the scores of the rest by 10,000 each, so that who may look nowhere looks everywhere.
    """
    mask = mask.bool()
    return mask | ~mask.any(dim=-1, keepdim=True)


def _project_images(
    model: "TextModel", states: Tensor | Sequence[Tensor] | None, mask: Tensor | Sequence[Tensor] | None, mode: str
) -> Memory | None:
    """What the texts look at, projected; None in mode 'text'."""
    if mode == "text":
        return None
    if mode != "multimodal":
        raise ValueError(f"mode={mode!r} must be 'text' or 'multimodal'")
    if states is None:
        raise ValueError("mode='multimodal' needs encoder_hidden_states; give mode='text' where no image is looked at")
    masks = [mask] if mask is None or isinstance(mask, Tensor) else list(mask)
    first = masks[0]
    for other in masks[1:]:
        if first is None or other is None or not torch.equal(first, other):
            raise ValueError("both images must have the same encoder_attention_mask")
    sources = [states] if isinstance(states, Tensor) else states
    return model.project(*sources, mask=None if first is None else _attendable(first))


def _next_token_loss(logits: Tensor, labels: Tensor, reduction: Literal["mean", "sum", "none"]) -> Tensor:
    """Loss of logits [B, L, V] that predict the labels [B, L] of the position after theirs; see `call_decoder`."""
    targets = labels[:, 1:]
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), reduction=reduction, label_smoothing=LABEL_SMOOTHING
    )
    return loss.view_as(targets).sum(dim=1) if reduction == "none" else loss


def _with_rows(table: Tensor, rows: int, std: float) -> nn.Parameter:
    """A parameter of that many rows: those of `table`, as far as they reach, and normal ones."""
    resized = torch.empty(rows, *table.shape[1:], dtype=table.dtype, device=table.device)
    nn.init.normal_(resized, std=std)
    kept = min(rows, len(table))
    resized[:kept] = table.detach()[:kept]
    return nn.Parameter(resized, requires_grad=table.requires_grad)
