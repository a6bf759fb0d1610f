"""Requests to object stores and web servers: what is retried, what is too slow, what no further attempt changes."""

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from files import without_secrets
from settings import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger("blip.data")

ATTEMPTS = 6
"""Attempts at one request; between them lie PAUSE seconds, then twice, four times ... as many."""
PAUSE = 1.0
BLOCK = 8 << 20
"""Bytes of a shard that one request asks for; a request that breaks off costs no more than these again."""
PATIENCE = 30.0
"""Seconds within which a server must answer."""
SLOWEST = 256 << 10
"""Bytes a second: a block that comes more slowly, PATIENCE apart, counts as broken."""
_POLL = 0.2  # seconds after which a waiting thread looks whether it should stop

_TRANSIENT = {408, 425, 429}  # HTTP statuses below 500 that are worth another attempt
_NOT_FOUND = (404, 410)
_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)


class Unreadable(UserError):
    """A remote file that cannot be read: which one, why, and whether it is because there is none.

    Attributes:
        name: its address as it may be shown.
        reason: one line, without secrets.
        missing: the server says that there is no such file.
        forbidden: the server refuses access.
    """

    def __init__(self, name: str, reason: str, *, missing: bool = False, forbidden: bool = False) -> None:
        super().__init__(f"{name} cannot be read: {reason}")
        self.name, self.reason, self.missing, self.forbidden = name, reason, missing, forbidden


class Stopped(Exception):
    """The thread that reads was told to stop."""


class Requests:
    """Makes the requests of one thread, with retries, until `stopped` is set.

    Args:
        stopped: ends a request, or the pause before the next attempt, by the exception Stopped.
        alive: is called again and again while a request runs.
    """

    def __init__(self, stopped: threading.Event | None = None, alive: Callable[[], None] = lambda: None) -> None:
        self._stopped = stopped or threading.Event()
        self._alive = alive

    def make(
        self,
        address: str,
        system: "AbstractFileSystem",
        method: str,
        *arguments: Any,
        check: Callable[[Any], None] = lambda _: None,
        size: int = 0,
        **options: Any,
    ) -> Any:
        """What a method of a file system returns, after as many attempts as that takes.

        Args:
            address: the file, as messages name it.
            check: raises OSError for an answer that cannot be right.
            size: bytes that are asked for; the request may take PATIENCE seconds and what SLOWEST makes of these.

        Raises Unreadable after the last attempt, or after the first where no other would do better.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._answer(system, method, arguments, options, PATIENCE + size / SLOWEST)
                check(answer)
                return answer
            except Stopped:
                raise
            except Exception as error:  # botocore, aiohttp and gcsfs have errors of their own
                failure, is_transient = _judged(without_secrets(address), error)
                if not is_transient or attempt == ATTEMPTS:
                    raise failure from error
                pause = PAUSE * 2 ** (attempt - 1)
                again = f"trying again in {pause:g} s ({attempt + 1} of {ATTEMPTS})"
                logger.warning("%s: %s; %s", failure.name, failure.reason, again)
                self._pause(pause)
        raise AssertionError("unreachable")

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._alive()
            if self._stopped.wait(min(left, _POLL)):
                raise Stopped

    def _answer(
        self, system: "AbstractFileSystem", method: str, arguments: Any, options: dict[str, Any], seconds: float
    ) -> Any:
        """One attempt, which is given up after `seconds`: cancelled, or left alone where it cannot be."""
        if system.async_impl:
            future = asyncio.run_coroutine_threadsafe(
                getattr(system, f"_{method}")(*arguments, **options),
                system.loop,  # pyright: ignore (those with async_impl have one)
            )
        else:
            future = _in_thread(lambda: getattr(system, method)(*arguments, **options))
        end = time.monotonic() + seconds
        while not future.done():
            self._alive()
            concurrent.futures.wait([future], timeout=max(0.0, min(_POLL, end - time.monotonic())))
            if self._stopped.is_set():
                future.cancel()
                raise Stopped
            if not future.done() and time.monotonic() >= end:
                future.cancel()
                raise TimeoutError(f"too slow: no answer, or no block of {BLOCK >> 10:,} KiB, within {seconds:g} s")
        return future.result()


def _in_thread(call: Callable[[], Any]) -> "concurrent.futures.Future[Any]":
    """The result of a call that runs in a thread of its own, which a mount that hangs keeps."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)

    threading.Thread(target=run, daemon=True, name="read").start()
    return future


def _judged(name: str, error: Exception) -> tuple[Unreadable, bool]:
    """The error as it is told, and whether another attempt may do better."""
    cause: Any = error.__cause__
    if isinstance(error, FileNotFoundError) and (isinstance(cause, OSError | TimeoutError) or hasattr(cause, "status")):
        error = cause  # fsspec says so of a web server, whatever the reason is
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)  # aiohttp's; gcsfs'
    if isinstance(status, int) and status >= 300:
        reason = f"the server answers {status} {without_secrets(getattr(error, 'message', ''))}".strip()
        again = status >= 500 or status in _TRANSIENT
        return Unreadable(name, reason, missing=status in _NOT_FOUND, forbidden=status in (401, 403)), again
    missing = isinstance(error, FileNotFoundError)
    reason = "there is no such file" if missing else without_secrets(error) or type(error).__name__
    hopeless = isinstance(error, _HOPELESS) or "Credentials" in type(error).__name__
    return Unreadable(name, reason, missing=missing, forbidden=isinstance(error, PermissionError)), not hopeless
