"""How long the texts of a task may be, so that one that is too long is named before training."""

from data.records.annotations import TextLimit
from models.config import TextConfig
from models.tokenizer import build_tokenizer
from settings.model import ModelSettings


def text_limit(config: ModelSettings) -> TextLimit:
    """How many tokens the text models of a config take, and how its tokenizer counts them."""
    tokenizer = build_tokenizer(config.architecture()["vocab_file"])
    positions = TextConfig.read(config.med_config).max_position_embeddings
    return TextLimit(lambda text: len(tokenizer(text).input_ids), positions)
