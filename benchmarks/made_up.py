"""Inputs as long and as many as real ones, made up of words that are one token each."""

import torch
from torch import Tensor

from models.vocabulary import Vocabulary

WORDS = ["a", "man", "dog", "on", "the", "street", "with", "red", "umbrella", "standing", "near", "train"]
CANDIDATES, ANSWER_WORDS = 3_128, 2_000
ANSWER_LENGTHS = {1: 0.60, 2: 0.24, 3: 0.13, 4: 0.02, 5: 0.01}  # tokens, and how many answers of VQA v2 have so many


def texts(number: int, mean: float, deviation: float, fewest: int, most: int) -> list[str]:
    """Texts whose numbers of words are normally distributed between `fewest` and `most`."""
    generator = torch.Generator().manual_seed(0)
    lengths = (mean + deviation * torch.randn(number, generator=generator)).round().clamp(fewest, most).long()
    words = torch.randint(len(WORDS), (number, most), generator=generator)
    return [" ".join(WORDS[w] for w in row[:n]) for row, n in zip(words.tolist(), lengths.tolist(), strict=True)]


def captions(number: int) -> list[str]:
    """Texts of 6 to 20 words, 10.5 on average, as COCO's are."""
    return texts(number, 10.5, 2.4, 6, 20)


def web_captions(number: int) -> list[str]:
    """Texts of 3 to 28 words, 12 on average, as the web's are: some are twice as long as most."""
    return texts(number, 12, 5, 3, 28)


def questions(number: int) -> list[str]:
    """Texts of 4 to 12 words, 6.2 on average, as the questions of VQA v2 are."""
    return texts(number, 6.2, 1.8, 4, 12)


def statements(number: int) -> list[str]:
    """Texts of 6 to 28 words, 14.8 on average, as the sentences of NLVR2 are."""
    return texts(number, 14.8, 4.5, 6, 28)


def answer_words(number: int) -> list[str]:
    """The first words of BERT's vocabulary, but for those of the other texts."""
    words = [token for token in Vocabulary.read().tokens if token.isascii() and token.isalpha()]
    return [word for word in words if word not in (*WORDS, "picture", "of")][:number]


def candidates() -> list[str]:
    """3,128 different answers, as long as those of VQA v2."""
    words = answer_words(ANSWER_WORDS)
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor(list(ANSWER_LENGTHS.values()))
    found: dict[str, None] = {}
    while len(found) < CANDIDATES:
        length = 1 + int(shares.multinomial(1, generator=generator))
        found[" ".join(words[i] for i in torch.randint(ANSWER_WORDS, (length,), generator=generator).tolist())] = None
    return list(found)


def pixels(number: int, side: int) -> Tensor:
    """Noise as a loader hands it over: uint8 [number, 3, side, side]."""
    return torch.randint(256, (number, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
