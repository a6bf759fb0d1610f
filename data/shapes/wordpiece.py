"""Small WordPiece vocabularies: some words whole, everything else in letters.

A head over a few thousand entries costs a small model little, where one over 30,522 would cost more than the model.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary_of(words: Iterable[str]) -> list[str]:
    """Entries in the order of their ids, `[PAD]` = 0. Any ASCII text has a tokenization without `[UNK]`."""
    letters = (*string.punctuation, *string.digits, *string.ascii_lowercase)
    pieces = (f"##{letter}" for letter in string.digits + string.ascii_lowercase)
    return list(dict.fromkeys((*_SPECIAL, *letters, *pieces, *words)))


def words_of(texts: Iterable[str], least: int = 2) -> list[str]:
    """The words, as BERT's tokenizer parts them, that occur at least `least` times in `texts`, most frequent first."""
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
