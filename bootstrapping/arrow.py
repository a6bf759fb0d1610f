"""pyarrow's compute functions, on columns instead of single values."""

from typing import Any


def compute() -> Any:
    """The module `pyarrow.compute`, untyped: most of its functions are made when it is imported."""
    import pyarrow.compute

    return pyarrow.compute
