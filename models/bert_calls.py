"""Calls of the text models by BERT's argument names, as programs of 2022 make them, with the same results.

    model.text_encoder(ids, attention_mask=mask, return_dict=True, mode="text").last_hidden_state
    model.text_encoder(ids, attention_mask=mask, encoder_hidden_states=image_embeds,
                       encoder_attention_mask=image_atts, return_dict=True).last_hidden_state
    model.text_decoder(ids, attention_mask=mask, encoder_hidden_states=image_embeds,
                       encoder_attention_mask=image_atts, labels=labels, return_dict=True).loss

Each such call projects the image to keys and values again. Our own code does so once for all texts of the image: see
`TextModel.project`, `TextModel.forward` and `TextDecoder.token_losses`.
"""

from collections.abc import Mapping, Sequence
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
"""Argument names that `TextModel.forward` lacks: a call with one of them is a call of 2022."""

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
    **others: object,
) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Tensor, None]:
    """Encode B texts -> states `[B, L, D]`, under `last_hidden_state` and `[0]` of what is returned.

    Args:
        input_ids: token ids `[B, L]`; a single text is used for all images.
        attention_mask: `[B, L]`, zero at padding; None when there is none.
        encoder_embeds: states `[B, L, D]` that enter the first layer in place of the embedded `input_ids`.
        encoder_hidden_states: image states `[B, T, width]`, which the texts attend to; a single image is used for all
            texts. A list of two for NLVR2's model.
        encoder_attention_mask: `[B, T]`, zero where the image may not be attended; a list of two for NLVR2's model.
        is_decoder: causal attention: a token attends to itself and those before it.
        mode: 'multimodal', or 'text' for no cross-attention.
        return_dict: return an object with named fields rather than a tuple of the states and None, for no pooling.
        others: BERT's further arguments, such as `output_attentions`, where they ask for nothing.

    Raises:
        TypeError: a further argument that asks for something.
        ValueError: neither or both of `input_ids` and `encoder_embeds`; an unknown mode, or 'multimodal' without
            images; numbers of texts and images that differ, neither being one; different masks for NLVR2's images.
    """
    _refuse(others)
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
    return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states) if return_dict else (states, None)


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
    **others: object,
) -> CausalLMOutputWithCrossAttentions | Tensor | tuple[Tensor, ...]:
    """Predict the next token at every position -> logits `[B, L, vocabulary]`, and the loss if there are labels.

    Args:
        labels: `[B, L]`, the ids to be predicted, -100 where nothing is scored; without them `loss` is None.
        reduction: the loss is the mean over all scored tokens, their sum, or with 'none' the sum of each text `[B]`;
            a share of 0.1 of each target is spread over the vocabulary.
        return_logits: return only logits, without the last position's, which predicts no token of the text:
            `[B, L - 1, vocabulary]`.

    The other arguments are those of `call_encoder`.
    """
    _refuse(others)
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
    """Resize the text model's word embeddings to `new_num_tokens` rows -> the embeddings.

    Rows that exist keep their values; new ones get BERT's random initialization. None changes nothing.
    """
    words = model.embeddings.word_embeddings
    if new_num_tokens is not None and new_num_tokens != words.num_embeddings:
        words.weight = _with_rows(words.weight, new_num_tokens, model.config.initializer_range)
        words.num_embeddings = new_num_tokens
    return words


def resize_decoder(decoder: "TextDecoder", new_num_tokens: int | None = None) -> nn.Embedding:
    """Resize the word embeddings as `resize_encoder` does, and the language-model head; new biases are zero.

    The head is also resized where a model that shares the embeddings has already resized those.
    """
    words = resize_encoder(decoder.bert, new_num_tokens)
    head = decoder.cls.predictions
    head.decoder.weight = words.weight
    if len(head.bias) != words.num_embeddings:
        head.bias = head.decoder.bias = _with_rows(head.bias, words.num_embeddings, std=0.0)
        head.decoder.out_features = words.num_embeddings
    return words


def _refuse(others: Mapping[str, object]) -> None:
    """Pass over BERT's further arguments that are None or False; refuse the rest."""
    for name, value in others.items():
        if value is not None and value is not False:
            raise TypeError(
                f"{name}={value!r} is not offered by the text models here; docs/from-blip-2022.md says what is"
            )


def _attendable(mask: Tensor) -> Tensor:
    """A 2022 mask [.., T] -> True where a position may be attended; rows of zeros become rows of True.

    BERT subtracts 10,000 from the scores of masked positions, so that a row with all masked attends to all of them.
    """
    mask = mask.bool()
    return mask | ~mask.any(dim=-1, keepdim=True)


def _project_images(
    model: "TextModel", states: Tensor | Sequence[Tensor] | None, mask: Tensor | Sequence[Tensor] | None, mode: str
) -> Memory | None:
    """Keys and values of the images; None in mode 'text'."""
    if mode == "text":
        return None
    if mode != "multimodal":
        raise ValueError(f"mode={mode!r} must be 'text' or 'multimodal'")
    if states is None:
        raise ValueError("mode='multimodal' needs encoder_hidden_states; give mode='text' for a text without an image")
    masks = [mask] if mask is None or isinstance(mask, Tensor) else list(mask)
    first = masks[0]
    for other in masks[1:]:
        if first is None or other is None or not torch.equal(first, other):
            raise ValueError("both images must have the same encoder_attention_mask")
    sources = [states] if isinstance(states, Tensor) else states
    return model.project(*sources, mask=None if first is None else _attendable(first))


def _next_token_loss(logits: Tensor, labels: Tensor, reduction: Literal["mean", "sum", "none"]) -> Tensor:
    """Cross-entropy of logits [B, L, V] against the labels [B, L], shifted by one position; see `call_decoder`."""
    targets = labels[:, 1:]
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), reduction=reduction, label_smoothing=LABEL_SMOOTHING
    )
    return loss.view_as(targets).sum(dim=1) if reduction == "none" else loss


def _with_rows(table: Tensor, rows: int, std: float) -> nn.Parameter:
    """A parameter with that many rows: the first ones from `table`, further ones from a normal distribution."""
    resized = torch.empty(rows, *table.shape[1:], dtype=table.dtype, device=table.device)
    nn.init.normal_(resized, std=std)
    kept = min(rows, len(table))
    resized[:kept] = table.detach()[:kept]
    return nn.Parameter(resized, requires_grad=table.requires_grad)
