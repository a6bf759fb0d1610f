"""A look at texts before a run: does the vocabulary know them, are they cut, can the candidates be right?"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from data.records.annotations import Annotations
from metrics.vqa import unanswerable
from models.tokenizer import build_tokenizer
from settings.model import ModelSettings

logger = logging.getLogger("blip.evaluation")

RECORDS = 1000  # about as many are looked at, evenly spread
MUCH = 0.1  # the share from which on a warning is due


def survey_texts(annotations: Annotations, field: str, config: ModelSettings, max_words: int | None = None) -> None:
    """Warn where much of a field (a text, or a list of texts) is unknown to the vocabulary, or longer than `max_words`.

    An unknown word becomes `[UNK]`: the model neither reads nor learns to write it, and its loss falls all the same.
    """
    texts = list(_some_texts(annotations, field))
    if not texts:
        return
    tokenizer = build_tokenizer(config.architecture()["vocab_file"])
    tokens = list(chain.from_iterable(tokenizer(texts, add_special_tokens=False).input_ids))
    unknown = tokens.count(tokenizer.unk_token_id) / max(len(tokens), 1)
    if unknown >= MUCH:
        logger.warning(
            "%s: %.0f%% of the words of '%s' are not in the vocabulary, so the model cannot learn them; for another "
            "language name its vocabulary as vocab_file (docs/troubleshooting.md)",
            annotations.sources[0],
            100 * unknown,
            field,
        )
    cut = sum(len(text.split()) > max_words for text in texts) / len(texts) if max_words else 0.0
    if cut >= MUCH:
        logger.warning(
            "%s: %.0f%% of the texts of '%s' have more than %d words and are cut; max_words and max_tokens say where",
            annotations.sources[0],
            100 * cut,
            field,
            max_words,
        )


def _some_texts(annotations: Annotations, field: str) -> Iterator[str]:
    for row in range(0, len(annotations), max(1, len(annotations) // RECORDS)):
        value = annotations[row][field]
        yield from [value] if isinstance(value, str) else value


def survey_candidates(
    split: str, annotated: Mapping[Any, Mapping[str, Any]], candidates: Sequence[str], file: Path
) -> None:
    """Warn where most questions have no right answer among the candidates of the file."""
    lacking = unanswerable(annotated, candidates)
    if len(lacking) > len(annotated) / 2:
        logger.warning(
            "%s: %d of %d questions, such as question %s, have no right answer among the %d candidates of %s, so they "
            "count as wrong; name a fitting answer_list, or set inference: generate",
            *(split, len(lacking), len(annotated), lacking[0], len(candidates), file),
        )
