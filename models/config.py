"""The model keys that every task's config has; a script mixes them into its own and hands on the values."""

from dataclasses import dataclass
from typing import Any

from utils import resolve, setting


@dataclass
class ModelConfig:
    """Which model, and which weights it starts from."""

    pretrained: str = setting("", "weights to start from or to evaluate: a released name, a path, an address")
    vit: str | dict[str, int] = setting(
        "base", "image encoder: tiny, small, base, large, or {embed_dim, depth, num_heads, patch_size}"
    )
    vit_grad_ckpt: bool = setting(False, "recompute activations of the image encoder in the backward pass, for memory")
    vit_ckpt_layer: int = setting(0, "how many of the last blocks vit_grad_ckpt is about")
    med_config: str | dict[str, Any] = setting(
        "configs/med_config.json", "sizes of the text models: a BERT configuration, as a file or a mapping"
    )
    vocab_file: str = setting("", "the tokenizer's vocabulary, one token a line; empty: bert-base-uncased's")

    def architecture(self) -> dict[str, Any]:
        """The arguments of these names that every constructor of `models` takes."""
        return {
            "vit": self.vit,
            "vit_grad_ckpt": self.vit_grad_ckpt,
            "vit_ckpt_layer": self.vit_ckpt_layer,
            "med_config": self.med_config,
            "vocab_file": resolve(self.vocab_file) if self.vocab_file else None,
        }
