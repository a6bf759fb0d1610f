"""One layer of the text model: self-attention, cross-attention to no, one or two images, feed-forward.

The attribute names (`self`, `output.dense`, `LayerNorm`, `self0`, `dense1`, ...) are the parameter names of the
checkpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import AttentionInputs, KeyValue, attend
from utils import ConfigError, MissingFile, check, resolve

# In NLVR2 the contexts of the two images are averaged in the layers before this one, and merged by a layer from it on.
FIRST_MERGING_LAYER = 6


@dataclass(frozen=True)
class TextConfig:
    """The sizes of a `TextModel`, under the names of BERT's configuration files."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            number, rule = (int, "a whole number") if field.type is int else ((int, float), "a number")
            value = getattr(self, field.name)
            check(isinstance(value, number), f"med_config: {field.name}", value, rule)
        sizes = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        )
        for name in sizes:
            check(getattr(self, name) >= 1, f"med_config: {name}", getattr(self, name), "at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            check(0 <= getattr(self, name) < 1, f"med_config: {name}", getattr(self, name), "from 0 to below 1")
        heads = self.num_attention_heads
        whole = self.hidden_size % heads == 0
        check(whole, "med_config: hidden_size", self.hidden_size, f"a multiple of num_attention_heads = {heads}")

    @classmethod
    def read(cls, med_config: str | Path | Mapping[str, Any]) -> "TextConfig":
        """Read a BERT configuration from a JSON file or a mapping; keys that describe other things are passed over.

        `vocab_size` is one of these: there is a word embedding for each token of the tokenizer. A relative path is
        looked for in the working directory, then in the repository.

        Raises:
            MissingFile: there is no such file.
            ConfigError: it is no JSON; sizes that are no numbers or do not fit; an activation other than exact GELU.
        """
        values = med_config if isinstance(med_config, Mapping) else _read_json(resolve(med_config))
        activation = values.get("hidden_act", "gelu")
        check(activation == "gelu", "med_config: hidden_act", activation, "'gelu', the exact one")
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def _read_json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise MissingFile(f"med_config {file} does not exist; it should be a BERT configuration in JSON")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"med_config {file} is no JSON: {error}") from None


class QueryKeyValue(nn.Module):
    """The three projections of an attention; `source_width` is the width of what the keys and values are made from."""

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

    def forward(
        self, hidden: Tensor, key_value: KeyValue, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """hidden [B, L, D] attends to key_value; `options` are those of `attend` -> context [B, L, D], weights."""
        dropout = self.dropout if self.training else 0.0
        return attend(self._split(self.query(hidden)), *key_value, mask, dropout=dropout, **options)


class AddNorm(nn.Module):
    """Project, drop out, add to the residual, normalise: how every block of BERT ends."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class SelfAttention(nn.Module):
    """A text attends to itself."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self = QueryKeyValue(config, config.hidden_size)
        self.output = AddNorm(config, config.hidden_size)

    def forward(self, hidden: Tensor, inputs: AttentionInputs, first_only: bool) -> Tensor:
        key_value = self.self.project(hidden)
        if inputs.append is not None:
            key_value = inputs.append(*key_value)
        if first_only:
            hidden = hidden[:, :1]
        need_weights = inputs.maps is not None
        context, weights = self.self(hidden, key_value, inputs.mask, causal=inputs.causal, need_weights=need_weights)
        if need_weights:
            inputs.maps.self_attention.append(weights)
        return self.output(context, hidden)


class CrossAttention(nn.Module):
    """A text attends to one image."""

    def __init__(self, config: TextConfig, source_width: int) -> None:
        super().__init__()
        self.self = QueryKeyValue(config, source_width)
        self.output = AddNorm(config, config.hidden_size)

    def project(self, source: Tensor) -> list[KeyValue]:
        return [self.self.project(source)]

    def forward(
        self, hidden: Tensor, memory: list[KeyValue], mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, list[Tensor]]:
        context, weights = self.self(hidden, memory[0], mask, **options)
        return self.output(context, hidden), [weights]


class TwinAddNorm(nn.Module):
    """The contexts of two images, joined to one: averaged, or merged by a layer over their concatenation."""

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
    """A sentence attends to two images (NLVR2; paper, section 5.4)."""

    def __init__(self, config: TextConfig, source_width: int, merge: bool) -> None:
        super().__init__()
        self.self0 = QueryKeyValue(config, source_width)
        self.self1 = QueryKeyValue(config, source_width)
        self.output = TwinAddNorm(config, merge)

    def project(self, source0: Tensor, source1: Tensor) -> list[KeyValue]:
        return [self.self0.project(source0), self.self1.project(source1)]

    def forward(
        self, hidden: Tensor, memory: list[KeyValue], mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, list[Tensor]]:
        context0, weights0 = self.self0(hidden, memory[0], mask, **options)
        context1, weights1 = self.self1(hidden, memory[1], mask, **options)
        return self.output(context0, context1, hidden), [weights0, weights1]


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Self-attention, cross-attention (if there is a memory), feed-forward; each normalised at its end."""

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
        """hidden [B, L, D] -> [B, L, D], or the first position only [B, 1, D]."""
        hidden = self.attention(hidden, inputs, first_only)
        if inputs.memory is not None:
            need_weights = inputs.maps is not None
            hidden, weights = self.crossattention(
                hidden, inputs.memory, inputs.memory_mask, index=inputs.index, need_weights=need_weights
            )
            if need_weights:
                inputs.maps.cross_attention.append(weights)
        return self.output(self.intermediate(hidden), hidden)
