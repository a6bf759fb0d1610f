"""Contrastive and matching losses with momentum encoders and queues of their features (paper, section 3.2; ALBEF).

Pre-training and retrieval share all of this. They differ in which pairs are positive and in how negatives are drawn.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Memory
from models.config import ModelConfig, check_queue
from models.exchange import gather
from models.image_text import MATCH, ImageTextModel
from models.library_internals import lerp_all
from models.med import TextModel
from models.packing import Packing
from models.tokenizer import Tokens, tokenize_and_count
from models.vit import VisionTransformer


def sample_negatives(similarity: Tensor, positive: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Draw a hard negative for each row: a column that is not positive, with probability ~ softmax(similarity) + floor.

    Args:
        similarity: `[B, M]`, divided by the temperature.
        positive: `[B, M]`, True where a pair belongs together.
        floor: makes every negative possible, however dissimilar.

    Returns:
        column `[B]`, and whether the row has any negative `[B]`; where it has none, its column is meaningless. NaN
        similarities give an arbitrary column rather than a crash: on a GPU `multinomial` of NaN ends the process, and
        the loss, which is NaN too, reports the failure better.
    """
    exists = ~positive.all(dim=1)
    if floor:
        weights = (similarity.softmax(dim=1) + floor).masked_fill(positive, 0.0)
    else:  # a softmax over the negatives alone cannot underflow to nothing
        weights = similarity.masked_fill(positive, float("-inf")).softmax(dim=1)
    weights = torch.where(exists[:, None] & weights.isfinite(), weights, 1.0)
    return torch.multinomial(weights, 1).squeeze(1), exists


