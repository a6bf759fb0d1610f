"""BERT with cross-attention to an image: the "mixture of encoder-decoder" of the paper (arXiv 2201.12086, section 3.1).

The same `TextModel` works as a text encoder (called without a memory), as an image-grounded text encoder (with a
memory) or as an image-grounded decoder (with a memory, causal). A memory holds the cross-attention's keys and values;
see `models.attention`. Each layer has no, one or two cross-attentions. The attribute names (`self`, `output.dense`,
`LayerNorm`, `self0`, `dense1`, ...) are the parameter names of the released checkpoints.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import (
    AttentionInputs,
    AttentionMaps,
    KeyValue,
    LayerMemory,
    Memory,
    SelfAttentionCache,
    attend,
)
from models.bert_calls import BERT_NAMES, call_decoder, call_encoder, resize_decoder, resize_encoder
from models.config import TextConfig
from models.errors import ConfigError
from models.face import lazy_names
from models.packing import Packing

# In NLVR2, layers before this one average the contexts of the two images; the others merge them by a linear layer.
FIRST_MERGING_LAYER = 6


class QueryKeyValue(nn.Module):
    """The query, key and value projections of an attention, and the attention itself.

    `source_width` is the width of the states that keys and values are projected from.
    """

    def __init__(self, config: TextConfig, source_width: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(source_width, config.hidden_size)
        self.value = nn.Linear(source_width, config.hidden_size)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))  # [B, L, heads, d]

    def project(self, source: Tensor) -> KeyValue:
        """source [N, T, source_width] -> key and value, each [N, heads, T, d]."""
        return self._split(self.key(source)).transpose(1, 2), self._split(self.value(source)).transpose(1, 2)

    def attend_to_text(
        self, hidden: Tensor, key_value: KeyValue, inputs: AttentionInputs, packing: Packing | None
    ) -> tuple[Tensor, Tensor | None]:
        """hidden [B, L, D] attends to the keys and values of its own text -> context [B, L, D], probabilities.

        With a packing, hidden and context are `[1, P, D]`; keys and values are laid out as a padded batch in any case.
        """
        query = self._split(self.query(hidden))
        context, weights = attend(
            query if packing is None else packing.spread(query),
            *key_value,
            inputs.mask,
            causal=inputs.causal,
            dropout=self._dropout_now,
            need_weights=inputs.maps is not None,
        )
        return context if packing is None else packing.pack(context), weights

    def attend_to_image(self, hidden: Tensor, number: int, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """hidden [B, L, D] attends to its image -> context [B, L, D], probabilities; `[1, P, D]` with a packing.

        `number` is this cross-attention's place among those of its layer.
        """
        query = self._split(self.query(hidden))
        memories, packing = inputs.memories, inputs.packing
        if len(memories) == 1 and memories[0].key_values[number][0].shape[0] == 1:
            packing = None  # all tokens attend to the one image: which text they belong to does not matter
        if packing is not None:
            query = packing.spread(query)
        one_each = [memory.key_values[number][0].shape[0] for memory in memories[1:]]
        queries = query.split([query.shape[0] - sum(one_each), *one_each]) if one_each else [query]
        attended = [
            attend(
                part,
                *memory.key_values[number],
                memory.mask,
                index=memory.index,
                dropout=self._dropout_now,
                need_weights=inputs.maps is not None,
            )
            for part, memory in zip(queries, memories, strict=True)
        ]
        context, weights = attended[0]
        if len(attended) > 1:
            context = torch.cat([context for context, _ in attended])
            weights = None if weights is None else torch.cat([each for _, each in attended if each is not None])
        return context if packing is None else packing.pack(context), weights

    @property
    def _dropout_now(self) -> float:
        return self.dropout if self.training else 0.0


class AddNorm(nn.Module):
    """Linear layer, dropout, residual connection, layer norm: how every block of BERT ends."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class SelfAttention(nn.Module):
    """Self-attention of a text, with its residual connection and norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self = QueryKeyValue(config, config.hidden_size)
        self.output = AddNorm(config, config.hidden_size)

    def forward(self, hidden: Tensor, inputs: AttentionInputs, first_only: bool) -> Tensor:
        packing, (key, value) = inputs.packing, self.self.project(hidden)
        if inputs.append is not None:
            key, value = inputs.append(key, value)
        if packing is not None:
            key, value = (packing.spread(x.transpose(1, 2)).transpose(1, 2) for x in (key, value))
        if first_only:
            if packing is not None:
                hidden, packing = packing.spread(hidden), None
            hidden = hidden[:, :1]
        context, weights = self.self.attend_to_text(hidden, (key, value), inputs, packing)
        inputs.record_self_attention(weights)
        return self.output(context, hidden)


class CrossAttention(nn.Module):
    """Cross-attention of a text to one image, with its residual connection and norm."""

    def __init__(self, config: TextConfig, source_width: int) -> None:
        super().__init__()
        self.self = QueryKeyValue(config, source_width)
        self.output = AddNorm(config, config.hidden_size)

    def project(self, source: Tensor) -> list[KeyValue]:
        return [self.self.project(source)]

    def forward(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        context, weights = self.self.attend_to_image(hidden, 0, inputs)
        inputs.record_cross_attention(weights)
        return self.output(context, hidden)


class TwinAddNorm(nn.Module):
    """`AddNorm` for the contexts of two images: averages them, or merges them by a linear layer over both."""

    def __init__(self, config: TextConfig, merge: bool) -> None:
        super().__init__()
        self.dense0 = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense1 = nn.Linear(config.hidden_size, config.hidden_size)
        self.merge_layer = nn.Linear(2 * config.hidden_size, config.hidden_size) if merge else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, context0: Tensor, context1: Tensor, residual: Tensor) -> Tensor:
        x0, x1 = self.dense0(context0), self.dense1(context1)
        x = (x0 + x1) / 2 if self.merge_layer is None else self.merge_layer(torch.cat([x0, x1], dim=-1))
        return self.LayerNorm(self.dropout(x) + residual)


class TwinCrossAttention(nn.Module):
    """Cross-attention of a sentence to two images (NLVR2; paper, section 5.4)."""

    def __init__(self, config: TextConfig, source_width: int, merge: bool) -> None:
        super().__init__()
        self.self0 = QueryKeyValue(config, source_width)
        self.self1 = QueryKeyValue(config, source_width)
        self.output = TwinAddNorm(config, merge)

    def project(self, source0: Tensor, source1: Tensor) -> list[KeyValue]:
        return [self.self0.project(source0), self.self1.project(source1)]

    def forward(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:
        context0, weights0 = self.self0.attend_to_image(hidden, 0, inputs)
        context1, weights1 = self.self1.attend_to_image(hidden, 1, inputs)
        inputs.record_cross_attention(weights0, weights1)
        return self.output(context0, context1, hidden)


class Intermediate(nn.Module):
    """The first half of the feed-forward block, which widens the states; `AddNorm` is the second."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """A post-norm transformer layer: self-attention, cross-attention (if there is a memory), feed-forward block."""

    def __init__(self, config: TextConfig, number: int, cross_attentions: int, source_width: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        if cross_attentions == 1:
            self.crossattention = CrossAttention(config, source_width)
        elif cross_attentions == 2:
            self.crossattention = TwinCrossAttention(config, source_width, merge=number >= FIRST_MERGING_LAYER)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.intermediate_size)

    def forward(self, hidden: Tensor, inputs: AttentionInputs, first_only: bool = False) -> Tensor:
        """hidden [B, L, D] -> [B, L, D]; with `first_only` the first position's [B, 1, D].

        With a packing, hidden is `[1, P, D]`, and so are the states without `first_only`.
        """
        hidden = self.attention(hidden, inputs, first_only)
        if first_only:
            inputs = replace(inputs, packing=None)
        if inputs.memories:
            hidden = self.crossattention(hidden, inputs)
        return self.output(self.intermediate(hidden), hidden)


class LayerStack(nn.Module):
    """Holds the layers under the name that they have in the checkpoints: `encoder.layer`."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


