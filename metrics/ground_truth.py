"""Reading ground truth files: the references and labels that predictions are compared with."""

import json
from pathlib import Path
from typing import Any


class GroundTruthError(ValueError):
    """The ground truth is not in its format, or is of another split than the predictions."""

    is_user_error = True  # the message is for a person, and ends a script without a traceback


class MissingGroundTruth(FileNotFoundError):
    """There is no readable ground truth file at the path given."""

    is_user_error = True


def read_json(path: str | Path) -> Any:
    """The content of a ground truth file.

    Raises:
        MissingGroundTruth: there is none that can be read.
        GroundTruthError: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingGroundTruth(f"the ground truth {path} is not there") from None
    except OSError as error:  # a folder, or a file that is somebody else's
        raise MissingGroundTruth(f"the ground truth {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise GroundTruthError(f"the ground truth {path} is not JSON: {error}") from None
