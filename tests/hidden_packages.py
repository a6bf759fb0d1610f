"""Import as if some packages were not installed; a script: `hidden_packages.py av,pyarrow SCRIPT [ARGUMENT ...]`"""

import runpy
import sys
from collections.abc import Collection
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


def finders_without(packages: Collection[str]) -> list[Any]:
    """What `sys.meta_path` must be for `packages` not to be found."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None) -> ModuleSpec | None:
            return None if fullname.partition(".")[0] in packages else super().find_spec(fullname, path, target)

    return [Finder if finder is PathFinder else finder for finder in sys.meta_path]


if __name__ == "__main__":
    sys.meta_path = finders_without(frozenset(sys.argv[1].split(",")))
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
