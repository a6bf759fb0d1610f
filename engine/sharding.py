"""AdamW's moments, which take twice the memory of the weights, dealt out to the processes (ZeRO, stage 1).

A process holds the moments of some parameters, updates these, and receives the others from their owners. Parameters are
dealt out whole, so each is computed as ever: the weights are bitwise those of a run in which every process updates all.

torch's ZeroRedundancyOptimizer is called experimental, hides from its AdamW the `found_inf` of our guard and of
GradScaler, and gathers moments as pickles that pass through every GPU. `fully_shard` would shard weights and gradients,
too, but gathers weights for the forward passes of modules only: tied weights, momentum copies and methods need more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.distributed import gather_objects
from models.library_internals import copy_all

_BUCKET = 1 << 24  # elements that are sent together: 64 MiB
_AHEAD = 4  # buckets that are on their way at the same time
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's of a parameter, in its order


def deal(sizes: list[int], processes: int) -> list[int]:
    """The owner of each of `sizes`: the largest first, each to the process that has the least so far."""
    owners, loads = [0] * len(sizes), [0] * processes
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += sizes[index]
    return owners


class OptimizerShares:
    """Which process has the moments of which parameters, and what processes send each other for that.

    Every process calls `exchange` and `gather` at the same time.

    Args:
        parameters: those of the optimizer in its order, the same on all processes; float32.
        rank, processes: this process, of so many.
    """

    def __init__(self, parameters: list[nn.Parameter], rank: int, processes: int) -> None:
        self.parameters, self.rank = parameters, rank
        self.owners = deal([parameter.numel() for parameter in parameters], processes)
        self._buckets = list(self._bucketed(range(len(parameters))))

    def _bucketed(self, indices: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Parameters, given by their places in the list, in groups that one process owns -> (owner, places)."""
        groups: dict[int, list[int]] = {}
        for index in indices:
            group = groups.setdefault(self.owners[index], [])
            group.append(index)
            if sum(self.parameters[i].numel() for i in group) >= _BUCKET:
                yield self.owners[index], groups.pop(self.owners[index])
        yield from sorted(groups.items())

    def keep_own_gradients(self) -> None:
        """Drop the gradients of the others' parameters: AdamW leaves these as they are, and has no moments of them."""
        for parameter, owner in zip(self.parameters, self.owners, strict=True):
            if owner != self.rank:
                parameter.grad = None

    @torch.no_grad()
    def exchange(self) -> None:
        """Set all parameters to what their owners have made of them."""
        under_way: deque[tuple[Any, Tensor, list[Tensor]]] = deque()
        for owner, indices in self._buckets:
            tensors = [self.parameters[index].detach() for index in indices]
            under_way.append((*self._broadcast(owner, tensors, tensors), tensors))
            if len(under_way) == _AHEAD:
                _receive(*under_way.popleft())
        while under_way:
            _receive(*under_way.popleft())

    def own(self, state: Mapping[int, Any]) -> dict[int, Any]:
        """The moments of this process's parameters, of an optimizer's whole state."""
        return {index: moments for index, moments in state.items() if self.owners[index] == self.rank}

    def gather(self, state: Mapping[int, Any], copy: Callable[[Any], Any]) -> dict[int, Any]:
        """The whole state of the optimizer on the first process, each tensor given through `copy`; {} on the others.

        No more than a bucket of the others' moments is on a device at a time.
        """
        whole: dict[int, Any] = {} if self.rank else {index: copy(moments) for index, moments in state.items()}
        for owner, indices in self._bucketed(sorted(gather_objects(list(state)))):
            if owner == 0:
                continue
            # Of each parameter a step count, and two moments of its own shape.
            one = torch.zeros((), device=self.parameters[0].device)
            shapes = [like for index in indices for like in (one, *[self.parameters[index].detach()] * 2)]
            mine = [state[index][name] for index in indices for name in _MOMENTS] if owner == self.rank else []
            work, flat = self._broadcast(owner, shapes, mine)
            work.wait()
            if self.rank == 0:
                tensors = iter([part.clone() for part in _split(flat, shapes)])  # each with memory of its own
                whole |= {index: {name: copy(next(tensors)) for name in _MOMENTS} for index in indices}
        return dict(sorted(whole.items()))

    def _broadcast(self, owner: int, shapes: list[Tensor], tensors: list[Tensor]) -> tuple[Any, Tensor]:
        """Start to send `tensors` from their owner, of the shapes of `shapes` -> what to wait for, and all in one."""
        if owner == self.rank:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        else:
            flat = shapes[0].new_empty(sum(shape.numel() for shape in shapes))
        return dist.broadcast(flat, owner, async_op=True), flat


def _receive(work: Any, flat: Tensor, tensors: list[Tensor]) -> None:
    work.wait()
    copy_all(tensors, _split(flat, tensors))


def _split(flat: Tensor, shapes: list[Tensor]) -> list[Tensor]:
    """The tensors that lie end to end in `flat`, of the shapes of `shapes`."""
    parts = flat.split([shape.numel() for shape in shapes])
    return [part.view(shape.shape) for part, shape in zip(parts, shapes, strict=True)]
