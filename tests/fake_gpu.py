"""A GPU that is not there: its tensors have shapes and no values, and whenever the host waits for it is counted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda:0")
aten = torch.ops.aten


class FakeGPU(TorchDispatchMode):
    """Within it, tensors on `CUDA` are fake and those of the host are real.

    An operation whose shape depends on values of the GPU, such as indexing by a mask, for which the host would wait
    too, is an error here.

    Args:
        read: the values that the host gets when it asks, given the tensor that it asks for; ones by default.

    Attributes:
        waits: the operations at which the host waited for the GPU, in order.
    """

    def __init__(self, read: Callable[[Tensor], Tensor] = lambda asked: torch.ones(asked.shape)) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._read = read
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: list[Tensor] = []  # kept, so that no other tensor takes the place of one of them

    def __enter__(self) -> "FakeGPU":
        self._fake.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._fake.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        reads = any(isinstance(source, FakeTensor) for source in sources)
        target = torch.device(kwargs.get("device") or "cpu")
        if reads or target.type == "cuda":
            return self._on_gpu(func, args, kwargs, sources, target)
        if func is aten.is_pinned.default:
            return False
        if func is aten._pin_memory.default:
            self._pinned.append(args[0])
            return args[0]
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _on_gpu(self, func: Any, args: Any, kwargs: Any, sources: list[Tensor], target: torch.device) -> Any:
        """An operation that reads or writes the GPU's memory."""
        from_host = [source for source in sources if not isinstance(source, FakeTensor) and source.dim()]
        if func is aten._local_scalar_dense.default:
            asked = self._wait(func, args[0])
            with unset_fake_temporarily():
                return asked.item()
        if func is aten._to_copy.default and not from_host and "device" in kwargs and target.type == "cpu":
            return self._wait(func, args[0])
        pinned = all(any(source is one for one in self._pinned) for source in from_host)
        if from_host and not (pinned and kwargs.get("non_blocking")):
            self.waits.append(str(func))
        return func(*args, **kwargs)

    def _wait(self, func: Any, asked: Tensor) -> Tensor:
        self.waits.append(str(func))
        with unset_fake_temporarily():
            return self._read(asked).to(asked.dtype)
