"""BERT with attention to images: all positions of all layers, padding too, and keys and values anew for each text."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.med import AddNorm, CrossAttention, Layer, QueryKeyValue, TextDecoder, TextModel
from models.tokenizer import tokenize

Past = list[tuple[Tensor, Tensor]]  # each layer's keys and values [B, heads, tokens, d] of the tokens read so far


def padded_tokens(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    device: torch.device,
    length: int,
    first_token: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokenize B texts, cut or padded to a fixed length L, whatever their own -> ids and mask, each [B, L]."""
    ids, mask = tokenize(tokenizer, texts, device, first_token=first_token, max_length=length)
    missing = (0, length - ids.shape[1])
    return F.pad(ids, missing), F.pad(mask, missing)  # which token stands there does not matter: it is masked


def text_states(
    bert: TextModel,
    ids: Tensor,
    mask: Tensor | None = None,
    images: tuple[Tensor, ...] = (),
    image_mask: Tensor | None = None,
    *,
    causal: bool = False,
    past: Past | None = None,
) -> Tensor:
    """ids [B, L] -> states [B, L, D].

    Args:
        mask: `[B, L]`, zero at padding.
        images: for each cross-attention the states that each text attends to, `[B, T, source_width]`.
        image_mask: `[B, T]`, zero where they may not be attended.
        causal: a token attends to itself and those before it.
        past: of the tokens before `ids`, which are then one token a text; keys and values are appended to it. An empty
            list begins.
    """
    start = past[0][0].shape[2] if past else 0
    embeddings, length = bert.embeddings, ids.shape[1]
    positions = torch.arange(start, start + length, device=ids.device)
    hidden = embeddings.word_embeddings(ids) + embeddings.position_embeddings(positions)
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))

    visible = None if mask is None else mask.bool()[:, None, None, :]
    if causal and not start:
        earlier = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        visible = earlier if visible is None else earlier & visible
    for number, layer in enumerate(bert.layers):
        hidden = _self_attention(layer, hidden, visible, number, past)
        if images:
            hidden = _cross_attention(layer, hidden, images, image_mask)
        hidden = _add_norm(layer.output, F.gelu(layer.intermediate.dense(hidden)), hidden)
    return hidden


def token_logits(decoder: TextDecoder, states: Tensor) -> Tensor:
    """states [.., D] -> logits [.., vocabulary], float32."""
    return decoder.cls.predictions(states).float()


def _heads(part: QueryKeyValue, x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], part.heads, -1).transpose(1, 2)  # [B, heads, L, d]


def _attend(part: QueryKeyValue, hidden: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    dropout = part.dropout if part.training else 0.0
    query = _heads(part, part.query(hidden))
    context = F.scaled_dot_product_attention(query, key, value, visible, dropout)
    return context.transpose(1, 2).flatten(2)  # [B, L, heads * d]


def _self_attention(layer: Layer, hidden: Tensor, visible: Tensor | None, number: int, past: Past | None) -> Tensor:
    part = layer.attention.self
    key, value = _heads(part, part.key(hidden)), _heads(part, part.value(hidden))
    if past is not None:
        if len(past) > number:
            key, value = torch.cat([past[number][0], key], dim=2), torch.cat([past[number][1], value], dim=2)
            past[number] = key, value
        else:
            past.append((key, value))
    return _add_norm(layer.attention.output, _attend(part, hidden, key, value, visible), hidden)


def _cross_attention(layer: Layer, hidden: Tensor, images: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
    block = layer.crossattention
    visible = None if mask is None else mask.bool()[:, None, None, :]

    def context(part: QueryKeyValue, image: Tensor) -> Tensor:
        return _attend(part, hidden, _heads(part, part.key(image)), _heads(part, part.value(image)), visible)

    if isinstance(block, CrossAttention):
        return _add_norm(block.output, context(block.self, images[0]), hidden)
    output = block.output
    first, second = output.dense0(context(block.self0, images[0])), output.dense1(context(block.self1, images[1]))
    merge = output.merge_layer
    merged = (first + second) / 2 if merge is None else merge(torch.cat([first, second], dim=-1))
    return output.LayerNorm(output.dropout(merged) + hidden)


def _add_norm(block: AddNorm, x: Tensor, residual: Tensor) -> Tensor:
    return block.LayerNorm(block.dropout(block.dense(x)) + residual)