class MomentumModel(ImageTextModel):
    """An `ImageTextModel` for training, with momentum copies of its encoders and queues of the features they compute.

    Args:
        config: the sizes of the encoders.
        embed_dim: width of the space in which images and texts are compared.
        queue_size: how many of the latest image features, and of the latest text features, serve as candidates.
        momentum: see `update_momentum`.
        pointer: name of the buffer that holds the queues' write position; it is another in pre-training's checkpoints
            than in retrieval's.

    Attributes:
        statistics: detached scalars of the last forward pass, for the log: the matching head's accuracy on matching
            pairs, `itm_accuracy_match`, and on others, `itm_accuracy_mismatch`. 0 and 1 are those of a head that
            always answers "no match"; its loss stays at about 0.63.
    """

    MOMENTUM_PARTS = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")
    visual_encoder_m: VisionTransformer
    vision_proj_m: nn.Linear
    text_encoder_m: TextModel
    text_proj_m: nn.Linear
    image_queue: Tensor  # [embed_dim, queue_size]
    text_queue: Tensor  # [embed_dim, queue_size]

    def __init__(self, config: ModelConfig, embed_dim: int, queue_size: int, momentum: float, *, pointer: str) -> None:
        check_queue(queue_size, embed_dim)
        super().__init__(config, embed_dim)
        self.momentum = momentum
        self.queue_size = queue_size
        self.pointer = pointer
        self.statistics: dict[str, Tensor] = {}
        self.temp = nn.Parameter(torch.tensor(0.07))
        for name in self.MOMENTUM_PARTS:
            setattr(self, f"{name}_m", copy.deepcopy(getattr(self, name)).requires_grad_(False))
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(embed_dim, queue_size), dim=0))
        self.register_buffer(pointer, torch.zeros(1, dtype=torch.long))

    def _copies_and_originals(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name in self.MOMENTUM_PARTS:
            copies = getattr(self, f"{name}_m").parameters()
            yield from zip(copies, getattr(self, name).parameters(), strict=True)

    @torch.no_grad()
    def reset_momentum(self) -> None:
        """Set the momentum copies equal to the weights that they follow."""
        for momentum_copy, parameter in self._copies_and_originals():
            momentum_copy.copy_(parameter)

    @torch.no_grad()
    def update_momentum(self) -> None:
        """Update all copies in one fused pass: copy = momentum * copy + (1 - momentum) * parameter."""
        copies, parameters = zip(*self._copies_and_originals(), strict=True)
        lerp_all(list(copies), [parameter.detach() for parameter in parameters], 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, **features: Tensor) -> None:
        """Write the features of all processes into the queues, over the oldest ones.

        Args:
            features: by the name of a queue `[D, queue_size]`, its new features `[B, D]`.
        """
        pointer, count = getattr(self, self.pointer), 0
        for name, rows in features.items():
            rows = gather(rows)
            count, kept = len(rows), rows[-self.queue_size :]
            position = (pointer + count - len(kept) + torch.arange(len(kept), device=rows.device)) % self.queue_size
            queue = getattr(self, name)
            queue[:, position] = kept.T.to(queue.dtype)
        pointer.copy_((pointer + count) % self.queue_size)

    def contrast(
        self, image: Tensor, texts: Tokens, alpha: float, positive: Tensor, update_momentum: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Update the momentum copies, and compute the image-text contrastive loss.

        Args:
            image: `[B, 3, H, W]`, normalized.
            texts: B texts starting with `[CLS]`.
            alpha: share of the momentum models' similarities in the targets.
            positive: `[B, B + queue_size]`, nonzero where a candidate (the batch's, then the queue's) is a positive.
            update_momentum: false where an earlier batch of the same optimizer step has updated the copies.

        Returns:
            loss, image states `[B, T, D]`, and normalized features, each `[B, embed_dim]`, by name: `image` and `text`,
            and `image_m` and `text_m` of the momentum copies.
        """
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        image_embeds = self.visual_encoder(image)
        packing = Packing.of(texts.lengths, texts.ids.shape[1], self.device)
        text_states = self.text_encoder(texts.ids, texts.mask, packing=packing, first_only=True)
        features = {
            "image": self.project_image(image_embeds),
            "text": self._project_first(self.text_proj, text_states),
        }
        with torch.no_grad():
            if update_momentum:
                self.update_momentum()
            features["image_m"] = self._project_first(self.vision_proj_m, self.visual_encoder_m(image, first_only=True))
            text_states = self.text_encoder_m(texts.ids, texts.mask, packing=packing, first_only=True)
            features["text_m"] = self._project_first(self.text_proj_m, text_states)

        # Similarities are divided by a temperature of about 0.07: bfloat16 would be off by several percent.
        with torch.autocast(image.device.type, enabled=False):
            all_images = torch.cat([features["image_m"].T, self.image_queue], dim=1)
            all_texts = torch.cat([features["text_m"].T, self.text_queue], dim=1)
            hard = positive / positive.sum(dim=1, keepdim=True)
            losses = []
            for query, momentum_query, candidates in (
                (features["image"], features["image_m"], all_texts),
                (features["text"], features["text_m"], all_images),
            ):
                with torch.no_grad():
                    soft = (momentum_query @ candidates / self.temp).softmax(dim=1)
                    targets = alpha * soft + (1 - alpha) * hard
                losses.append(F.cross_entropy(query @ candidates / self.temp, targets))
        return (losses[0] + losses[1]) / 2, image_embeds, features

    def _project_first(self, projection: nn.Linear, states: Tensor) -> Tensor:
        """Project and normalize the first of states [B, L, D] -> unit vectors [B, embed_dim], float32."""
        return F.normalize(projection(states[:, 0]).float(), dim=-1)

    def matching_loss(
        self,
        memory: Memory,
        negative_images: Memory,
        texts: Tokens,
        negative_texts: tuple[Tensor, Tensor],
        exists: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The matching loss of B pairs, B texts with negative images and B images with negative texts, in one pass.

        An image's own and its negative text attend to it together. Own texts are packed. A negative text takes the
        place of a longest one, since its length is not known on the host: it was drawn on the device.

        Args:
            memory: keys and values of the B images.
            negative_images: those of each text's negative image.
            texts: the B texts.
            negative_texts: the ids and the mask of each image's negative text, `[B, L]`, no shorter than `texts`.
            exists: two `[B]`: whether a text has a negative image, and an image a negative text. Pairs that have none
                do not count.
        """
        width = negative_texts[0].shape[1]
        ids, mask = (
            torch.cat([torch.stack([own, negative], dim=1).flatten(0, 1), own])
            for own, negative in zip(
                (F.pad(x, (0, width - x.shape[1])) for x in (texts.ids, texts.mask)), negative_texts, strict=True
            )
        )
        ids[:, 0] = self.special.enc
        lengths = [length for own in texts.lengths for length in (own, width)] + texts.lengths
        states = self.text_encoder(
            ids,
            mask,
            memory,
            memory_of_last=negative_images,
            packing=Packing.of(lengths, width, self.device),
            first_only=True,
        )
        logits = self.itm_head(states[:, 0]).float()
        with_image, with_text = exists
        counted = torch.cat([torch.stack([torch.ones_like(with_text), with_text], dim=1).flatten(), with_image])
        labels = torch.zeros_like(counted, dtype=torch.long)
        labels[: 2 * len(with_text) : 2] = MATCH
        losses = F.cross_entropy(logits, labels, reduction="none")
        with torch.no_grad():
            right = (logits.argmax(dim=1) == labels) & counted
            matching = labels == MATCH
            self.statistics = {
                "itm_accuracy_match": (right & matching).sum() / matching.sum().clamp(min=1),
                "itm_accuracy_mismatch": (right & ~matching).sum() / (counted & ~matching).sum().clamp(min=1),
            }
        return (losses * counted).sum() / counted.sum()

    def tokenize(self, caption: Sequence[str], max_length: int) -> Tokens:
        """The tokens of captions, starting with `[CLS]`."""
        return tokenize_and_count(self.tokenizer, caption, self.device, max_length=max_length)
