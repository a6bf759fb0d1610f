"""Lazy imports (PEP 562): a name of `models` is imported at its first use."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy_names(module: str, sources: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of `module`, which imports each name at its first use.

    Args:
        module: the module's `__name__`.
        sources: for each name the module that defines it. Where that is a submodule of the same name
            (`models.blip_itm`), the submodule itself is returned, since Python sets it as the package's attribute as
            soon as anything imports it; see `make_callable`.
    """

    def get(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        source = importlib.import_module(sources[name])
        return source if source.__name__ == f"{module}.{name}" else getattr(source, name)

    return get


class CallableModule(ModuleType):
    """A module that can be called: a call goes to its function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Callable[..., Any]:
        return vars(self)[self.__name__.rpartition(".")[2]]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def make_callable(module: str) -> None:
    """Make the module of this `__name__` callable: `models.blip_itm(...)` calls `models.blip_itm.blip_itm(...)`.

    `models` could not hold the function itself under this name: importing the submodule would replace it.
    """
    sys.modules[module].__class__ = CallableModule
