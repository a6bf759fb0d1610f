"""Pre-training: contrastive, matching and language-model losses at once (paper, section 3.2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig
from models.face import make_callable
from models.image_text import similarities
from models.med import TextDecoder, TextModel
from models.momentum import MomentumModel, sample_negatives
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights

MAX_TEXT_LENGTH = 30  # tokens
NEGATIVE_FLOOR = 1e-4  # `floor` of `sample_negatives`


class BLIPPretrain(MomentumModel):
    """All three losses of an image-text pair. The decoder shares all layers with the encoder but its self-attentions.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        embed_dim: width of the space in which images and texts are compared.
        queue_size: how many of the latest image features, and of the latest text features, serve as candidates.
        momentum: of the momentum encoders: copy = momentum * copy + (1 - momentum) * encoder in each step.
        label_smoothing: label smoothing of the language-model loss.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/bert_config.json",
        image_size: int = 224,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        embed_dim: int = 256,
        queue_size: int = 57600,
        momentum: float = 0.995,
        *,
        label_smoothing: float = 0.1,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file),
            embed_dim,
            queue_size,
            momentum,
            pointer="queue_ptr",
        )
        self.text_decoder = TextDecoder(self.text_config, len(self.tokenizer), self.vision_width)
        share_all_but_self_attention(self.text_encoder, self.text_decoder)
        self.label_smoothing = label_smoothing

    def forward(
        self, image: Tensor, caption: Sequence[str], alpha: float, *, update_momentum: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the losses of one training step, and update the momentum copies and the queues.

        Args:
            image: `[B, 3, H, W]`, normalized.
            caption: B texts; those over 30 tokens are cut.
            alpha: share of the momentum models' similarities in the contrastive targets.
            update_momentum: give false for every batch but the first whose gradients one optimizer step accumulates:
                `momentum` is a factor for each step.

        Returns:
            loss_ita, loss_itm, loss_lm: contrastive, matching and language-model loss.
        """
        texts = self.tokenize(caption, MAX_TEXT_LENGTH)
        batch = len(texts.ids)
        diagonal = torch.eye(batch, device=image.device)
        positive = torch.cat([diagonal, diagonal.new_zeros(batch, self.queue_size)], dim=1)
        loss_ita, image_embeds, features = self.contrast(image, texts, alpha, positive, update_momentum)
        self.enqueue(image_queue=features["image_m"], text_queue=features["text_m"])

        memory = self.text_encoder.project(image_embeds)
        with torch.no_grad():
            negative_image, image_exists = sample_negatives(
                similarities(features["text"], features["image_m"]) / self.temp, diagonal.bool(), NEGATIVE_FLOOR
            )
            negative_text, text_exists = sample_negatives(
                similarities(features["image"], features["text_m"]) / self.temp, diagonal.bool(), NEGATIVE_FLOOR
            )
        loss_itm = self.matching_loss(
            memory,
            memory.select(negative_image),
            texts,
            (texts.ids[negative_text], texts.mask[negative_text]),
            (image_exists, text_exists),
        )

        decoded = texts.ids.clone()
        decoded[:, 0] = self.special.dec
        labels = decoded.masked_fill(texts.mask == 0, -100)
        loss_lm = self.text_decoder.mean_loss(decoded, labels, memory, self.label_smoothing, lengths=texts.lengths)
        return loss_ita, loss_itm, loss_lm


def share_all_but_self_attention(encoder: TextModel, decoder: TextDecoder) -> None:
    """Make `decoder` use the encoder's embeddings, cross-attentions and feed-forward blocks."""
    decoder.bert.embeddings = encoder.embeddings
    decoder.cls.predictions.decoder.weight = encoder.embeddings.word_embeddings.weight
    for mine, theirs in zip(decoder.bert.layers, encoder.layers, strict=True):
        mine.crossattention = theirs.crossattention
        mine.intermediate = theirs.intermediate
        mine.output = theirs.output


def blip_pretrain(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/bert_config.json",
    image_size: int = 224,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    embed_dim: int = 256,
    queue_size: int = 57600,
    momentum: float = 0.995,
    *,
    label_smoothing: float = 0.1,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPPretrain:
    """A model to pre-train, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The other arguments are those of `BLIPPretrain`.
    """
    model = BLIPPretrain(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        embed_dim,
        queue_size,
        momentum,
        label_smoothing=label_smoothing,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained)
    return model


BLIP_Pretrain = BLIPPretrain  # its name in 2022
make_callable(__name__)
