"""Image captioning, and the features of images and texts (paper, section 3.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.base import VisionLanguageModel
from models.generation import Generated, Rules, generate
from models.med import TextDecoder, TextModel
from models.tokenizer import tokenize
from models.weights.load import load_checkpoint

SAMPLING_REPETITION_PENALTY = 1.1  # what the released captioner was sampled with


class BLIPFeatureExtractor(VisionLanguageModel):
    """All token states of an image, of a text, or of a text that looks at an image; for sizes see the base class."""

    def __init__(self, image_size: int = 224, **sizes: Any) -> None:
        super().__init__(image_size, **sizes)
        self.text_encoder = TextModel(self.text_config, len(self.tokenizer), self.vision_width)

    def forward(self, image: Tensor | None, caption: str | Sequence[str] | None, mode: str) -> Tensor:
        """Features of every token.

        Args:
            image: `[B, 3, H, W]`, normalised; not read in mode 'text'.
            caption: B texts; not read in mode 'image'.
            mode: 'image' -> `[B, 1 + patches, D_image]`, 'text' -> `[B, L, D]`, 'multimodal' -> `[B, L, D]`. Texts are
                padded to the longest; the states of padding are zero.

        Raises:
            ValueError: an unknown mode, texts that do not fit the images, or a text longer than the text model's
                positions.
        """
        if mode == "image":
            return self.visual_encoder(image)
        if mode not in ("text", "multimodal"):
            raise ValueError(f"mode={mode!r} must be 'image', 'text' or 'multimodal'")
        if mode == "text":
            ids, mask = tokenize(self.tokenizer, caption, self.device)
            memory = None
        else:
            ids, mask = self.tokenize_for(image, caption, first_token=self.tokenizer.enc_token_id)
            memory = self.text_encoder.project(self.visual_encoder(image))
        return self.text_encoder(ids, mask, memory) * mask[:, :, None]


class BLIPDecoder(VisionLanguageModel):
    """Describes images: a ViT and a causal text decoder that looks at it.

    Args:
        image_size: side of the square input, in pixels.
        prompt: the words every caption starts with; they are not scored in training and not returned.
        label_smoothing: share of each target spread over the vocabulary in the training loss.
        sizes: see `VisionLanguageModel`.
    """

    def __init__(
        self, image_size: int = 384, prompt: str = "a picture of ", label_smoothing: float = 0.1, **sizes: Any
    ) -> None:
        super().__init__(image_size, **sizes)
        self.text_decoder = TextDecoder(self.text_config, len(self.tokenizer), self.vision_width)
        self.prompt_ids = [self.tokenizer.dec_token_id, *self.tokenizer(prompt).input_ids[1:-1]]
        self.label_smoothing = label_smoothing

    def forward(self, image: Tensor, caption: str | Sequence[str]) -> Tensor:
        """image [B, 3, H, W], normalised, and B captions, each starting with the prompt -> loss, mean over tokens."""
        ids, mask = self.tokenize_for(image, caption, first_token=self.tokenizer.dec_token_id, max_length=40)
        memory = self.text_decoder.project(self.visual_encoder(image))
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, : len(self.prompt_ids)] = -100
        return self.text_decoder.mean_loss(ids, labels, memory, label_smoothing=self.label_smoothing)

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
        """One caption for each image [B, 3, H, W]; see `generate_n_best` for the arguments."""
        captions, _ = self.generate_n_best(
            image,
            sample=sample,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            top_k=top_k,
            generator=generator,
        )
        return [texts[0] for texts in captions]

    @torch.no_grad()
    def generate_n_best(
        self,
        image: Tensor,
        num_return_sequences: int = 1,
        *,
        sample: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
        repetition_penalty: float | None = None,
        top_k: int = 50,
        generator: torch.Generator | None = None,
    ) -> tuple[list[list[str]], Generated]:
        """Several captions for each image, best first, with their scores and log-probabilities.

        Args:
            image: `[B, 3, H, W]`, normalised.
            num_return_sequences: captions for each image; at most `num_beams`, or any number of samples.
            sample: nucleus sampling instead of beam search.
            num_beams: 1 is greedy search.
            max_length, min_length: bounds on the tokens, prompt and end token included.
            top_p, top_k: sample among the fewest most probable tokens whose probability exceeds top_p, out of the top_k
                most probable (0: all).
            repetition_penalty: 1 is none. By default none in search, 1.1 in sampling.
            generator: source of the samples' randomness, on the model's device.
        """
        if repetition_penalty is None:
            repetition_penalty = SAMPLING_REPETITION_PENALTY if sample else 1.0
        generated = generate(
            self.text_decoder,
            self.text_decoder.project(self.visual_encoder(image)),
            torch.tensor(self.prompt_ids, device=image.device).repeat(len(image), 1),
            Rules(
                end_token=self.tokenizer.sep_token_id,
                pad_token=self.tokenizer.pad_token_id,
                max_length=max_length,
                min_length=min_length,
                repetition_penalty=repetition_penalty,
            ),
            sample=sample,
            num_beams=num_beams,
            num_return_sequences=num_return_sequences,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
        )
        # The tokenizer spaces a prompt in its own way ("a close - up of"): its text is cut off, and the space after it.
        prompt = self.tokenizer.decode(self.prompt_ids, skip_special_tokens=True)
        start = len(prompt) + 1 if prompt else 0
        captions = [
            [self.tokenizer.decode(ids, skip_special_tokens=True)[start:] for ids in texts]
            for texts in generated.ids.tolist()
        ]
        return captions, generated


def blip_decoder(pretrained: str = "", **sizes: Any) -> BLIPDecoder:
    """A captioner, with the weights of `pretrained` (a released name, path, URL or hub name) if given."""
    model = BLIPDecoder(**sizes)
    if pretrained:
        load_checkpoint(model, pretrained)
    return model


def blip_feature_extractor(pretrained: str = "", **sizes: Any) -> BLIPFeatureExtractor:
    """A feature extractor, with the weights of `pretrained` (a released name, path, URL or hub name) if given."""
    model = BLIPFeatureExtractor(**sizes)
    if pretrained:
        load_checkpoint(model, pretrained)
    return model