def _leave_out_position_ids(_: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    """Leave out the numbers 0, 1, 2, ... that checkpoints of 2022 hold beside the weights; called by torch."""
    state.pop(f"{prefix}position_ids", None)


class Embeddings(nn.Module):
    """Word and position embeddings, summed and normalized."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.register_load_state_dict_pre_hook(_leave_out_position_ids)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(positions)))


class TextModel(nn.Module):
    """BERT, with 0, 1 or 2 cross-attentions in each layer.

    Args:
        config: the sizes.
        vocabulary: the number of word embeddings: the tokenizer's length.
        source_width: width of the states that cross-attention reads: the image encoder's, or for VQA's decoder the
            question encoder's.
        cross_attentions: how many in each layer, one for each image that a text attends to.
    """

    def __init__(self, config: TextConfig, vocabulary: int, source_width: int = 0, cross_attentions: int = 1) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, vocabulary)
        layers = [Layer(config, i, cross_attentions, source_width) for i in range(config.num_hidden_layers)]
        self.encoder = LayerStack(layers)
        self.apply(lambda module: initialize(module, config))

    @property
    def layers(self) -> list[Layer]:
        """The transformer layers, first to last."""
        return [layer for layer in self.encoder.layer if isinstance(layer, Layer)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `forward`; or `models.bert_calls.call_encoder`, where an argument has one of BERT's names."""
        if BERT_NAMES.isdisjoint(kwargs):
            return super().__call__(*args, **kwargs)
        return call_encoder(self, *args, **kwargs)

    resize_token_embeddings = resize_encoder

    def project(self, *sources: Tensor, mask: Tensor | None = None) -> Memory:
        """Compute the cross-attention's keys and values of N images, once for all texts and decoding steps.

        Args:
            sources: one `[N, T, source_width]` for each cross-attention: image states, or question states.
            mask: `[N, T]`, nonzero where a position may be attended; None when all may.
        """
        if not hasattr(self.layers[0], "crossattention"):
            raise ValueError("this text model has no cross-attention (cross_attentions=0): it attends to no image")
        layers = [layer.crossattention.project(*sources) for layer in self.layers]
        return Memory(layers, None if mask is None else mask.bool())

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        memory: Memory | None = None,
        index: Tensor | None = None,
        *,
        memory_of_last: Memory | None = None,
        causal: bool = False,
        positions: Tensor | None = None,
        cache: SelfAttentionCache | None = None,
        packing: Packing | None = None,
        first_only: bool = False,
        maps: AttentionMaps | None = None,
    ) -> Tensor:
        """ids [B, L] -> states [B, L, D], or [1, P, D] with a packing; with `first_only` [B, 1, D].

        Args:
            ids: token ids, padded on the right.
            mask: `[B, L]`, nonzero at tokens, zero at padding; or `[B, L, L]`, nonzero where a token may attend to
                another. None when there is no padding; not read when `causal`.
            memory: the images, from `project`; without it the text is encoded alone.
            index: `[B]`, the image that each text attends to. By default every image has equally many texts, and they
                are adjacent: with 2 images and 4 texts, texts 0 and 1 attend to image 0.
            memory_of_last: further images, to which the last texts attend, one to each.
            causal: a token attends to itself and those before it.
            positions: `[B, L]`, position ids; by default 0, 1, 2, ... after the tokens in `cache`.
            cache: keys and values of the earlier tokens of the same texts; those of `ids` are appended.
            packing: compute the states of these P tokens only, in one row; the others must be masked, or with `causal`
                follow them.
            first_only: compute the last layer for the first position only.
            maps: collects the attention probabilities, on a slower path.

        Raises:
            ConfigError: more tokens than there are position embeddings.
            ValueError: both a cache and a packing.
        """
        if cache is not None and packing is not None:
            raise ValueError("packed texts have no cache: give either cache or packing")
        start = 0 if cache is None else cache.length
        longest = start + ids.shape[1] if positions is None else int(positions.max()) + 1
        if longest > self.config.max_position_embeddings:
            raise ConfigError(
                f"a text of {longest} tokens exceeds the {self.config.max_position_embeddings} positions "
                f"of the text model; truncate it, or raise max_position_embeddings in its configuration"
            )
        new = ids.shape[1]
        if causal and start and new > 1:  # several tokens at once after others: each sees those and its own past
            causal, mask = False, torch.ones(1, new, start + new, dtype=torch.bool, device=ids.device).tril(start)
        inputs = AttentionInputs(
            None if mask is None or causal else mask.bool(), causal=causal and new > 1, packing=packing, maps=maps
        )
        if packing is not None:
            ids, positions = packing.pack(ids), packing.positions() if positions is None else packing.pack(positions)
        elif positions is None:
            positions = torch.arange(start, longest, device=ids.device)
        hidden = self.embeddings(ids, positions)
        hidden = self.run_layers(hidden, inputs, memory, cache, first_only, index=index, memory_of_last=memory_of_last)
        if cache is not None:
            cache.advance(new)
        return hidden

    def run_layers(
        self,
        hidden: Tensor,
        inputs: AttentionInputs,
        memory: Memory | None = None,
        cache: SelfAttentionCache | None = None,
        first_only: bool = False,
        *,
        index: Tensor | None = None,
        memory_of_last: Memory | None = None,
    ) -> Tensor:
        """Run all layers: embedded tokens hidden [B, L, D] -> states [B, L, D]; arguments as in `forward`."""
        layers = self.layers
        memories = [
            (images, index) for images, index in ((memory, index), (memory_of_last, None)) if images is not None
        ]
        for number, layer in enumerate(layers):
            inputs = replace(
                inputs,
                memories=[LayerMemory(images.layers[number], images.mask, index) for images, index in memories],
                append=None if cache is None else partial(cache.append, number),
            )
            hidden = layer(hidden, inputs, first_only=first_only and layer is layers[-1])
        return hidden


