"""BERT with cross-attention to an image: the "mixture of encoder-decoder" of the paper (arXiv 2201.12086, section 3.1).

One `TextModel` is, by how it is called, a text encoder (no memory), an image-grounded text encoder (with memory) or an
image-grounded decoder (with memory, causal). It has no, one or two cross-attentions a layer. Its parameter names are
those of the released checkpoints.
"""

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import AttentionInputs, AttentionMaps, Memory, SelfAttentionCache
from models.med_layer import Layer, TextConfig
from utils import ConfigError


class Embeddings(nn.Module):
    """Word and position embeddings, summed and normalised."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(positions)))


class TextModel(nn.Module):
    """BERT, with `cross_attentions` (0, 1 or 2) to images a layer.

    Args:
        config: the sizes.
        vocabulary: the number of word embeddings: the tokenizer's length.
        source_width: width of what is attended to: the image encoder's, or for VQA's decoder the question's.
        cross_attentions: how many images a text attends to.
    """

    def __init__(self, config: TextConfig, vocabulary: int, source_width: int = 0, cross_attentions: int = 1) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, vocabulary)
        layers = [Layer(config, i, cross_attentions, source_width) for i in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.apply(lambda module: initialize(module, config))

    @property
    def layers(self) -> nn.ModuleList:
        return self.encoder["layer"]

    def project(self, *sources: Tensor, mask: Tensor | None = None) -> Memory:
        """Keys and values of images, made once for all that will look at them.

        Args:
            sources: one `[N, T, source_width]` a cross-attention: image states, or question states.
            mask: `[N, T]`, nonzero where a position may be attended; None when all may.
        """
        layers = [layer.crossattention.project(*sources) for layer in self.layers]
        return Memory(layers, None if mask is None else mask.bool())

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        memory: Memory | None = None,
        index: Tensor | None = None,
        *,
        causal: bool = False,
        positions: Tensor | None = None,
        cache: SelfAttentionCache | None = None,
        first_only: bool = False,
        maps: AttentionMaps | None = None,
    ) -> Tensor:
        """ids [B, L] -> states [B, L, D], or [B, 1, D] with `first_only`.

        Args:
            ids: token ids, padded on the right.
            mask: `[B, L]`, nonzero at tokens, zero at padding; or `[B, L, L]`, nonzero where a token sees another. None
                when there is no padding, or when `causal`.
            memory: the images, from `project`; without it the text is encoded alone.
            index: `[B]`, which image each text looks at; by default the texts of an image stand side by side, equally
                many for each.
            causal: a token sees itself and those before it.
            positions: `[B, L]`, the place of each token in its text; by default they are counted.
            cache: earlier tokens of the same rows, to which these are appended.
            first_only: compute the last layer for the first position only.
            maps: filled with attention probabilities, by a slower path.

        Raises:
            ConfigError: more tokens than there are position embeddings.
        """
        start = 0 if cache is None else cache.length
        longest = start + ids.shape[1] if positions is None else int(positions.max()) + 1
        if longest > self.config.max_position_embeddings:
            raise ConfigError(
                f"a text of {longest} tokens exceeds the {self.config.max_position_embeddings} positions "
                f"of the text model; truncate it, or raise max_position_embeddings in its configuration"
            )
        mask = None if mask is None or causal else mask.bool()
        inputs = AttentionInputs(mask, index=index, causal=causal and ids.shape[1] > 1, maps=maps)
        if positions is None:
            positions = torch.arange(start, longest, device=ids.device)
        hidden = self.embeddings(ids, positions)
        for number, layer in enumerate(self.layers):
            if memory is not None:
                inputs = replace(inputs, memory=memory.layers[number], memory_mask=memory.mask)
            if cache is not None:
                inputs = replace(inputs, append=partial(cache.append, number))
            hidden = layer(hidden, inputs, first_only=first_only and layer is self.layers[-1])
        if cache is not None:
            cache.advance(ids.shape[1])
        return hidden


class Transform(nn.Module):
    """The layer between the last state and the vocabulary."""

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


class TextDecoder(nn.Module):
    """A causal `TextModel` (`bert`) with a language-model head (`cls.predictions`)."""

    def __init__(self, config: TextConfig, vocabulary: int, source_width: int) -> None:
        super().__init__()
        self.bert = TextModel(config, vocabulary, source_width)
        head = LMHead(config, self.bert.embeddings.word_embeddings)
        head.transform.apply(lambda module: initialize(module, config))
        nn.init.zeros_(head.bias)
        self.cls = nn.ModuleDict({"predictions": head})

    def project(self, source: Tensor, mask: Tensor | None = None) -> Memory:
        """The memory of `source` [N, T, source_width]; see `TextModel.project`."""
        return self.bert.project(source, mask=mask)

    def logits(self, states: Tensor) -> Tensor:
        """states [.., D] -> logits [.., vocabulary], float32."""
        return self.cls["predictions"](states).float()

    def token_losses(
        self,
        ids: Tensor,
        labels: Tensor,
        memory: Memory,
        index: Tensor | None = None,
        label_smoothing: float = 0.1,
    ) -> Tensor:
        """Cross-entropy of each next token (paper, section 3.2).

        Args:
            ids: `[B, L]`, starting with `[DEC]`, padded on the right.
            labels: `[B, L]`, the ids to be predicted, -100 where nothing is scored.
            memory, index: what each text looks at; see `TextModel.forward`.
            label_smoothing: share of each target spread over the whole vocabulary.

        Returns:
            the loss of every position `[B, L - 1]`, zero where nothing is scored.
        """
        states = self.bert(ids[:, :-1], memory=memory, index=index, causal=True)
        logits, targets = self.logits(states), labels[:, 1:]
        losses = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=label_smoothing
        )
        return losses.view_as(targets)

    def mean_loss(self, ids: Tensor, labels: Tensor, memory: Memory, label_smoothing: float = 0.1) -> Tensor:
        """`token_losses`, averaged over all scored tokens of the batch -> scalar; 0 where none is scored."""
        losses = self.token_losses(ids, labels, memory, label_smoothing=label_smoothing)
        return losses.sum() / (labels[:, 1:] != -100).sum().clamp(min=1)


def initialize(module: nn.Module, config: TextConfig) -> None:
    """BERT's initialisation of one module: normal weights, no biases, identity norms."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=config.initializer_range)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=config.initializer_range)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
