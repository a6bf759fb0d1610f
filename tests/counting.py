"""Counts in place of times: weights without values, a GPU that need not be there, and where the host waits for one."""

import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from files import REPOSITORY

READS = {  # operations whose result, or the shape of it, the host must know before it can go on
    "_local_scalar_dense",
    "_unique2",
    "argwhere",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}


def without_values(model: nn.Module) -> nn.Module:
    """A model from the meta device, made so that what it computes has shapes and no values, and costs nothing."""
    mode, made = FakeTensorMode(allow_non_fake_inputs=True), dict[Tensor, Tensor]()
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if tensor not in made:  # else it is shared by two modules
                    with mode:
                        empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[tensor] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                tensors[name] = made[tensor]
    return model


class FakeGPU(FakeTensorMode):
    """Inside, tensors on "cuda" have a shape and no values, those on the host are real. There is no backward pass."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(_is_of_a_gpu(leaf) for leaf in tree_leaves((args, kwargs))):
            return super().__torch_dispatch__(func, types, args, kwargs)
        return func(*args, **kwargs)


def _is_of_a_gpu(value: object) -> bool:
    return isinstance(value, FakeTensor) or (isinstance(value, torch.device) and value.type == "cuda")


class HostWaits(TorchDispatchMode):
    """Notes in `places` where the host waits for the tensors of a device: it reads a value, or copies and waits for it.

    Args:
        device: "cuda" within a `FakeGPU`, whose values cannot be read; or "cpu", where all tensors stand for those of a
            GPU, and a tensor made of a list of Python's numbers for a copy to it.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).split(".")[1]
        if self._waits(name, args, kwargs):
            self.places.append(f"{name} in {_caller()}")
        return func(*args, **kwargs)

    def _waits(self, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            target = kwargs.get("device") or source.device if name == "_to_copy" else args[0].device
            asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            return self._holds(source.device) != self._holds(target) and not asynchronous
        if name == "lift_fresh":
            return self.device == "cpu" and args[0].dim() > 0
        if not any(isinstance(leaf, Tensor) and self._holds(leaf.device) for leaf in tree_leaves((args, kwargs))):
            return False
        if name in ("index", "index_put", "index_put_"):  # a mask is turned into places, which are as many as it says
            return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        return name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None)

    def _holds(self, device: torch.device) -> bool:
        return device.type == self.device


def _caller() -> str:
    """File and line of the repository's code that runs now, tests apart."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(REPOSITORY) and path.relative_to(REPOSITORY).parts[0] not in ("tests", ".venv"):
            return f"{path.relative_to(REPOSITORY)}:{frame.lineno}"
    return "the backward pass"
