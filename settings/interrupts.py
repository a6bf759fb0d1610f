"""Ctrl-C ends a program with one line."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it."""


def show_in_one_line() -> None:
    """Have a KeyboardInterrupt that ends this program shown as one line, not as a traceback."""
    sys.excepthook = _show_error


def exit_at_once_in_imports() -> None:
    """Have Ctrl-C end this program also while modules are imported, some of which swallow exceptions, as torch does.

    Call it before the imports that take seconds. Afterwards the code that runs gets a KeyboardInterrupt as ever, and
    can remove what is half-written. A program that ignores interrupts, as a shell's background jobs do, goes on
    ignoring them.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    program = os.getpid()

    def interrupt(_: int, frame: FrameType | None) -> None:
        if os.getpid() == program and _imports(frame):
            os.write(2, f"{interrupted()}\n".encode())
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(interrupted(), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


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
