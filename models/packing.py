"""Batches of texts without their padding: the tokens of all texts in one row.

Projections, feed-forward blocks, norms and the vocabulary head treat every token alike, so they run on that row. Only
attention must know which text a token belongs to; for it the tokens are laid out as a padded batch, which costs little.

How many tokens there are must be known on the host, or a GPU would have to be asked, and waited for, in every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.transfer import send


@dataclass(frozen=True)
class Packing:
    """Where the P packed tokens of B texts stand in the padded batch `[B, L]`.

    Attributes:
        places: `[P]`, ascending: the place of each token among the B * L, counted row by row.
        texts, width: B and L.
    """

    places: Tensor
    texts: int
    width: int

    @classmethod
    def of(cls, lengths: Sequence[int], width: int, device: torch.device, skipped: int = 0) -> "Packing":
        """Pack the first tokens of B texts.

        Args:
            lengths: how many of each text's `width` places are packed.
            width: L, the length to which the texts are padded.
            skipped: leave out so many of the first places of every text, even of those shorter than that.
        """
        place = torch.arange(width)
        packed = (place >= skipped) & (place < torch.tensor(lengths, dtype=torch.long)[:, None])
        count = sum(max(length - skipped, 0) for length in lengths)
        places = packed.flatten().nonzero_static(size=count)[:, 0]
        return cls(send(places, device), len(lengths), width)

    def pack(self, batch: Tensor) -> Tensor:
        """Leave the padding out: batch [B, L, ...] -> [1, P, ...]."""
        return batch.flatten(0, 1).index_select(0, self.places)[None]

    def spread(self, row: Tensor) -> Tensor:
        """Lay packed tokens out as a padded batch, with zeros as padding: row [1, P, ...] -> [B, L, ...]."""
        batch = row.new_zeros(self.texts * self.width, *row.shape[2:])
        return batch.index_copy(0, self.places, row[0]).unflatten(0, (self.texts, self.width))

    def positions(self) -> Tensor:
        """The position of each packed token in its text [1, P]."""
        return self.places[None] % self.width
