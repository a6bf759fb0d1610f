"""Where and how everything of a run is measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from benchmarks.made_up import WORDS, answer_words
from engine.device import precision_of
from models.vocabulary import SPECIAL_TOKENS

Value = TypeVar("Value")
Precision = Literal["bf16", "fp16", "fp32"]

TINY_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,  # so that precisions, and compiled blocks, can be compared
    "attention_probs_dropout_prob": 0.0,
}
_TINY: dict[str, Any] = {
    "vit": {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16},
    "med_config": TINY_TEXT,
    "image_size": 32,
}


@dataclass(frozen=True)
class Context:
    """The device and precision that everything is computed on and in, and how large it is.

    Attributes:
        precision: of both sides of a comparison.
        tiny: models and batches so small that everything runs within seconds, to prove that it does.
        folder: for temporary files.
    """

    device: torch.device
    precision: Precision
    tiny: bool
    folder: Path = field(compare=False)

    @property
    def dtype(self) -> torch.dtype:
        return precision_of(self.precision, self.device)

    def autocast(self) -> torch.autocast:
        """Autocast to the precision; off in fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)

    def pick(self, *, gpu: Value, cpu: Value, tiny: Value) -> Value:
        """A size for this device."""
        return tiny if self.tiny else gpu if self.device.type == "cuda" else cpu

    def sizes(self, vit: str, image_size: int) -> dict[str, Any]:
        """Arguments of a model's constructor, or keys of a script's config."""
        if not self.tiny:
            return {"vit": vit, "image_size": image_size}
        vocabulary = self.folder / "vocabulary.txt"  # BERT's would take most of the time
        vocabulary.write_text("\n".join([*SPECIAL_TOKENS.values(), "picture", "of", *WORDS, *answer_words(200)]))
        return {**_TINY, "vocab_file": str(vocabulary)}

    def describe(self, vit: str, image_size: int) -> str:
        """These sizes in words."""
        return "a tiny model" if self.tiny else f"ViT-{vit[0].upper()} at {image_size} pixels"
