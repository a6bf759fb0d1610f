"""Small WordPiece vocabularies: the given words as whole entries, everything else spelled in letters.

For small models: an output layer over BERT's 30,522 entries would be larger than the model itself.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_vocabulary(words: Iterable[str]) -> list[str]:
    """A vocabulary of `words` and all letters: entries in the order of their ids, `[PAD]` = 0.

    Any ASCII text has a tokenization without `[UNK]`.
    """
    letters = (*string.punctuation, *string.digits, *string.ascii_lowercase)
    pieces = (f"##{letter}" for letter in string.digits + string.ascii_lowercase)
    return list(dict.fromkeys((*_SPECIAL, *letters, *pieces, *words)))


def frequent_words(texts: Iterable[str], min_count: int = 2) -> list[str]:
    """The words (as BERT's tokenizer splits texts) that occur at least `min_count` times, the most frequent first."""
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
