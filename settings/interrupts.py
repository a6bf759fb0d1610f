"""Ctrl-C ends a program with one line, wherever it is."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it."""


def exit_on_interrupt() -> None:
    """Have Ctrl-C end this program with one line, not a traceback. Call it before the imports that take seconds.

    The code that runs gets a KeyboardInterrupt, so that it can remove what is half-written. During an import the
    program ends at once: some modules swallow exceptions while they are imported. A program that ignores interrupts,
    as a shell's background jobs do, goes on ignoring them.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    program, show = os.getpid(), sys.excepthook

    def interrupt(_: int, frame: FrameType | None) -> None:
        if os.getpid() == program and _imports(frame):
            os.write(2, f"{interrupted()}\n".encode())
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    def show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(interrupted(), file=sys.stderr)
        else:
            show(kind, error, traceback)

    signal.signal(signal.SIGINT, interrupt)
    sys.excepthook = show_error


def interrupted() -> str:
    """What a program says when Ctrl-C has ended it."""
    spec = sys.modules["__main__"].__spec__  # of `python -m NAME`
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name
    return f"{name}: interrupted"


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way in this frame."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
