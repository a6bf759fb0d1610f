"""Maps of a picture for each word of a text, made of one layer's attention; `models.explain` has the calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.attention import AttentionMaps
from models.base import VisionLanguageModel
from models.errors import ConfigError, one_line
from models.med import TextModel
from models.tokenizer import as_texts

CONTINUATION = "##"  # begins a WordPiece that goes on with the word before it


@dataclass(frozen=True, kw_only=True)
class WordMaps:
    """Maps of a picture, one for each word of a text.

    Attributes:
        text: the text: the one given, or the one that the model wrote.
        words: its W words as the tokenizer reads them, put together from their WordPieces. Punctuation is left out, and
            what the vocabulary lacks is `[UNK]`.
        attention: the mean over heads of the attention to the patches, `[W, rows, columns]`, float32. A map sums to 1
            less what the class token gets.
        grad_cam: the attention that speaks for the score, `[W, rows, columns]`, float32, never negative. It is not
            normalized, and all zero where no attention of that word does.
    """

    text: str
    words: list[str]
    attention: Tensor
    grad_cam: Tensor


@dataclass(frozen=True, kw_only=True)
class AnswerMaps(WordMaps):
    """Maps for each word of an answer, and `question`: those for each word of the question, of the whole answer."""

    question: WordMaps


def default_layer(text_model: TextModel) -> int:
    """The layer whose maps are shown unless another is asked for, two thirds of the way up: 7 of the layers 0 to 11."""
    return (len(text_model.layers) - 1) * 2 // 3


def check_layer(text_model: TextModel, layer: int | None, *, read_by_first_token: bool = False) -> int:
    """The number of the layer whose cross-attention is shown; see `match_maps` for `read_by_first_token`."""
    count = len(text_model.layers)
    if not hasattr(text_model.layers[0], "crossattention"):
        raise ConfigError("this text model has no cross-attention: it looks at no picture, and there is nothing to map")
    choices = count - 1 if read_by_first_token else count
    if choices < 1:
        raise ConfigError(
            "the text model has a single layer, and of its states the head reads the first token's alone: "
            "what the words attend to does not change the score, and there is nothing to map"
        )
    layer = default_layer(text_model) if layer is None else layer
    if not 0 <= layer < choices:
        last = f"; the last of the {count} shows nothing, as the head reads its first token alone"
        which = f"0 to {choices - 1}" if choices > 1 else "0"
        raise ConfigError(f"layer = {layer}: must be {which}{last if read_by_first_token else ''}")
    return layer


def layer_gradients(maps: AttentionMaps, layer: int, score: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each cross-attention of a layer the probabilities, and the gradient of a score by them.

    Each is `[B, heads, L, patches]`, float32: the class token, the picture's first, is left out.
    """
    attentions = maps.cross_attention[layer]
    gradients = torch.autograd.grad(score, attentions)
    return [
        (attention.detach().float()[..., 1:], gradient.float()[..., 1:])
        for attention, gradient in zip(attentions, gradients, strict=True)
    ]


def grad_cam(attention: Tensor, gradient: Tensor) -> Tensor:
    """Attention and the gradient of a score by it, each [B, heads, L, T] -> what speaks for the score [B, L, T]."""
    return (attention * gradient).clamp(min=0).mean(dim=1)


def token_ids(model: VisionLanguageModel, text: str, longest: int) -> list[int]:
    """The ids of a text's tokens, without the special ones around them.

    Raises:
        ConfigError: no words, or more than `longest` tokens.
    """
    texts = as_texts(text)
    if texts != [text]:
        raise ValueError(f"maps are of one text at a time, a string; this is a list of {len(texts)}")
    ids = model.tokenizer(text).input_ids[1:-1]
    if len(ids) > longest:
        raise ConfigError(
            f"{one_line(text, 60)!r} has {len(ids)} tokens, and the model reads {longest} of a text: shorten it"
        )
    return check_words(model, text, ids)


def check_words(model: VisionLanguageModel, text: str, ids: list[int]) -> list[int]:
    """The ids of a text's tokens, if there are words among them."""
    if not _words(model, ids):
        raise ConfigError(f"the text {one_line(text, 60)!r} has no words, of which maps could be shown")
    return ids


def read_words(model: VisionLanguageModel, text: str) -> list[str]:
    """The words of a text as a model reads them: those that maps are of."""
    return [word for word, _ in _words(model, model.tokenizer(text).input_ids[1:-1])]


def _words(model: VisionLanguageModel, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Each word among some tokens, and the places of its WordPieces; punctuation is left out."""
    words: list[tuple[str, list[int]]] = []
    for place, piece in enumerate(model.tokenizer.convert_ids_to_tokens(list(ids))):
        if piece.startswith(CONTINUATION) and len(piece) > 2 and words:
            word, places = words[-1]
            words[-1] = word + piece.removeprefix(CONTINUATION), [*places, place]
        else:
            words.append((piece, [place]))
    return [(word, places) for word, places in words if any(character.isalnum() for character in word)]


def by_word(model: VisionLanguageModel, text: str, ids: Sequence[int], attention: Tensor, grad_cam: Tensor) -> WordMaps:
    """Maps of tokens, each [L, patches], as maps of words: the mean of a word's WordPieces."""
    words, grid = _words(model, ids), model.visual_encoder.patch_embed.grid_size

    def joined(maps: Tensor) -> Tensor:
        return torch.stack([maps[places].mean(dim=0) for _, places in words]).unflatten(1, grid)

    return WordMaps(
        text=text, words=[word for word, _ in words], attention=joined(attention), grad_cam=joined(grad_cam)
    )