class Transform(nn.Module):
    """The hidden layer of the language-model head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class LMHead(nn.Module):
    """States [.., D] -> logits [.., vocabulary], with the word embeddings as weights."""

    def __init__(self, config: TextConfig, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, word_embeddings.num_embeddings)
        self.decoder.weight = word_embeddings.weight
        self.bias = self.decoder.bias  # the checkpoints hold the bias under both names

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.transform(states))


class Head(nn.Module):
    """Holds the language-model head under the name that it has in the checkpoints: `cls.predictions`."""

    def __init__(self, predictions: LMHead) -> None:
        super().__init__()
        self.predictions = predictions


class TextDecoder(nn.Module):
    """A causal `TextModel` (`bert`) with a language-model head (`cls.predictions`)."""

    def __init__(self, config: TextConfig, vocabulary: int, source_width: int) -> None:
        super().__init__()
        self.bert = TextModel(config, vocabulary, source_width)
        head = LMHead(config, self.bert.embeddings.word_embeddings)
        head.transform.apply(lambda module: initialize(module, config))
        nn.init.zeros_(head.bias)
        self.cls = Head(head)

    # The call of 2022. Our own code uses the methods below, which project an image once for all its texts.
    forward = call_decoder
    resize_token_embeddings = resize_decoder

    def project(self, source: Tensor, mask: Tensor | None = None) -> Memory:
        """Keys and values of `source` [N, T, source_width]; see `TextModel.project`."""
        return self.bert.project(source, mask=mask)

    def logits(self, states: Tensor) -> Tensor:
        """states [.., D] -> logits [.., vocabulary], float32."""
        return self.cls.predictions(states).float()

    def token_losses(
        self,
        ids: Tensor,
        labels: Tensor,
        memory: Memory,
        index: Tensor | None = None,
        label_smoothing: float = 0.1,
        *,
        lengths: Sequence[int] | None = None,
        unscored: int = 1,
    ) -> Tensor:
        """Cross-entropy of each next token (paper, section 3.2).

        Args:
            ids: `[B, L]`, starting with `[DEC]`, padded on the right.
            labels: `[B, L]`, the ids to be predicted, -100 where nothing is scored.
            memory, index: what each text attends to; see `TextModel.forward`.
            label_smoothing: share of each target spread over the whole vocabulary.
            lengths: how many tokens each text has, so that padding costs nothing; it has no labels.
            unscored: how many first tokens of every text have no labels: `[DEC]` and a prompt. No token is predicted
                there: the vocabulary costs as much as three layers.

        Returns:
            the loss of every position `[B, L - 1]`, zero where nothing is scored.
        """
        inputs, targets = ids[:, :-1], labels[:, 1:]
        width = inputs.shape[1]
        reading = [width] * len(ids) if lengths is None else [length - 1 for length in lengths]
        packing = Packing.of(reading, width, ids.device)
        states = self.bert(inputs, memory=memory, index=index, causal=True, packing=packing)
        scored = packing
        if unscored > 1:
            scored = Packing.of(reading, width, ids.device, skipped=unscored - 1)
            states = scored.pack(packing.spread(states))
        losses = F.cross_entropy(
            self.logits(states[0]), scored.pack(targets)[0], reduction="none", label_smoothing=label_smoothing
        )
        return scored.spread(losses[None])

    def mean_loss(
        self,
        ids: Tensor,
        labels: Tensor,
        memory: Memory,
        label_smoothing: float = 0.1,
        *,
        lengths: Sequence[int] | None = None,
        unscored: int = 1,
    ) -> Tensor:
        """`token_losses`, averaged over all scored tokens of the batch -> scalar; 0 where none is scored."""
        losses = self.token_losses(
            ids, labels, memory, label_smoothing=label_smoothing, lengths=lengths, unscored=unscored
        )
        return losses.sum() / (labels[:, 1:] != -100).sum().clamp(min=1)


def initialize(module: nn.Module, config: TextConfig) -> None:
    """BERT's initialization of one module: normal weights, no biases, identity norms."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=config.initializer_range)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=config.initializer_range)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])


# Names that programs of 2022 import from here.
if TYPE_CHECKING:
    from transformers import BertConfig as BertConfig

    from models.names_2022 import BertLMHeadModel as BertLMHeadModel
    from models.names_2022 import BertModel as BertModel
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "BertConfig": "transformers",
            "BertLMHeadModel": "models.names_2022",
            "BertModel": "models.names_2022",
        },
    )
