"""Pictures decoded in threads, ahead of their use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from data.media.image_file import BadImage

Item = TypeVar("Item")
Decoded = TypeVar("Decoded")

_AHEAD = 2  # batches that are decoded while one is used


def read_ahead(
    items: Iterable[Item], decode: Callable[[Item], Decoded], batch_size: int, threads: int
) -> Generator[list[tuple[Item, Decoded | BadImage]], None, None]:
    """Yield batches of items, in order, each with what `decode` makes of it, or the BadImage that it raises.

    Items are taken a few batches ahead, so they may be a large corpus, read as it is used. What else `decode` raises
    is raised here. Close the generator to end early: it does not wait for what it read ahead.
    """

    def attempt(item: Item) -> Decoded | BadImage:
        try:
            return decode(item)
        except BadImage as error:
            return error

    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    ahead: deque[list[tuple[Item, Future[Decoded | BadImage]]]] = deque()
    try:
        while True:
            while len(ahead) <= _AHEAD and (batch := list(islice(remaining, batch_size))):
                ahead.append([(item, pool.submit(attempt, item)) for item in batch])
            if not ahead:
                return
            yield [(item, future.result()) for item, future in ahead.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
