"""The text tokenizer: BERT's WordPiece with a vocabulary file, and the two tokens that BLIP adds."""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.transfer import send
from models.vocabulary import DEC, ENC, SPECIAL_TOKENS, Vocabulary

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of `[PAD]`, of `[SEP]`, which ends a text, and of its first tokens `[DEC]` and `[ENC]`."""

    pad: int
    sep: int
    dec: int
    enc: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "SpecialTokens":
        """Look the ids up in a tokenizer from `build_tokenizer`."""
        ids = tokenizer.get_vocab()
        return cls(ids[SPECIAL_TOKENS["pad_token"]], ids[SPECIAL_TOKENS["sep_token"]], ids[DEC], ids[ENC])


def build_tokenizer(vocab_file: str | Path | Vocabulary | None = None) -> PreTrainedTokenizerFast:
    """Build a tokenizer from a WordPiece vocabulary, with `[DEC]` and `[ENC]` added at its end.

    Args:
        vocab_file: see `Vocabulary.read`, which also raises the errors.

    Returns:
        A fast tokenizer with two more attributes: `dec_token_id` and `enc_token_id`.
    """
    vocabulary = {token: number for number, token in enumerate(Vocabulary.read(vocab_file).tokens)}
    wordpiece = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    wordpiece.decoder = decoders.WordPiece()
    # PreTrainedTokenizerFast is the one public class that behaves the same in transformers 4 and 5.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=True,
        **SPECIAL_TOKENS,
    )
    tokenizer.add_special_tokens({"bos_token": DEC})
    tokenizer.add_special_tokens({"additional_special_tokens": [ENC]})
    tokenizer.dec_token_id = tokenizer.convert_tokens_to_ids(DEC)
    tokenizer.enc_token_id = tokenizer.convert_tokens_to_ids(ENC)
    return tokenizer


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """Decode ids to text, without special tokens."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return (
        text if isinstance(text, str) else " ".join(text)
    )  # the library's type allows a list, which only a batch gives


def as_texts(texts: object) -> list[str]:
    """Texts as a list: a string is one text.

    Raises:
        TypeError: what is neither a string nor strings in a row. (The tokenizer would read a list of two as one text.)
        ValueError: half of a surrogate pair, which stands for no character.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, (bytes, Mapping)):
        raise TypeError(f"expected a text or a list of texts, and got {reprlib.repr(texts)}")
    checked: list[str] = []
    rows: Iterable[object] = [texts] if isinstance(texts, str) else texts
    for number, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"expected a list of texts, and number {number} of it, from 0, is {reprlib.repr(text)}")
        if not text.isascii() and _SURROGATE.search(text):
            raise ValueError(f"text {number}, from 0, holds half of a surrogate pair, no character: {ascii(text[:40])}")
        checked.append(text)
    return checked


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    texts: str | Sequence[str],
    device: torch.device,
    *,
    first_token: int | None = None,
    max_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokenize texts, padded on the right to the longest -> ids and mask, each [B, L].

    Args:
        texts: B texts, or a string as a batch of one.
        first_token: id that replaces `[CLS]`: of `[DEC]` for a decoder, of `[ENC]` for an image-grounded encoder.
        max_length: longer texts are cut to this many tokens, `[SEP]` included.
    """
    tokens = tokenize_and_count(tokenizer, texts, device, first_token=first_token, max_length=max_length)
    return tokens.ids, tokens.mask


@dataclass(frozen=True)
class Tokens:
    """The tokens of B texts.

    Attributes:
        ids, mask: `[B, L]`, padded on the right, and nonzero at tokens.
        lengths: how many tokens each text has, on the host, which else would have to wait for a GPU to tell.
    """

    ids: Tensor
    mask: Tensor
    lengths: list[int]


def tokenize_and_count(
    tokenizer: PreTrainedTokenizerFast,
    texts: str | Sequence[str],
    device: torch.device,
    *,
    first_token: int | None = None,
    max_length: int | None = None,
) -> Tokens:
    """Do what `tokenize` does, and keep the lengths on the host."""
    texts = as_texts(texts)
    if not texts:
        nothing = torch.empty(0, 1, dtype=torch.long, device=device)
        return Tokens(nothing, nothing.clone(), [])
    encoded = tokenizer(texts, padding="longest", truncation=max_length is not None, max_length=max_length)
    lengths = [sum(row) for row in encoded.attention_mask]
    ids, mask = torch.tensor(encoded.input_ids), torch.tensor(encoded.attention_mask)
    if first_token is not None:
        ids[:, 0] = first_token
    return Tokens(send(ids, device), send(mask, device), lengths)
