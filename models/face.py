"""How `models` shows its functions and classes without importing them before they are asked for (PEP 562)."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `module`: imports a name from its home when it is first asked for.

    Args:
        module: the module's `__name__`.
        homes: the module that holds each name. One that is a module of the same name inside `module` is shown itself,
            since Python puts it in that place whenever anything imports it; see `make_callable`.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = importlib.import_module(homes[name])
        return home if home.__name__ == f"{module}.{name}" else getattr(home, name)

    return get


class CallableModule(ModuleType):
    """A module that is also called, as the function of its own name in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Callable[..., Any]:
        return vars(self)[self.__name__.rpartition(".")[2]]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def make_callable(module: str) -> None:
    """Let `models.blip_itm(...)` mean `models.blip_itm.blip_itm(...)`, for the module of that `__name__`.

    A package cannot show a function under the name of one of its modules: whichever was imported last would be found.
    """
    sys.modules[module].__class__ = CallableModule
