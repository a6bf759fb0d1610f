"""The model keys that tasks' configs have; a script mixes them into its own and hands on the values."""

from dataclasses import dataclass
from typing import Any

from models.med_layer import TextConfig
from models.vit import check_image_size, vit_size
from utils import Settings, check, resolve, setting


@dataclass
class ModelConfig(Settings):
    """Which model, and which weights it starts from."""

    pretrained: str = setting("", "weights to start from or to evaluate: a released name, a path, an address")
    vit: str | dict[str, int] = setting(
        "base", "image encoder: tiny, small, base, large, or {embed_dim, depth, num_heads, patch_size}"
    )
    vit_grad_ckpt: bool = setting(False, "recompute activations of the image encoder in the backward pass, for memory")
    vit_ckpt_layer: int = setting(0, "how many of the last blocks vit_grad_ckpt is about; all, where there are fewer")
    med_config: str | dict[str, Any] = setting(
        "configs/med_config.json", "sizes of the text models: a BERT configuration, as a file or a mapping"
    )
    vocab_file: str = setting("", "the tokenizer's vocabulary, one token a line; empty: bert-base-uncased's")

    def __post_init__(self) -> None:
        patch_size = vit_size(self.vit)["patch_size"]
        if hasattr(self, "image_size"):  # the data's key, as scripts mix it in
            check_image_size(self.image_size, patch_size)
        check(self.vit_ckpt_layer >= 0, "vit_ckpt_layer", self.vit_ckpt_layer, "0 or more")
        TextConfig.read(self.med_config)
        if hasattr(self, "embed_dim"):
            check(self.embed_dim >= 1, "embed_dim", self.embed_dim, "at least 1")
        super().__post_init__()

    def architecture(self) -> dict[str, Any]:
        """The arguments of these names that every constructor of `models` takes."""
        return {
            "vit": self.vit,
            "vit_grad_ckpt": self.vit_grad_ckpt,
            "vit_ckpt_layer": self.vit_ckpt_layer,
            "med_config": self.med_config,
            "vocab_file": resolve(self.vocab_file) if self.vocab_file else None,
        }


@dataclass
class SearchConfig(Settings):
    """How captions are searched for."""

    max_length: int = setting(20, "most tokens of a caption, the prompt's counted")
    min_length: int = setting(5, "fewest tokens of a caption, the prompt's counted")
    num_beams: int = setting(3, "beams of the search; 1 is greedy")

    def __post_init__(self) -> None:
        check(self.num_beams >= 1, "num_beams", self.num_beams, "at least 1")
        words = len(self.prompt.split())  # of which each is a token or more; the search itself counts them
        check(
            self.max_length > 1 + words, "max_length", self.max_length, f"above {1 + words}, the start and the prompt"
        )
        rule = f"from 1 to max_length = {self.max_length}"
        check(1 <= self.min_length <= self.max_length, "min_length", self.min_length, rule)
        super().__post_init__()
