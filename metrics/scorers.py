"""Where pycocoevalcap lies, whose scorers and Java programs caption scores are made with: an extra, needed to score."""

from importlib.util import find_spec
from pathlib import Path


class ScorersMissing(ImportError):
    """pycocoevalcap is not installed."""

    is_user_error = True  # the message is for a person, and ends a script without a traceback


def scorers_folder() -> Path:
    """The folder of pycocoevalcap. Raises ScorersMissing where it is not installed, which tells how to install it."""
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ScorersMissing(
            "scoring captions needs pycocoevalcap: in this repository's folder, pip install -e '.[metrics]'"
        )
    return Path(spec.submodule_search_locations[0])
