"""Image captioning, and the features of images and texts (paper, section 3.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.attention import Memory
from models.base import VisionLanguageModel
from models.config import ModelConfig
from models.generation import Generated, SearchOptions, generate
from models.med import TextDecoder, TextModel
from models.names_2022 import create_vit as create_vit
from models.names_2022 import init_tokenizer as init_tokenizer
from models.names_2022 import is_url as is_url
from models.names_2022 import load_checkpoint as load_checkpoint
from models.tokenizer import decode, tokenize
from models.transfer import send
from models.vit import interpolate_pos_embed as interpolate_pos_embed
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights

MAX_CAPTION_LENGTH = 40  # tokens of a caption in training, the prompt's counted; further ones are cut


class BLIPFeatureExtractor(VisionLanguageModel):
    """The states of all tokens: of an image, of a text, or of a text that attends to an image.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 224,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        *,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file)
        )
        self.text_encoder = TextModel(self.text_config, len(self.tokenizer), self.vision_width)

    def forward(self, image: Tensor | None, caption: str | Sequence[str] | None, mode: str) -> Tensor:
        """Encode an image, a text, or both -> the states of all tokens.

        Args:
            image: `[B, 3, H, W]`, normalized; not read in mode 'text'.
            caption: B texts; not read in mode 'image'.
            mode: 'image' -> `[B, 1 + patches, D_image]`, 'text' -> `[B, L, D]`, 'multimodal' -> `[B, L, D]`. Texts are
                padded to the longest; the states of padding are zero.

        Raises:
            ValueError: an unknown mode, a missing image or caption, numbers of images and captions that differ, neither
                being one, or a text longer than the text model's positions.
        """
        if mode not in ("image", "text", "multimodal"):
            raise ValueError(f"mode={mode!r} must be 'image', 'text' or 'multimodal'")
        if mode == "image" and image is not None:
            return self.visual_encoder(image)
        if mode == "text" and caption is not None:
            ids, mask = tokenize(self.tokenizer, caption, self.device)
            return self.text_encoder(ids, mask) * mask[:, :, None]
        if mode == "multimodal" and image is not None and caption is not None:
            ids, mask = self.tokenize_for(image, caption, first_token=self.special.enc)
            memory = self.text_encoder.project(self.visual_encoder(image))
            return self.text_encoder(ids, mask, memory) * mask[:, :, None]
        raise ValueError(f"mode={mode!r} reads {'an image' if image is None else 'a caption'}, and none was given")


class BLIPDecoder(VisionLanguageModel):
    """Captions images: an image encoder, and a causal text decoder that attends to its states.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        prompt: the words every caption starts with; they do not count in the training loss, and `generate` cuts them.
        label_smoothing: label smoothing of the training loss.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 384,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        prompt: str = "a picture of ",
        *,
        label_smoothing: float = 0.1,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file)
        )
        self.text_decoder = TextDecoder(self.text_config, len(self.tokenizer), self.vision_width)
        self.prompt = prompt
        self.label_smoothing = label_smoothing
        self.max_caption_length = MAX_CAPTION_LENGTH

    @property
    def prompt(self) -> str:
        """The words every caption starts with. It may be changed between two calls."""
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]: of a caller without types
            raise TypeError(f"prompt={prompt!r} must be a single text, which serves all images")
        self._prompt = prompt
        self.prompt_ids = self._prompt_ids(prompt)

    @property
    def prompt_length(self) -> int:
        """The number of the prompt's tokens, `[DEC]` included."""
        return len(self.prompt_ids)

    def forward(self, image: Tensor, caption: str | Sequence[str]) -> Tensor:
        """The training loss, a mean over tokens, of image [B, 3, H, W], normalized, and B captions with the prompt.

        Captions are cut after `max_caption_length` tokens, an attribute: 40, unless it is set.
        """
        texts = self.tokens_for(image, caption, first_token=self.special.dec, max_length=self.max_caption_length)
        memory = self.text_decoder.project(self.visual_encoder(image))
        labels = texts.ids.masked_fill(texts.mask == 0, -100)
        labels[:, : self.prompt_length] = -100
        return self.text_decoder.mean_loss(
            texts.ids, labels, memory, self.label_smoothing, lengths=texts.lengths, unscored=self.prompt_length
        )

    def generate(
        self,
        image: Tensor,
        sample: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
        repetition_penalty: float | None = None,
        *,
        top_k: int = 50,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Generate a caption for each image [B, 3, H, W], normalized; the options are those of `SearchOptions`."""
        options = SearchOptions(
            sample=sample,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            generator=generator,
        )
        captions, _ = self.generate_n_best(image, options)
        return [texts[0] for texts in captions]

    @torch.no_grad()
    def generate_n_best(
        self, image: Tensor, options: SearchOptions, prompt: str | None = None
    ) -> tuple[list[list[str]], Generated]:
        """Generate several captions for each image, best first, with their scores and log-probabilities.

        Args:
            image: `[B, 3, H, W]`, normalized.
            options: how many captions, and how they are found.
            prompt: words to start with in place of the model's own prompt.
        """
        return self.generate_from(self.text_decoder.project(self.visual_encoder(image)), options, prompt)

    @torch.no_grad()
    def generate_from(
        self, memory: Memory, options: SearchOptions, prompt: str | None = None
    ) -> tuple[list[list[str]], Generated]:
        """`generate_n_best`, of images that are encoded: `memory` is `text_decoder.project` of their states."""
        prompt_ids = self.prompt_ids if prompt is None else self._prompt_ids(prompt)
        generated = generate(
            self.text_decoder,
            memory,
            send(torch.tensor(prompt_ids), self.device).repeat(len(memory), 1),
            options,
            end_token=self.special.sep,
            pad_token=self.special.pad,
        )
        # The prompt is cut as the tokenizer decodes it ("a close - up of"), with the space after it.
        words = decode(self.tokenizer, prompt_ids)
        start = len(words) + 1 if words else 0
        captions = [[decode(self.tokenizer, ids)[start:] for ids in texts] for texts in generated.ids.tolist()]
        return captions, generated

    def prompt_tokens(self, prompt: str) -> int:
        """The number of tokens of a prompt, `[DEC]` included."""
        return len(self._prompt_ids(prompt))

    def _prompt_ids(self, prompt: str) -> list[int]:
        return [self.special.dec, *self.tokenizer(prompt).input_ids[1:-1]]


def blip_decoder(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 384,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    prompt: str = "a picture of ",
    *,
    label_smoothing: float = 0.1,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPDecoder:
    """A captioner, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The other arguments are those of `BLIPDecoder`.
    """
    model = BLIPDecoder(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        prompt,
        label_smoothing=label_smoothing,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained)
    return model


def blip_feature_extractor(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 224,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    *,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPFeatureExtractor:
    """A feature extractor, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The other arguments are those of `BLIPFeatureExtractor`.
    """
    model = BLIPFeatureExtractor(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained)
    return model


# The classes' names in 2022. The functions that programs of 2022 import from here come from models.names_2022.
BLIP_Base = BLIPFeatureExtractor
BLIP_Decoder = BLIPDecoder
