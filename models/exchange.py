"""What processes that train together send each other: features to all, and images' states to who drew them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """Concatenate x [B, ...] of all processes, by rank -> [processes * B, ...], without gradient."""
    if not (dist.is_available() and dist.is_initialized()):
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


class _SendRows(torch.autograd.Function):
    """`all_to_all` of rows, whose gradients go back the way that the rows came."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int]) -> Tensor:
        ctx.sent, ctx.received = sent, received
        return _all_to_all(x, sent, received)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return _all_to_all(grad_outputs[0], ctx.received, ctx.sent), None, None


def _all_to_all(x: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Send sent[r] rows of x, in their order, to each rank r, and receive received[r] from it, in order of rank."""
    result = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(result, x.contiguous(), received, sent)
    return result


class DrawnRows:
    """Rows of all processes that this process drew; the processes send each other these rows, and no others.

    How many rows go where is known only after the draw, and the host must know it to send them. It waits for that in
    `fetch`: give a GPU other work in between.

    Args:
        numbers: `[M]`, M equal on all processes: the drawn rows' numbers in `gather(x)`.
        rows: B, how many rows x has on each process.
    """

    def __init__(self, numbers: Tensor, rows: int) -> None:
        ranks = torch.arange(dist.get_world_size(), device=numbers.device)
        self._first_of_mine = dist.get_rank() * rows
        self._numbers = gather(numbers[None])  # [processes, M]
        self._owners = self._numbers // rows  # the rank that has each row
        counts = (self._owners[:, :, None] == ranks).sum(dim=1)  # [process that draws, process that sends]
        self._counts = counts.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if counts.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def fetch(self, x: Tensor) -> Tensor:
        """x [B, ...] -> `gather(x)[numbers]` [M, ...]; gradients of a row are summed over all that drew it.

        All processes must call it.
        """
        if self._copied is not None:
            self._copied.synchronize()
        rank = dist.get_rank()
        sent, received = self._counts[:, rank].tolist(), self._counts[rank].tolist()
        wanted = (self._owners != rank).flatten().byte().argsort(stable=True)[: sum(sent)]  # by the rank that draws
        rows = _SendRows.apply(x[self._numbers.flatten()[wanted] - self._first_of_mine], sent, received)
        arrival = self._owners[rank].argsort(stable=True)  # rows arrive by the rank that sends them
        return rows[arrival.argsort()]
