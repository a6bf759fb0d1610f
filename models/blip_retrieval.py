"""Fine-tuning for image-text retrieval (paper, section 5.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.blip_itm import MAX_TEXT_LENGTH, similarities
from models.momentum import MomentumModel, gather, gather_with_gradient, sample_negatives
from models.weights.load import load_checkpoint


class BLIPRetrieval(MomentumModel):
    """Image-text contrast and matching where several captions belong to one image.

    Args:
        negative_all_rank: draw hard negatives over the batches of all processes, not only over one's own.
        sizes: see `MomentumModel`.
    """

    def __init__(self, *, negative_all_rank: bool = False, **sizes: Any) -> None:
        super().__init__(pointer="ptr_queue", **sizes)
        self.negative_all_rank = negative_all_rank
        self.register_buffer("idx_queue", torch.full((1, self.queue_size), -100))

    def forward(self, image: Tensor, caption: Sequence[str], alpha: float, idx: Tensor) -> tuple[Tensor, Tensor]:
        """One training step's losses; updates momentum copies and queues.

        Args:
            image: `[B, 3, H, W]`, normalised.
            caption: B texts; those over 35 tokens are cut.
            alpha: share of the momentum models' similarities in the contrastive targets.
            idx: `[B]` (or `[B, 1]`), the image id of each pair: all pairs of one id are positives.

        Returns:
            loss_ita, loss_itm: contrastive and matching loss.
        """
        idx = idx.view(-1, 1)
        # Processes that exchange token ids must agree on their length.
        ids, mask = self.tokenize(caption, MAX_TEXT_LENGTH, pad_to_max_length=self.negative_all_rank)
        same_image = idx == torch.cat([idx.T, self.idx_queue], dim=1)
        loss_ita, image_embeds, features = self.contrast(image, ids, mask, alpha, same_image.float())
        self.enqueue(image_queue=features["image_m"], text_queue=features["text_m"], idx_queue=idx)
        choose = self._all_rank_matching if self.negative_all_rank else self._own_rank_matching
        return loss_ita, choose(image_embeds, features, self.grounded(ids), mask, idx)

    def _own_rank_matching(
        self, image_embeds: Tensor, features: dict[str, Tensor], ids: Tensor, mask: Tensor, idx: Tensor
    ) -> Tensor:
        positive = idx == idx.T
        negative_image, image_exists, negative_text, text_exists = self._negatives(
            features, features["image"], features["text"], positive
        )
        own = torch.arange(len(ids), device=ids.device)
        return self.matching_loss(
            self.text_encoder.project(image_embeds),
            (own, negative_image),
            (ids, ids[negative_text]),
            (mask, mask[negative_text]),
            (image_exists, text_exists),
        )

    def _all_rank_matching(
        self, image_embeds: Tensor, features: dict[str, Tensor], ids: Tensor, mask: Tensor, idx: Tensor
    ) -> Tensor:
        positive = idx == gather(idx).T
        negative_image, image_exists, negative_text, text_exists = self._negatives(
            features, gather(features["image"]), gather(features["text"]), positive
        )
        embeds = gather_with_gradient(image_embeds)[negative_image]
        own = torch.arange(len(ids), device=ids.device)
        return self.matching_loss(
            self.text_encoder.project(torch.cat([image_embeds, embeds])),
            (own, own + len(ids)),
            (ids, gather(ids)[negative_text]),
            (mask, gather(mask)[negative_text]),
            (image_exists, text_exists),
        )

    @torch.no_grad()
    def _negatives(
        self, features: dict[str, Tensor], images: Tensor, texts: Tensor, positive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each text a negative out of `images`, then for each image one out of `texts`, as `sample_negatives`."""
        negative_image, image_exists = sample_negatives(similarities(features["text"], images) / self.temp, positive)
        negative_text, text_exists = sample_negatives(similarities(features["image"], texts) / self.temp, positive)
        return negative_image, image_exists, negative_text, text_exists


def blip_retrieval(pretrained: str = "", **sizes: Any) -> BLIPRetrieval:
    """A retrieval model, with the weights of `pretrained` (a released name, path, URL or hub name) if given."""
    model = BLIPRetrieval(**sizes)
    if pretrained:
        load_checkpoint(model, pretrained)
    return model
