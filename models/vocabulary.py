"""The tokens of a tokenizer: read from a file, or from the checkpoint that carries them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from models.errors import ConfigError
from models.token_files import folder_tokens, read_tokens
from models.weights.included import INCLUDED

BERT_BASE_UNCASED = Path(__file__).parent / "vocab.txt"
STANDARD = "bert-base-uncased"  # in a checkpoint, in place of the tokens of that file, which every copy has
DEC = "[DEC]"  # first token of the decoder's texts
ENC = "[ENC]"  # first token of the image-grounded encoder's texts
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a WordPiece tokenizer, those of BERT among them, in the order of their ids.

    Attributes:
        tokens: without `[DEC]` and `[ENC]`, which every tokenizer adds.
        name: where they come from, for messages: 'vocabulary file words.txt'.

    Raises:
        ConfigError: one of BERT's special tokens is missing, or a token is there twice.
    """

    tokens: tuple[str, ...]
    name: str = field(compare=False)

    def __post_init__(self) -> None:
        held = set(self.tokens)
        missing = [token for token in SPECIAL_TOKENS.values() if token not in held]
        if missing:
            raise ConfigError(f"{self.name} lacks {', '.join(missing)}")
        if len(held) < len(self.tokens):
            raise ConfigError(f"{self.name} holds a token twice")

    @classmethod
    def read(cls, source: "str | Path | Vocabulary | None" = None) -> "Vocabulary":
        """Read a vocabulary.

        Args:
            source: a file with one token a line; a checkpoint (a file, or a name of `models.weights.included`), or a
                folder in the Hugging Face layout, that carries its vocabulary; when None, bert-base-uncased's, which is
                part of this repository.

        Raises:
            MissingFile: there is no such file.
            UnreadableFile: it is no file, or cannot be opened.
            ConfigError: it holds no vocabulary.
        """
        if isinstance(source, cls):
            return source
        if source is None:
            return standard_vocabulary()
        path = INCLUDED.get(str(source), Path(str(source)))
        if os.path.isdir(path) and (tokens := folder_tokens(path)):
            return cls(tuple(tokens), f"the vocabulary of {path}")
        tokens = read_tokens(path)
        return cls._of_checkpoint(path) if tokens is None else cls(tuple(tokens), f"vocabulary file {path}")

    @classmethod
    def _of_checkpoint(cls, path: Path) -> "Vocabulary":
        from models.weights.files import read_state  # not above: configs are read without the libraries of the hub

        _, metadata = read_state(path)
        vocabulary = stored_vocabulary(metadata, str(path))
        if vocabulary is None:
            raise ConfigError(
                f"vocab_file = {path}: this checkpoint carries no vocabulary; name the file that it was trained with"
            )
        return vocabulary

    def stored(self) -> str | list[str]:
        """What a checkpoint holds of it: its tokens, or the name of the standard one."""
        return STANDARD if self == standard_vocabulary() else list(self.tokens)

    def check_weights(self, trained: "Vocabulary", source: str) -> None:
        """Raise ConfigError if weights that were trained with another vocabulary would read other words by this one.

        A token that BERT left `[unused...]` may become a new word.

        Args:
            trained: the vocabulary that the weights were trained with.
            source: where they come from.
        """
        for number, (there, here) in enumerate(zip_longest(trained.tokens, self.tokens)):
            added = there in (None, DEC, ENC) and here in (None, DEC, ENC)  # a file may list what is added anyway
            if there == here or added or (here is not None and there is not None and there.startswith("[unused")):
                continue
            remedy = f"give vocab_file={source}" if os.path.exists(source) else "name its file by vocab_file"
            raise ConfigError(
                f"{source} was trained with another vocabulary than {self.name}: token {number} is "
                f"{_shown(there)} there and {_shown(here)} here. To use the checkpoint's own, "
                f"{'leave vocab_file out' if trained == standard_vocabulary() else remedy}"
            )


@cache
def standard_vocabulary() -> Vocabulary:
    """The vocabulary of bert-base-uncased."""
    tokens = BERT_BASE_UNCASED.read_text(encoding="utf-8").splitlines()
    return Vocabulary(tuple(tokens), f"the vocabulary of {STANDARD}")


def stored_vocabulary(checkpoint: Mapping[str, Any], source: str) -> Vocabulary | None:
    """The vocabulary that a checkpoint's weights were trained with; None where it does not tell, as older ones do not.

    Args:
        checkpoint: what it holds beside its weights; see `models.weights.files.read_state`.
        source: where it comes from, for messages.
    """
    architecture = checkpoint.get("architecture")
    stored = architecture.get("vocabulary") if isinstance(architecture, Mapping) else None
    if stored == STANDARD:
        return standard_vocabulary()
    if isinstance(stored, list) and all(isinstance(token, str) for token in stored):
        return Vocabulary(tuple(stored), f"the vocabulary in {source}")
    if stored is not None:
        raise ConfigError(f"{source}: its 'vocabulary' is of type {type(stored).__name__}, not a list of texts")
    config = checkpoint.get("config")
    if isinstance(config, Mapping) and config.get("vocab_file") == "":  # written before checkpoints carried it
        return standard_vocabulary()
    return None


def _shown(token: str | None) -> str:
    return "absent" if token is None else repr(token)
