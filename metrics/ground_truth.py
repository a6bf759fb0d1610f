"""Reading ground truth files: the references and labels that predictions are compared with."""

import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class GroundTruthError(ValueError):
    """The ground truth is not in its format, or is of another split than the predictions."""

    is_user_error = True  # the message is for a person, and ends a script without a traceback


class MissingGroundTruth(FileNotFoundError):
    """There is no readable ground truth file at the path given."""

    is_user_error = True


def read_json(path: str | Path) -> Any:
    """The content of a ground truth file, which may begin with a byte order mark.

    Raises:
        MissingGroundTruth: there is none that can be read.
        GroundTruthError: it is not JSON.
    """
    try:
        with open(path, "rb", opener=_open_file) as file:
            return json.loads(file.read())  # bytes: it tells UTF-8, with or without a mark, and UTF-16 apart
    except FileNotFoundError:
        raise MissingGroundTruth(f"the ground truth {path} is not there") from None
    except OSError as error:  # a folder, or a file that is somebody else's
        raise MissingGroundTruth(f"the ground truth {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise GroundTruthError(f"the ground truth {path} is not UTF-8 text: {error.reason}") from None
    except RecursionError:
        raise GroundTruthError(f"the ground truth {path} is not JSON: it is nested too deep") from None
    except ValueError as error:
        raise GroundTruthError(f"the ground truth {path} is not JSON: {error}") from None


def _open_file(path: str, flags: int) -> int:
    """Open what is a file; a named pipe or a device would be waited for."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        folder = stat.S_ISDIR(mode)
        raise OSError(errno.EISDIR if folder else errno.EINVAL, "Is a directory" if folder else "Is a pipe or a device")
    return handle


def entries(content: Any, key: str, where: str) -> list[Mapping[str, Any]]:
    """The objects in the list `key` of COCO's format; GroundTruthError names `where` they should have been."""
    listed = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise GroundTruthError(f"{where} is not in COCO format: it has no {key!r} list")
    for row, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise GroundTruthError(f"{where}: entry {row} of {key!r} is {entry!r:.60}, expected an object")
    return list(listed)


def is_id(value: Any) -> bool:
    """Whether this can be an image's or a question's id: a whole number or a string."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit: nothing else can be compared."""
    return any(map(str.isalnum, text))
