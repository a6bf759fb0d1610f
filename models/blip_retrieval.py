"""Fine-tuning for image-text retrieval (paper, section 5.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import ModelConfig
from models.exchange import DrawnRows, gather, process_count
from models.face import make_callable
from models.image_text import MAX_TEXT_LENGTH, similarities
from models.momentum import MomentumModel, sample_negatives
from models.names_2022 import load_checkpoint as load_checkpoint
from models.tokenizer import Tokens
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights


class BLIPRetrieval(MomentumModel):
    """Contrastive and matching losses for data where several captions belong to one image.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        embed_dim: width of the space in which images and texts are compared.
        queue_size: how many of the latest image features, and of the latest text features, serve as candidates.
        momentum: of the momentum encoders: copy = momentum * copy + (1 - momentum) * encoder in each step.
        negative_all_rank: draw hard negatives from the batches of all processes, not only from this one's.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    idx_queue: Tensor  # [1, queue_size]

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 384,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        embed_dim: int = 256,
        queue_size: int = 57600,
        momentum: float = 0.995,
        negative_all_rank: bool = False,
        *,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file),
            embed_dim,
            queue_size,
            momentum,
            pointer="ptr_queue",
        )
        self.negative_all_rank = negative_all_rank
        self.register_buffer("idx_queue", torch.full((1, self.queue_size), -100))

    def forward(
        self, image: Tensor, caption: Sequence[str], alpha: float, idx: Tensor, *, update_momentum: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses of one training step, and update the momentum copies and the queues.

        Args:
            image: `[B, 3, H, W]`, normalized.
            caption: B texts; those over 35 tokens are cut.
            alpha: share of the momentum models' similarities in the contrastive targets.
            idx: `[B]` (or `[B, 1]`), the image id of each pair: images and texts of one id are positives.
            update_momentum: give false for every batch but the first whose gradients one optimizer step accumulates:
                `momentum` is a factor for each step.

        Returns:
            loss_ita, loss_itm: contrastive and matching loss.
        """
        idx = idx.view(-1, 1)
        texts = self.tokenize(caption, MAX_TEXT_LENGTH)
        same_image = idx == torch.cat([idx.T, self.idx_queue], dim=1)
        positive = same_image.float()
        loss_ita, image_embeds, features = self.contrast(image, texts, alpha, positive, update_momentum)
        self.enqueue(image_queue=features["image_m"], text_queue=features["text_m"], idx_queue=idx)
        across = self.negative_all_rank and process_count() > 1
        choose = self._all_rank_matching if across else self._own_rank_matching
        return loss_ita, choose(image_embeds, features, texts, idx)

    def _own_rank_matching(
        self, image_embeds: Tensor, features: dict[str, Tensor], texts: Tokens, idx: Tensor
    ) -> Tensor:
        """The matching loss with negatives from this process's batch."""
        image, text, exists = self._negatives(features, features["image"], features["text"], idx == idx.T)
        memory = self.text_encoder.project(image_embeds)
        return self.matching_loss(memory, memory.select(image), texts, (texts.ids[text], texts.mask[text]), exists)

    def _all_rank_matching(
        self, image_embeds: Tensor, features: dict[str, Tensor], texts: Tokens, idx: Tensor
    ) -> Tensor:
        """The matching loss with negatives from the batches of all processes."""
        image, text, exists = self._negatives(
            features, gather(features["image"]), gather(features["text"]), idx == gather(idx).T
        )
        # Processes can only gather token ids of equal length.
        ids, mask = (gather(F.pad(x, (0, MAX_TEXT_LENGTH - x.shape[1])))[text] for x in (texts.ids, texts.mask))
        drawn = DrawnRows(image, len(image_embeds))
        memory = self.text_encoder.project(image_embeds)
        negatives = self.text_encoder.project(drawn.fetch(image_embeds))
        return self.matching_loss(memory, negatives, texts, (ids, mask), exists)

    @torch.no_grad()
    def _negatives(
        self, features: dict[str, Tensor], images: Tensor, texts: Tensor, positive: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Draw for each text a negative from `images`, and for each image one from `texts`; see `sample_negatives`.

        Returns:
            the images' numbers `[B]`, the texts' numbers `[B]`, and whether either has a negative.
        """
        image, image_exists = sample_negatives(similarities(features["text"], images) / self.temp, positive)
        text, text_exists = sample_negatives(similarities(features["image"], texts) / self.temp, positive)
        return image, text, (image_exists, text_exists)


def blip_retrieval(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 384,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    embed_dim: int = 256,
    queue_size: int = 57600,
    momentum: float = 0.995,
    negative_all_rank: bool = False,
    *,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPRetrieval:
    """A retrieval model, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The other arguments are those of `BLIPRetrieval`.
    """
    model = BLIPRetrieval(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        embed_dim,
        queue_size,
        momentum,
        negative_all_rank,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained)
    return model


BLIP_Retrieval = BLIPRetrieval  # its name in 2022
make_callable(__name__)
