"""Image-text contrast and matching with momentum encoders and queues of their features (paper, section 3.2; ALBEF).

Retrieval and pre-training share all of this. They differ in what counts as a positive and in how negatives are drawn.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Memory
from models.config import ModelConfig
from models.image_text import MATCH, ImageTextModel
from models.library_internals import lerp_all
from models.med import TextModel
from models.tokenizer import tokenize
from models.vit import VisionTransformer


def gather(x: Tensor) -> Tensor:
    """x [B, ...] of every process, in the order of their ranks [processes * B, ...], without gradient."""
    if not (dist.is_available() and dist.is_initialized()):
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        grad = grad_outputs[0].clone(memory_format=torch.contiguous_format)  # the engine may still need its own
        dist.all_reduce(grad)
        return grad[dist.get_rank() * ctx.rows :][: ctx.rows]


def gather_with_gradient(x: Tensor) -> Tensor:
    """As `gather`; the gradients that all processes have for this process's rows are summed."""
    return _GatherWithGradient.apply(x) if dist.is_available() and dist.is_initialized() else x


def sample_negatives(similarity: Tensor, positive: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Draw a hard negative for each row: a column that is not positive, with probability ~ softmax(similarity) + floor.

    Args:
        similarity: `[B, M]`, divided by the temperature.
        positive: `[B, M]`, True where a pair belongs together.

    Returns:
        column `[B]`, and whether the row has a negative at all `[B]` (its column means nothing otherwise). A similarity
        that is not a number gives any column: on a GPU, drawing by such weights would end the process, and it is for
        the loss, which is not a number either, to say so.
    """
    exists = ~positive.all(dim=1)
    if floor:
        weights = (similarity.softmax(dim=1) + floor).masked_fill(positive, 0.0)
    else:  # a softmax over the negatives alone cannot underflow to nothing
        weights = similarity.masked_fill(positive, float("-inf")).softmax(dim=1)
    weights = torch.where(exists[:, None] & weights.isfinite(), weights, 1.0)
    return torch.multinomial(weights, 1).squeeze(1), exists


class MomentumModel(ImageTextModel):
    """An `ImageTextModel` in training: with slowly following copies of its encoders, and queues of their features.

    Args:
        config: the sizes of the encoders.
        embed_dim: width of the space in which images and texts are compared.
        queue_size: how many of the latest features of each kind are kept as candidates.
        momentum: share that a copy keeps of itself in each step.
        pointer: name of the buffer that holds the queues' next position; the checkpoints differ in it.

    Attributes:
        statistics: detached scalars of the last forward pass for the log. `itm_accuracy_match` and
            `itm_accuracy_mismatch` show a matching head that always says no (its loss is then 0.63).
    """

    MOMENTUM_PARTS = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")
    visual_encoder_m: VisionTransformer
    vision_proj_m: nn.Linear
    text_encoder_m: TextModel
    text_proj_m: nn.Linear
    image_queue: Tensor  # [embed_dim, queue_size], as the next
    text_queue: Tensor

    def __init__(self, config: ModelConfig, embed_dim: int, queue_size: int, momentum: float, *, pointer: str) -> None:
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
        """Make the momentum copies equal to what they follow."""
        for momentum_copy, parameter in self._copies_and_originals():
            momentum_copy.copy_(parameter)

    @torch.no_grad()
    def update_momentum(self) -> None:
        """momentum_copy = momentum * momentum_copy + (1 - momentum) * parameter, in one fused pass."""
        copies, parameters = zip(*self._copies_and_originals(), strict=True)
        lerp_all(list(copies), [parameter.detach() for parameter in parameters], 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, **features: Tensor) -> None:
        """Write the newest features of all processes over the oldest in the queues.

        Args:
            features: rows `[B, D]` by the name of their queue `[D, queue_size]`.
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
        self, image: Tensor, ids: Tensor, mask: Tensor, alpha: float, positive: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The image-text contrastive loss; updates the momentum copies first.

        Args:
            image: `[B, 3, H, W]`, normalized.
            ids, mask: texts starting with `[CLS]`, `[B, L]`.
            alpha: share of the momentum models' similarities in the targets.
            positive: `[B, B + queue_size]`, nonzero where a candidate belongs to a row: the batch, then the queue.

        Returns:
            loss, image states `[B, T, D]`, and unit features by name: `image`, `text`, and those of the momentum copies
            `image_m`, `text_m`, each `[B, embed_dim]`.
        """
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        image_embeds = self.visual_encoder(image)
        features = {
            "image": self.project_image(image_embeds),
            "text": self._project_first(self.text_proj, self.text_encoder(ids, mask, first_only=True)),
        }
        with torch.no_grad():
            self.update_momentum()
            features["image_m"] = self._project_first(self.vision_proj_m, self.visual_encoder_m(image))
            features["text_m"] = self._project_first(self.text_proj_m, self.text_encoder_m(ids, mask, first_only=True))

        # Similarities are divided by a temperature of about 0.07: bfloat16 would be off by several percent.
        with torch.autocast(image.device.type, enabled=False):
            images = torch.cat([features["image_m"].T, self.image_queue], dim=1)
            texts = torch.cat([features["text_m"].T, self.text_queue], dim=1)
            hard = positive / positive.sum(dim=1, keepdim=True)
            losses = []
            for query, momentum_query, candidates in (
                (features["image"], features["image_m"], texts),
                (features["text"], features["text_m"], images),
            ):
                with torch.no_grad():
                    soft = (momentum_query @ candidates / self.temp).softmax(dim=1)
                    targets = alpha * soft + (1 - alpha) * hard
                losses.append(F.cross_entropy(query @ candidates / self.temp, targets))
        return (losses[0] + losses[1]) / 2, image_embeds, features

    def _project_first(self, projection: nn.Linear, states: Tensor) -> Tensor:
        """First state of [B, L, D] -> projected unit vector [B, embed_dim], float32."""
        return F.normalize(projection(states[:, 0]).float(), dim=-1)

    def matching_loss(
        self,
        memory: Memory,
        image_index: tuple[Tensor, Tensor],
        ids: Sequence[Tensor],
        mask: Sequence[Tensor],
        exists: Sequence[Tensor],
    ) -> Tensor:
        """The matching loss over B pairs, B texts with a negative image, B images with a negative text, in one pass.

        Args:
            memory: projected images.
            image_index: `[B]` each: where a text's own image and its negative image are in `memory`.
            ids, mask: `[B, L]` each: the texts, starting with `[ENC]`, and the images' negative texts.
            exists: `[B]` each: whether a text has a negative image and an image a negative text; other rows are left
                out.
        """
        own, negative = image_index
        logits = self.match_logits(
            memory,
            torch.cat([ids[0], ids[0], ids[1]]),
            torch.cat([mask[0], mask[0], mask[1]]),
            torch.cat([own, negative, own]),
        )
        counted = torch.cat([torch.ones_like(exists[0]), *exists])
        batch = len(own)
        labels = torch.zeros_like(counted, dtype=torch.long)
        labels[:batch] = MATCH
        losses = F.cross_entropy(logits, labels, reduction="none")
        with torch.no_grad():
            right = (logits.argmax(dim=1) == labels) & counted
            self.statistics = {
                "itm_accuracy_match": right[:batch].float().mean(),
                "itm_accuracy_mismatch": right[batch:].sum() / counted[batch:].sum().clamp(min=1),
            }
        return (losses * counted).sum() / counted.sum()

    def tokenize(
        self, caption: Sequence[str], max_length: int, pad_to_max_length: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L] of captions, starting with `[CLS]`."""
        return tokenize(
            self.tokenizer, caption, self.device, max_length=max_length, pad_to_max_length=pad_to_max_length
        )

    def with_enc_token(self, ids: Tensor) -> Tensor:
        """The same ids [B, L], starting with `[ENC]`."""
        ids = ids.clone()
        ids[:, 0] = self.special.enc
        return ids
