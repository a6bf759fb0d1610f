"""The base class of every BLIP network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.errors import ConfigError, check
from models.pixels import STANDARD, stored_pixels
from models.tokenizer import SpecialTokens, Tokens, build_tokenizer, tokenize_and_count
from models.vit import VisionTransformer
from models.vocabulary import stored_vocabulary


class VisionLanguageModel(nn.Module):
    """A tokenizer, an image encoder, and the sizes of the text models that a subclass builds on them.

    Attributes:
        vocabulary: the tokens of the tokenizer.
        tokenizer: a Hugging Face fast tokenizer.
        special: the ids of its special tokens.
        visual_encoder: images [B, 3, H, W], normalized -> states [B, T, vision_width].
        text_config: the sizes of the text models.
        pixels: mean and deviation by which pictures are normalized; those of the checkpoint that the model is built of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocabulary = config.vocabulary
        self.tokenizer = build_tokenizer(config.vocabulary)
        pad, size = config.text.pad_token_id, len(self.tokenizer)
        check(pad < size, "med_config: pad_token_id", pad, f"below {size}, the number of tokens")
        self.special = SpecialTokens.of(self.tokenizer)
        self.visual_encoder = VisionTransformer(config.vision)
        self.text_config = config.text
        self.pixels = STANDARD

    @property
    def vision_width(self) -> int:
        return self.visual_encoder.embed_dim

    @property
    def device(self) -> torch.device:
        return self.visual_encoder.patch_embed.proj.weight.device  # a replica of DataParallel lists no parameters

    def describe(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights, in plain data, so that the model can be built from it alone.

        `vit` and `med_config` are sizes, as the constructors take them; `vocabulary` is that of `Vocabulary.stored`,
        `pixels` of `Pixels.stored`.
        """
        vision = self.visual_encoder.config
        vit = {name: getattr(vision, name) for name in ("embed_dim", "depth", "num_heads", "patch_size")}
        return {
            "vit": vit,
            "med_config": asdict(self.text_config),
            "vocabulary": self.vocabulary.stored(),
            "pixels": self.pixels.stored(vision.image_size),
        }

    def check_weights(self, checkpoint: Mapping[str, Any], source: str) -> None:
        """Raise ConfigError if a checkpoint's weights were trained with another vocabulary, or on other pixels.

        Args:
            checkpoint: what it holds beside its weights.
            source: where it comes from.
        """
        trained = stored_vocabulary(checkpoint, source)
        if trained is not None:
            self.vocabulary.check_weights(trained, source)
        pixels = stored_pixels(checkpoint, source)
        if pixels not in (None, self.pixels):
            raise ConfigError(
                f"{source} was trained on {pixels}, and this model gets {self.pixels}: build_from_checkpoint, "
                "predict.py and `prediction` take those of the checkpoint"
            )

    def save_pretrained(
        self, folder: str | Path, *, checkpoint: str | Path | None = None, scores: str | Path | None = None
    ) -> Path:
        """Write a folder that works alone, with a card; see `models.weights.share.save_pretrained`."""
        from models.weights.share import save_pretrained  # which imports the networks

        return save_pretrained(self, folder, checkpoint=checkpoint, scores=scores)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        checkpoint: str | Path | None = None,
        scores: str | Path | None = None,
    ) -> str:
        """Upload such a folder to the Hugging Face hub; see `models.weights.share.push_to_hub`."""
        from models.weights.share import push_to_hub  # which imports the networks

        return push_to_hub(self, repository, private=private, token=token, checkpoint=checkpoint, scores=scores)

    def tokenize_for(
        self,
        image: Tensor,
        text: str | Sequence[str],
        *,
        first_token: int | None = None,
        max_length: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokenize the texts that will attend to images -> ids and mask, each [B, L].

        Several images and a single text: the text is repeated for each image. Several texts and a single image: all
        attend to that image. `first_token` and `max_length` are those of `tokenize`.

        Raises:
            ValueError: the numbers of images and texts differ, and neither is one.
            TypeError, ValueError: as `VisionTransformer.as_input` and `as_texts`.
        """
        tokens = self.tokens_for(image, text, first_token=first_token, max_length=max_length)
        return tokens.ids, tokens.mask

    def tokens_for(
        self,
        image: Tensor,
        text: str | Sequence[str],
        *,
        first_token: int | None = None,
        max_length: int | None = None,
    ) -> Tokens:
        """Do what `tokenize_for` does, and keep the lengths on the host."""
        tokens = tokenize_and_count(self.tokenizer, text, self.device, first_token=first_token, max_length=max_length)
        images, texts = len(self.visual_encoder.as_input(image)), len(tokens.ids)
        if images != texts and 1 not in (images, texts):
            raise ValueError(f"{texts} texts do not fit {images} images: give as many, or one for all")
        if texts != 1:
            return tokens
        return Tokens(tokens.ids.repeat(images, 1), tokens.mask.repeat(images, 1), tokens.lengths * images)
